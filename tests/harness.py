"""Waiting for conditions, and finding what is left behind."""

import contextlib
import os
import secrets
import time
from pathlib import Path

from quorate import ConnectionLost, OutcomeUnknown, ReadTimeout

# Every process that a test starts, directly or not, has this in its environment.
RUN = secrets.token_hex(8)
os.environ["TEST_RUN_OF_QUORATE"] = RUN

# Plots are drawn without a screen.
os.environ["MPLBACKEND"] = "agg"

# Tests wait for conditions, never for a time; this is when they give up.
PATIENCE = 20.0


def eventually(condition, *, patience=PATIENCE, pause=0.02):
    """Wait until a condition holds; returns what it returned, or fails."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{condition} did not come true in {patience:g} s"
        time.sleep(pause)


def patiently(action):
    """Do what asks all nodes, once more when one did not answer in time: on a busy machine that is no failure."""
    found = []

    def done():
        with contextlib.suppress(ConnectionLost, OutcomeUnknown, ReadTimeout):
            found.append(action())
        return found

    return eventually(done)[0]


@contextlib.contextmanager
def struck(make, *groups, **options):
    """Have a fault in force, however long nodes take to answer."""
    fault = patiently(lambda: make(*groups, **options))
    try:
        yield fault
    finally:
        patiently(fault.heal)


def processes(mark=f"TEST_RUN_OF_QUORATE={RUN}"):
    """Map the processes that have a mark in their environment to their command lines."""
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
