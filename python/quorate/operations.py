"""Operations on a cluster as a whole: its members, its keyspaces, the placement of keys.

Each is a `quorate.flow.Flow`, so that the synchronous and the asynchronous client share it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from quorate import levels
from quorate.arguments import PROBE_TIMEOUT, text, whole_number
from quorate.errors import ConnectionLost, InvalidArgument, NotFound, Overloaded, ReadTimeout, Unavailable
from quorate.flow import Call, Flow
from quorate.ring import Distribution, Ring
from quorate.topology import KeyspaceInfo, Member, ShardGroup, Topology

if TYPE_CHECKING:
    from quorate.levels import Consistency

MAX_REPLICAS = 255
"""Maximum number of replicas in the protocol."""
MAX_SHARDS = 256
"""Maximum number of shards of one keyspace."""
SNAPSHOT_EVERY = 10_000
"""Default number of entries after which a group's log is compacted."""
_NAMED = 10
_UNANSWERED = (ConnectionLost, Overloaded, ReadTimeout, Unavailable)


def topology(timeout: float) -> Flow[Topology]:
    """Fetch the topology from any node."""
    membership = yield Call("topology", (timeout,))
    found = membership["topology"]
    roles = dict.fromkeys(membership["voters"], "voter") | dict.fromkeys(membership["learners"], "learner")
    members = tuple(
        Member(
            f"n{member['id']}",
            member["client_address"],
            member["peer_address"],
            member["http_address"],
            member["rack"],
            member["datacenter"],
            roles.get(member["id"]),
        )
        for member in found["members"]
    )
    ring = found["ring"]
    return Topology(
        found["cluster"],
        found["generation"],
        members,
        ring["vnodes"],
        str(ring["hash"]).lower(),
        membership["version"],
    )


class MemberCache:
    """Caches the last known topology.

    Queries about nodes must not need a node that is up: if none returns the topology, the cached one is used.
    """

    def __init__(self) -> None:
        self._last: Topology | None = None

    def topology(self, timeout: float) -> Flow[Topology]:
        """Fetch the topology from any node, and cache it.

        Raises
        ------
        ConnectionLost, ReadTimeout
            If no node responds, and none ever has.
        """
        try:
            self._last = yield from topology(timeout)
        except _UNANSWERED:
            if self._last is None:
                raise
        return self._last

    def learn(self, timeout: float) -> Flow[None]:
        """Prefetch the topology; ignores errors."""
        with contextlib.suppress(*_UNANSWERED):
            yield from self.topology(min(timeout, PROBE_TIMEOUT))


def keyspace_info(found: dict[str, Any]) -> KeyspaceInfo:
    """Convert a keyspace from the protocol's form."""
    settings = found["settings"]
    return KeyspaceInfo(
        settings["name"],
        found["id"],
        str(settings["mode"]).lower(),
        settings["replicas"],
        _level(settings["read_level"]),
        _level(settings["write_level"]),
        str(settings["read_repair"]).lower(),
        settings["shards"],
        settings["snapshot_every"],
        tuple(
            ShardGroup(group["id"], tuple(f"n{member}" for member in group["members"]))
            for group in found["groups"]
        ),
    )


def _level(found: str | dict[str, int]) -> levels.Level | int:
    return levels.Level(found.upper()) if isinstance(found, str) else found["Count"]


def keyspaces(timeout: float) -> Flow[tuple[KeyspaceInfo, ...]]:
    """List the keyspaces."""
    found = yield Call("keyspaces", (timeout,))
    return tuple(sorted((keyspace_info(keyspace) for keyspace in found), key=lambda info: info.name))


def find_keyspace(name: str, timeout: float) -> Flow[KeyspaceInfo]:
    """Find a keyspace by name.

    Raises
    ------
    NotFound
        If no keyspace has this name.
    """
    known = yield from keyspaces(timeout)
    for info in known:
        if info.name == name:
            return info
    names = ", ".join(repr(info.name) for info in known[:_NAMED]) or "none"
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    raise NotFound(
        f'no keyspace {name!r} (there are: {names}{more}): create it with keyspace({name!r}, mode="quorum", replicas=3)'
    )


