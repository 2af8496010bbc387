"""Wait for conditions, and find leftover processes."""

import contextlib
import os
import secrets
import time
from pathlib import Path

from quorate import ConnectionLost, OutcomeUnknown, ReadTimeout

# Set in the environment of every process that a test starts, directly or not.
RUN = secrets.token_hex(8)
os.environ["TEST_RUN_OF_QUORATE"] = RUN

# Plots are drawn without a screen.
os.environ["MPLBACKEND"] = "agg"

# Tests wait for conditions, never for a fixed time; this is their deadline.
PATIENCE = 20.0


def eventually(condition, *, patience=PATIENCE, pause=0.02):
    """Wait until a condition holds; return its result, or fail."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{condition} did not hold within {patience:g} s"
        time.sleep(pause)


def patiently(action):
    """Call a function that asks all nodes; retry once if one times out, as may happen on a busy machine."""
    found = []

    def done():
        with contextlib.suppress(ConnectionLost, OutcomeUnknown, ReadTimeout):
            found.append(action())
        return found

    return eventually(done)[0]


@contextlib.contextmanager
def struck(make, *groups, **options):
    """Set a fault, with retries while nodes time out."""
    fault = patiently(lambda: make(*groups, **options))
    try:
        yield fault
    finally:
        patiently(fault.heal)


def processes(mark=f"TEST_RUN_OF_QUORATE={RUN}"):
    """Map the processes with a mark in their environment to their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found
