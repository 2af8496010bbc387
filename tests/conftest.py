"""Clusters for tests, and a check that nothing is left behind."""

import os
import signal

import pytest

import quorate
from harness import eventually, processes


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
    """A cluster of three nodes that tests leave unchanged."""
    with quorate.Cluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def cluster():
    """A cluster of three nodes for failures."""
    with quorate.Cluster(nodes=3) as cluster:
        yield cluster


_names = (f"ks{number}" for number in range(1, 10_000))


@pytest.fixture
def keyspace(shared):
    """An empty keyspace with three replicas."""
    return shared.keyspace(next(_names), mode="quorum", replicas=3)
