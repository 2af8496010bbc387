"""Quorate: a real replicated storage cluster to start, break, observe and test from Python.

>>> import quorate
>>> from quorate import ALL, ONE
>>> with quorate.Cluster(nodes=5) as cluster:
...     users = cluster.keyspace("users", mode="quorum", replicas=3)
...     result = users.put("user-123", "Ada", consistency=ALL)
...     users.get("user-123", consistency=ONE).text
'Ada'

`quorate.aio` is the same API for asyncio. Names are imported when they are first used, because every node of a cluster
imports this package when it starts.
"""

from typing import TYPE_CHECKING, Any

from quorate.version import check as _check

_check()

if TYPE_CHECKING:
    from quorate import aio, errors, plots
    from quorate._quorate import Context, __version__
    from quorate.cluster import Cluster
    from quorate.connection import Connection, connect
    from quorate.consensus import ConsensusKeyspace
    from quorate.consensus_answers import LogEntry
    from quorate.errors import (
        AddressInUse,
        Closed,
        ClusterStartError,
        ConditionFailed,
        Conflict,
        ConnectionLost,
        ConnectionRefused,
        CorruptRecord,
        DataDirectoryError,
        InvalidArgument,
        KeyspaceExists,
        LimitExceeded,
        NotFound,
        OutcomeUnknown,
        Overloaded,
        PartialFailure,
        PermissionDenied,
        QuorateError,
        ReadTimeout,
        Refused,
        SessionExpired,
        StopTimeout,
        StorageFull,
        Unavailable,
    )
    from quorate.fault_api import Fault
    from quorate.faults import Faults, LinkFault
    from quorate.groups import GroupClaim, Groups
    from quorate.keyspace import Keyspace
    from quorate.levels import (
        ALL,
        LINEARIZABLE,
        ONE,
        QUORUM,
        STALE,
        THREE,
        TWO,
        Consistency,
        Level,
        ReadConsistency,
        ReadLevel,
    )
    from quorate.metrics import Metrics, Sample
    from quorate.node import Node
    from quorate.quorum_answers import Version
    from quorate.results import Appended, Commit, ConsensusEntry, Entry, WriteResult
    from quorate.ring import Balance, Distribution, NodeShare, Ring
    from quorate.timeline import Event, Timeline
    from quorate.topology import (
        ClusterStatus,
        Health,
        KeyspaceInfo,
        Member,
        NodeStatus,
        PeerStatus,
        ShardGroup,
        Topology,
    )
    from quorate.trace import Span, Trace

_EXPORTS = {
    "_quorate": ("Context", "__version__"),
    "cluster": ("Cluster",),
    "connection": ("Connection", "connect"),
    "consensus": ("ConsensusKeyspace",),
    "consensus_answers": ("LogEntry",),
    "errors": (
        "AddressInUse",
        "Closed",
        "ClusterStartError",
        "ConditionFailed",
        "Conflict",
        "ConnectionLost",
        "ConnectionRefused",
        "CorruptRecord",
        "DataDirectoryError",
        "InvalidArgument",
        "KeyspaceExists",
        "LimitExceeded",
        "NotFound",
        "OutcomeUnknown",
        "Overloaded",
        "PartialFailure",
        "PermissionDenied",
        "QuorateError",
        "ReadTimeout",
        "Refused",
        "SessionExpired",
        "StopTimeout",
        "StorageFull",
        "Unavailable",
    ),
    "fault_api": ("Fault",),
    "faults": ("Faults", "LinkFault"),
    "groups": ("GroupClaim", "Groups"),
    "keyspace": ("Keyspace",),
    "levels": (
        "ALL",
        "LINEARIZABLE",
        "ONE",
        "QUORUM",
        "STALE",
        "THREE",
        "TWO",
        "Consistency",
        "Level",
        "ReadConsistency",
        "ReadLevel",
    ),
    "metrics": ("Metrics", "Sample"),
    "node": ("Node",),
    "quorum_answers": ("Version",),
    "results": ("Appended", "Commit", "ConsensusEntry", "Entry", "WriteResult"),
    "ring": ("Balance", "Distribution", "NodeShare", "Ring"),
    "timeline": ("Event", "Timeline"),
    "topology": (
        "ClusterStatus",
        "Health",
        "KeyspaceInfo",
        "Member",
        "NodeStatus",
        "PeerStatus",
        "ShardGroup",
        "Topology",
    ),
    "trace": ("Span", "Trace"),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}
_SUBMODULES = ("aio", "errors", "plots")

__all__ = [
    "ALL",
    "LINEARIZABLE",
    "ONE",
    "QUORUM",
    "STALE",
    "THREE",
    "TWO",
    "AddressInUse",
    "Appended",
    "Balance",
    "Closed",
    "Cluster",
    "ClusterStartError",
    "ClusterStatus",
    "Commit",
    "ConditionFailed",
    "Conflict",
    "Connection",
    "ConnectionLost",
    "ConnectionRefused",
    "ConsensusEntry",
    "ConsensusKeyspace",
    "Consistency",
    "Context",
    "CorruptRecord",
    "DataDirectoryError",
    "Distribution",
    "Entry",
    "Event",
    "Fault",
    "Faults",
    "GroupClaim",
    "Groups",
    "Health",
    "InvalidArgument",
    "Keyspace",
    "KeyspaceExists",
    "KeyspaceInfo",
    "Level",
    "LimitExceeded",
    "LinkFault",
    "LogEntry",
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
    "PermissionDenied",
    "QuorateError",
    "ReadConsistency",
    "ReadLevel",
    "ReadTimeout",
    "Refused",
    "Ring",
    "Sample",
    "SessionExpired",
    "ShardGroup",
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
    "plots",
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
