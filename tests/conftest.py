"""Clusters for tests, and the promise that nothing is left behind."""

import os
import secrets
import signal
import time
from pathlib import Path

import pytest

import quorate

# Every process that a test starts, directly or not, has this in its environment.
RUN = secrets.token_hex(8)
os.environ["QUORATE_TEST_RUN"] = RUN

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


def processes(mark=f"QUORATE_TEST_RUN={RUN}"):
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


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind():
    yield
    try:
        eventually(lambda: not processes(), patience=10)
    except AssertionError:
        left = processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"processes were left behind: {left}") from None


@pytest.fixture(scope="session")
def shared():
    """A cluster of three nodes that tests leave as they found it."""
    with quorate.Cluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def cluster():
    """A cluster of three nodes to be broken."""
    with quorate.Cluster(nodes=3) as cluster:
        yield cluster


_names = (f"ks{number}" for number in range(1, 10_000))


@pytest.fixture
def keyspace(shared):
    """An empty keyspace with three replicas."""
    return shared.keyspace(next(_names), mode="quorum", replicas=3)