def open_keyspace(
    name: str,
    mode: str | None,
    replicas: int | None,
    read: Consistency | None,
    write: Consistency | None,
    read_repair: str | None,
    shards: int | None,
    snapshot_every: int | None,
    timeout: float,
) -> Flow[KeyspaceInfo]:
    """Create a keyspace, or open an identical one; without any setting only open it.

    Raises
    ------
    InvalidArgument
        For invalid settings.
    KeyspaceExists
        If one exists with other settings.
    NotFound
        If no setting is given and no keyspace has this name.
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"a keyspace's name is a str, not {type(name).__name__}")
    given = (mode, replicas, read, write, read_repair, shards, snapshot_every)
    if all(setting is None for setting in given):
        return (yield from find_keyspace(name, timeout))
    info, _ = yield from create_keyspace(name, *given, timeout)
    return info


def create_keyspace(
    name: str,
    mode: str | None,
    replicas: int | None,
    read: Consistency | None,
    write: Consistency | None,
    read_repair: str | None,
    shards: int | None,
    snapshot_every: int | None,
    timeout: float,
) -> Flow[tuple[KeyspaceInfo, bool]]:
    """Create a keyspace, or open an identical one; also returns whether it is new.

    Raises
    ------
    InvalidArgument
        For invalid settings.
    KeyspaceExists
        If one exists with other settings.
    """
    if mode not in (None, "quorum", "consensus"):
        raise InvalidArgument(f'mode {mode!r}: use "quorum" or "consensus"')
    consensus = mode == "consensus"
    if consensus and (read, write, read_repair) != (None, None, None):
        raise InvalidArgument(
            'read, write and read_repair are settings of mode="quorum": in mode="consensus" every write is committed by'
            " a majority, and each read chooses LINEARIZABLE or STALE"
        )
    if not consensus and (shards, snapshot_every) != (None, None):
        given_name, value = ("shards", shards) if shards is not None else ("snapshot_every", snapshot_every)
        raise InvalidArgument(f'{given_name}={value!r}: only keyspaces of mode="consensus" have this setting')
    if shards is not None:
        whole_number(shards, "shards", 1, MAX_SHARDS)
    if snapshot_every is not None:
        whole_number(snapshot_every, "snapshot_every", 1, 2**32 - 1)
    repair = _wire_repair(read_repair) or "Async"
    if replicas is None:
        members = (yield from topology(timeout)).members
        replicas = min(3, len(members))
    elif not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 < replicas <= MAX_REPLICAS:
        raise InvalidArgument(f"replicas={replicas!r}: give a number from 1 to the number of nodes")
    settings = {
        "name": name,
        "mode": "Consensus" if consensus else "Quorum",
        "replicas": replicas,
        "read_level": _wire_level(read),
        "write_level": _wire_level(write),
        "read_repair": repair,
        "shards": 1 if shards is None else shards,
        "snapshot_every": SNAPSHOT_EVERY if snapshot_every is None else snapshot_every,
    }
    found = yield Call("create_keyspace", (settings, timeout))
    return keyspace_info(found), found["created"]


def ring_hash(info: KeyspaceInfo, timeout: float) -> Flow[str | None]:
    """Fetch the hash function, if the client needs it to find the shards of a keyspace."""
    return (yield from topology(timeout)).hash if info.mode == "consensus" else None


def alter_keyspace(
    name: str,
    read: Consistency | None,
    write: Consistency | None,
    read_repair: str | None,
    timeout: float,
) -> Flow[KeyspaceInfo]:
    """Change the given settings of a keyspace.

    Raises
    ------
    InvalidArgument
        If no setting is given, or for invalid settings.
    NotFound
        If no keyspace has this name.
    """
    if read is None and write is None and read_repair is None:
        raise InvalidArgument("no setting to change: give read, write or read_repair")
    change = {
        "read_level": None if read is None else _wire_level(read),
        "write_level": None if write is None else _wire_level(write),
        "read_repair": _wire_repair(read_repair),
    }
    found = yield Call("alter_keyspace", (text(name, "a keyspace's name"), change, timeout))
    return keyspace_info(found)


def drop_keyspace(name: str, timeout: float) -> Flow[KeyspaceInfo]:
    """Drop a keyspace; returns its last settings.

    Raises
    ------
    NotFound
        If no keyspace has this name.
    """
    return keyspace_info((yield Call("drop_keyspace", (text(name, "a keyspace's name"), timeout))))


def _wire_repair(read_repair: str | None) -> str | None:
    if read_repair not in (None, "off", "async"):
        raise InvalidArgument(f'read_repair {read_repair!r}: use "off" or "async"')
    return None if read_repair is None else read_repair.capitalize()


def _wire_level(consistency: Consistency | None) -> str | dict[str, int]:
    level = levels.checked(levels.QUORUM if consistency is None else consistency)
    assert level is not None
    return level.capitalize() if isinstance(level, str) else {"Count": level}


def nodes_for_key(keyspace: str, key: str | bytes, timeout: float) -> Flow[tuple[str, ...]]:
    """Compute the nodes that store a key, in order of preference."""
    info = yield from find_keyspace(keyspace, timeout)
    ring = Ring.of((yield from topology(timeout)))
    if info.groups:
        return info.groups[ring.token_of(key) * len(info.groups) >> 64].members
    return ring.nodes_for_key(key, info.replicas)


def distribution(keyspace: str | None, timeout: float) -> Flow[Distribution]:
    """Compute the balance of a keyspace's keys on the ring."""
    shape = yield from topology(timeout)
    if keyspace is None:
        replicas = min(3, len(shape.members))
    else:
        replicas = (yield from find_keyspace(keyspace, timeout)).replicas
    return Ring.of(shape).distribution(replicas)
