"""Waiting for conditions, and finding what is left behind."""

import os
import secrets
import time
from pathlib import Path

# Every process that a test starts, directly or not, has this in its environment.
RUN = secrets.token_hex(8)
os.environ["TEST_RUN_OF_QUORATE"] = RUN

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
