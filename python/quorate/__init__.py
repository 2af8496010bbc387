"""Quorate: a real replicated storage cluster to start, break, watch and judge from Python.

>>> import quorate
>>> from quorate import ALL, ONE
>>> with quorate.Cluster(nodes=5) as cluster:
...     users = cluster.keyspace("users", mode="quorum", replicas=3)
...     result = users.put("user-123", "Ada", consistency=ALL)
...     users.get("user-123", consistency=ONE).text
'Ada'

`quorate.aio` has the same for asyncio. Names are imported when they are first used, because every node of a cluster
imports this package when it starts.
"""

from typing import TYPE_CHECKING, Any

from quorate.version import check as _check

_check()

if TYPE_CHECKING:
    from quorate import aio, errors
    from quorate._quorate import Context, __version__
    from quorate.cluster import Cluster, Node
    from quorate.connection import Connection, connect
    from quorate.entries import Entry, Version, WriteResult
    from quorate.errors import (
        AddressInUse,
        Closed,
        ClusterStartError,
        Conflict,
        ConnectionLost,
        CorruptRecord,
        DataDirectoryError,
        InvalidArgument,
        KeyspaceExists,
        LimitExceeded,
        NotFound,
        OutcomeUnknown,
        Overloaded,
        PartialFailure,
        QuorateError,
        ReadTimeout,
        Refused,
        StopTimeout,
        StorageFull,
        Unavailable,
    )
    from quorate.keyspace import Keyspace
    from quorate.levels import ALL, ONE, QUORUM, THREE, TWO, Consistency, Level
    from quorate.metrics import Metrics, Sample
    from quorate.ring import Balance, Distribution, NodeShare, Ring
    from quorate.timeline import Event, Timeline
    from quorate.topology import (
        ClusterStatus,
        Health,
        KeyspaceInfo,
        Member,
        NodeStatus,
        PeerStatus,
        Topology,
    )
    from quorate.trace import Span, Trace

_EXPORTS = {
    "_quorate": ("Context", "__version__"),
    "cluster": ("Cluster", "Node"),
    "connection": ("Connection", "connect"),
    "entries": ("Entry", "Version", "WriteResult"),
    "errors": (
        "AddressInUse",
        "Closed",
        "ClusterStartError",
        "Conflict",
        "ConnectionLost",
        "CorruptRecord",
        "DataDirectoryError",
        "InvalidArgument",
        "KeyspaceExists",
        "LimitExceeded",
        "NotFound",
        "OutcomeUnknown",
        "Overloaded",
        "PartialFailure",
        "QuorateError",
        "ReadTimeout",
        "Refused",
        "StopTimeout",
        "StorageFull",
        "Unavailable",
    ),
    "keyspace": ("Keyspace",),
    "levels": ("ALL", "ONE", "QUORUM", "THREE", "TWO", "Consistency", "Level"),
    "metrics": ("Metrics", "Sample"),
    "ring": ("Balance", "Distribution", "NodeShare", "Ring"),
    "timeline": ("Event", "Timeline"),
    "topology": (
        "ClusterStatus",
        "Health",
        "KeyspaceInfo",
        "Member",
        "NodeStatus",
        "PeerStatus",
        "Topology",
    ),
    "trace": ("Span", "Trace"),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}
_SUBMODULES = ("aio", "errors")

__all__ = [
    "ALL",
    "ONE",
    "QUORUM",
    "THREE",
    "TWO",
    "AddressInUse",
    "Balance",
    "Closed",
    "Cluster",
    "ClusterStartError",
    "ClusterStatus",
    "Conflict",
    "Connection",
    "ConnectionLost",
    "Consistency",
    "Context",
    "CorruptRecord",
    "DataDirectoryError",
    "Distribution",
    "Entry",
    "Event",
    "Health",
    "InvalidArgument",
    "Keyspace",
    "KeyspaceExists",
    "KeyspaceInfo",
    "Level",
    "LimitExceeded",
    "Member",
    "Metrics",
    "Node",
    "NodeShare",
    "NodeStatus",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "PartialFailure",
    "PeerStatus",
    "QuorateError",
    "ReadTimeout",
    "Refused",
    "Ring",
    "Sample",
    "Span",
    "StopTimeout",
    "StorageFull",
    "Timeline",
    "Topology",
    "Trace",
    "Unavailable",
    "Version",
    "WriteResult",
    "__version__",
    "aio",
    "connect",
    "errors",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _SUBMODULES:
        return importlib.import_module(f"quorate.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'quorate' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"quorate.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
