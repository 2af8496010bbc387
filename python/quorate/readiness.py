"""Waits until the nodes of a `Cluster` see each other, and detect those that do not run.

Each is a `quorate.flow.Flow`, for the synchronous and the asynchronous cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import flow, observation
from quorate.errors import ClusterStartError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from quorate.faults_client import FaultsClient
    from quorate.processes import Processes

__all__ = ["linked", "noticed", "relinked", "started", "unlinked"]


def started(processes: Processes, timeout: float) -> flow.Flow[bool]:
    """Wait until all nodes see each other and agree on the control plane's leader; fail if one of them ends."""
    names, deadline = processes.names, (yield from flow.now()) + timeout
    if not (yield from linked(processes, names, timeout)):
        return False
    left = max(0.0, deadline - (yield from flow.now()))
    return (yield from observation.led(names, left, lambda: processes.fallen(names)))


def linked(processes: Processes, names: Collection[str], timeout: float) -> flow.Flow[bool]:
    """Wait until these nodes see each other; fail if one of them ends."""
    return observation.links(names, (), timeout, lambda: processes.fallen(names))


def relinked(
    processes: Processes, faults: FaultsClient, names: Collection[str], timeout: float
) -> flow.Flow[bool]:
    """Wait until these nodes see each other, except across partitions; fail if one of them ends."""
    severed = yield from faults.severed(timeout)
    return (yield from observation.links(names, (), timeout, lambda: processes.fallen(names), severed))


def noticed(
    processes: Processes, faults: FaultsClient, down: Collection[str], timeout: float
) -> flow.Flow[bool]:
    """Wait until running nodes see no stopped ones, and see each other except across partitions."""
    severed = yield from faults.severed(timeout)
    return (yield from observation.links(processes.awake(), down, timeout, severed=severed))


def unlinked(processes: Processes, names: Iterable[str], timeout: float) -> ClusterStartError:
    """Create the error for nodes that do not see each other, have no leader, or have ended."""
    fallen = processes.fallen(names)
    if fallen is not None:
        return fallen.fall()
    return ClusterStartError(
        f"the nodes {', '.join(processes.awake())} run but do not all see each other and a leader after {timeout:g} s:"
        f" look at the logs in {processes.directory}",
        node=", ".join(processes.awake()),
    )
