"""What the synchronous and the asynchronous client have in common: how operations are asked and answers are read.

An operation of one call is a pair of functions (arguments, answer); one of several calls is a `quorate.flow.Flow`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from quorate import levels
from quorate.entries import EntryData, Version, WriteData, moment
from quorate.errors import InvalidArgument, NotFound, PartialFailure, QuorateError
from quorate.flow import Call, Flow, Pause
from quorate.metrics import Metrics, Sample
from quorate.metrics import parse as parse_metrics
from quorate.ring import Distribution, Ring, key_bytes, node_number
from quorate.timeline import Event, Timeline
from quorate.topology import ClusterStatus, Health, KeyspaceInfo, Member, NodeStatus, PeerStatus, Topology
from quorate.trace import Span, Trace, arrange, complete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from quorate._quorate import RawEntry, RawWrite
    from quorate.levels import Consistency

DEFAULT_PORT = 7400
"""Where clients are expected when an address names no port."""
DEFAULT_TIMEOUT = 5.0
"""Seconds that an operation may take when nothing else is said."""
PROBE_TIMEOUT = 1.0
"""Seconds that a node has to tell its status before it counts as down."""
BATCH = 512
"""Operations handed to the extension at once: often enough for a progress bar, seldom enough to cost nothing."""
_LINK_PAUSE = 0.004
_SPAN_TRIES = 25
_SPAN_PAUSE = 0.02

EntryT = TypeVar("EntryT", bound=EntryData)
WriteT = TypeVar("WriteT", bound=WriteData)
KeyT = TypeVar("KeyT", str, bytes, "str | bytes")
AnswerT = TypeVar("AnswerT")


# Arguments ------------------------------------------------------------------------------------------------------------


def parse_endpoints(endpoints: str | Iterable[str]) -> list[str]:
    """Read ``"h1:7400,h2"`` or a sequence of such addresses.

    Raises
    ------
    InvalidArgument
        When there is none, or one that is no address.
    """
    texts = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
    parsed = []
    for text in (text.strip() for text in texts):
        if not text:
            continue
        host, colon, port = text.rpartition(":")
        if not colon:
            host, port = text, str(DEFAULT_PORT)
        if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise InvalidArgument(f"address {text!r}: write host or host:port with a port from 1 to 65535")
        parsed.append(f"{host}:{port}")
    if not parsed:
        raise InvalidArgument("no address to connect to: give at least one host:port")
    return parsed


def value_bytes(value: str | bytes) -> bytes:
    """Code a value: text as UTF-8, bytes as they are."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise InvalidArgument(f"a value is str or bytes, not {type(value).__name__}: encode it first")


def key_text(key: bytes) -> str:
    """Show a key as text; the inverse of `quorate.ring.key_bytes`."""
    return key.decode("utf-8", "surrogateescape")


def seconds(timeout: float | None, default: float) -> float:
    """Check a timeout.

    Raises
    ------
    InvalidArgument
        When it is not a positive number of seconds.
    """
    if timeout is None:
        return default
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0 < timeout < float("inf"):
        raise InvalidArgument(f"timeout {timeout!r}: give a positive number of seconds")
    return float(timeout)


def prefix_end(prefix: bytes) -> bytes | None:
    """Find the first key after all that begin with a prefix; ``None`` when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def scan_range(
    start: str | bytes | None, end: str | bytes | None, prefix: str | bytes | None
) -> tuple[bytes | None, bytes | None]:
    """Turn what a scan was given into its first key and the first key that is too far.

    Raises
    ------
    InvalidArgument
        When a prefix is combined with a range.
    """
    if prefix is not None:
        if start is not None or end is not None:
            raise InvalidArgument("a scan takes either prefix or start and end, not both")
        first = key_bytes(prefix)
        return first, prefix_end(first)
    return (None if start is None else key_bytes(start)), (None if end is None else key_bytes(end))


# Answers of one call --------------------------------------------------------------------------------------------------


def entry(kind: type[EntryT], key: bytes, raw: RawEntry, collect: Callable[[str], Any]) -> EntryT:
    """Make an entry of what the extension answered."""
    return kind(
        key_text(key),
        raw.context,
        tuple(f"n{node}" for node in raw.answered),
        f"n{raw.coordinator}",
        levels.from_wire(raw.level),
        raw.seconds,
        None if raw.trace_id is None else f"{raw.trace_id:032x}",
        collect,
        tuple(Version(v.value, moment(v.micros), f"n{v.node}", v.counter) for v in raw.versions),
    )


def written(kind: type[WriteT], key: bytes, raw: RawWrite, collect: Callable[[str], Any]) -> WriteT:
    """Make a write's result of what the extension answered."""
    return kind(
        key_text(key),
        raw.context,
        tuple(f"n{node}" for node in raw.acked),
        f"n{raw.coordinator}",
        levels.from_wire(raw.level),
        raw.seconds,
        None if raw.trace_id is None else f"{raw.trace_id:032x}",
        collect,
        moment(raw.micros),
    )


def batch(what: str, answers: Iterable[tuple[KeyT, AnswerT | QuorateError]]) -> dict[KeyT, AnswerT]:
    """Separate what succeeded from what failed.

    Raises
    ------
    PartialFailure
        When anything failed, holding both.
    """
    succeeded: dict[KeyT, AnswerT] = {}
    failed: dict[KeyT, QuorateError] = {}
    for key, answer in answers:
        if isinstance(answer, QuorateError):
            failed[key] = answer
        else:
            succeeded[key] = answer
    if failed:
        key, first = next(iter(failed.items()))
        raise PartialFailure(
            f"{len(failed)} of {len(failed) + len(succeeded)} {what} failed; the first: key {key!r}:"
            f" {type(first).__name__}: {first}",
            succeeded=succeeded,
            failed=failed,
        )
    return succeeded


# Operations of several calls ------------------------------------------------------------------------------------------


def topology(timeout: float) -> Flow[Topology]:
    """Ask any node for the topology."""
    found = json.loads((yield Call("topology", (timeout,))))
    members = tuple(
        Member(
            f"n{member['id']}",
            member["client_address"],
            member["peer_address"],
            member["http_address"],
            member["rack"],
            member["datacenter"],
        )
        for member in found["members"]
    )
    ring = found["ring"]
    return Topology(
        f"{found['cluster']:032x}", found["generation"], members, ring["vnodes"], str(ring["hash"]).lower()
    )


def keyspace_info(found: dict[str, Any]) -> KeyspaceInfo:
    """Read a keyspace as the protocol describes it."""
    settings = found["settings"]
    return KeyspaceInfo(
        settings["name"],
        found["id"],
        str(settings["mode"]).lower(),
        settings["replicas"],
        _level(settings["read_level"]),
        _level(settings["write_level"]),
        str(settings["read_repair"]).lower(),
    )


def _level(found: str | dict[str, int]) -> levels.Level | int:
    return levels.Level(found.upper()) if isinstance(found, str) else found["Count"]


def keyspaces(timeout: float) -> Flow[tuple[KeyspaceInfo, ...]]:
    """List the keyspaces."""
    found = json.loads((yield Call("keyspaces", (timeout,))))
    return tuple(sorted((keyspace_info(keyspace) for keyspace in found), key=lambda info: info.name))


def find_keyspace(name: str, timeout: float) -> Flow[KeyspaceInfo]:
    """Find a keyspace by name.

    Raises
    ------
    NotFound
        When there is none of this name.
    """
    known = yield from keyspaces(timeout)
    for info in known:
        if info.name == name:
            return info
    names = ", ".join(repr(info.name) for info in known) or "none"
    raise NotFound(
        f'no keyspace {name!r} (there are: {names}): create it with keyspace({name!r}, mode="quorum", replicas=3)'
    )


def open_keyspace(
    name: str,
    mode: str | None,
    replicas: int | None,
    read: Consistency | None,
    write: Consistency | None,
    read_repair: str | None,
    timeout: float,
) -> Flow[KeyspaceInfo]:
    """Create a keyspace, or find the same one; without any setting only find it.

    Raises
    ------
    InvalidArgument
        For settings that make no sense.
    KeyspaceExists
        When there is one with other settings.
    NotFound
        When no setting is given and there is none of this name.
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"a keyspace's name is a str, not {type(name).__name__}")
    if all(setting is None for setting in (mode, replicas, read, write, read_repair)):
        return (yield from find_keyspace(name, timeout))
    if mode not in (None, "quorum"):
        raise InvalidArgument(f'mode {mode!r}: this version has "quorum" only')
    if read_repair not in (None, "off", "async"):
        raise InvalidArgument(f'read_repair {read_repair!r}: use "off" or "async"')
    if replicas is None:
        members = (yield from topology(timeout)).members
        replicas = min(3, len(members))
    elif not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 < replicas < 256:
        raise InvalidArgument(f"replicas {replicas!r}: give a number from 1 to the number of nodes")
    settings = {
        "name": name,
        "mode": "Quorum",
        "replicas": replicas,
        "read_level": _wire_level(read),
        "write_level": _wire_level(write),
        "read_repair": "Off" if read_repair == "off" else "Async",
    }
    found = yield Call("create_keyspace", (json.dumps(settings), timeout))
    return keyspace_info(json.loads(found))


def _wire_level(consistency: Consistency | None) -> str | dict[str, int]:
    name = levels.to_wire(levels.QUORUM if consistency is None else consistency)
    assert name is not None
    return {"Count": int(name)} if name.isdecimal() else name.capitalize()


def _ask(
    members: Sequence[Member], what: str, argument: int, timeout: float
) -> Flow[list[tuple[Member, str | QuorateError]]]:
    answers = yield Call("ask", ([member.number for member in members], what, argument, timeout))
    return list(zip(members, answers, strict=True))


def status(timeout: float) -> Flow[ClusterStatus]:
    """Ask every member for its status; one that does not answer in time is down."""
    members = (yield from topology(timeout)).members
    answers = yield from _ask(members, "status", 0, timeout)
    return ClusterStatus(tuple(_node_status(member, answer) for member, answer in answers))


def _node_status(member: Member, answer: str | QuorateError) -> NodeStatus:
    if isinstance(answer, QuorateError):
        return NodeStatus(member.name, member.address, up=False, error=f"{type(answer).__name__}: {answer}")
    found = json.loads(answer)
    peers = tuple(
        PeerStatus(f"n{peer['node']}", peer["up"], peer["round_trip_micros"] / 1e6, peer["queued_bytes"])
        for peer in found["peers"]
    )
    return NodeStatus(
        member.name,
        member.address,
        up=True,
        uptime=float(found["uptime_seconds"]),
        version=found["version"],
        generation=found["generation"],
        peers=peers,
        keyspaces=tuple(sorted(found["keyspaces"])),
        data_directory=found["data_directory"],
        stored_bytes=found["stored_bytes"],
        in_flight=found["in_flight"],
    )


def health(keyspace: str | None, timeout: float) -> Flow[Health]:
    """Judge whether a keyspace (or a key with three copies) can serve."""
    shape = yield from topology(timeout)
    if keyspace is None:
        replicas = min(3, len(shape.members))
    else:
        replicas = (yield from find_keyspace(keyspace, timeout)).replicas
    nodes = (yield from status(timeout)).nodes
    alive = {node_number(node.name) for node in nodes if node.up}
    required = levels.QUORUM.required(replicas)
    sets = Ring.of(shape).replica_sets(replicas)
    has_quorum = all(len(alive.intersection(map(node_number, nodes))) >= required for nodes in sets)
    verdict: Any = "healthy" if len(alive) == len(nodes) else "degraded" if has_quorum else "unavailable"
    return Health(verdict, replicas > 1, len(nodes), len(alive), required, has_quorum, nodes)


def metrics(timeout: float) -> Flow[Metrics]:
    """Ask every member for its metrics."""
    members = (yield from topology(timeout)).members
    answers = yield from _ask(members, "metrics", 0, timeout)
    samples: list[Sample] = []
    missing: list[str] = []
    for member, answer in answers:
        if isinstance(answer, QuorateError):
            missing.append(member.name)
        else:
            samples.extend(parse_metrics(member.name, answer).samples)
    return Metrics(tuple(samples), tuple(missing))


def events(timeout: float) -> Flow[Timeline]:
    """Ask every member for its events and put them in the order of their time."""
    members = (yield from topology(timeout)).members
    answers = yield from _ask(members, "events", 0, timeout)
    found: list[Event] = []
    missing: list[str] = []
    for member, answer in answers:
        if isinstance(answer, QuorateError):
            missing.append(member.name)
        else:
            found.extend(_event(occurrence) for occurrence in json.loads(answer))
    found.sort(key=lambda event: (event.time, event.node, event.sequence))
    return Timeline(tuple(found), tuple(missing))


def _event(found: dict[str, Any]) -> Event:
    event = found["event"]
    name, detail = (event, {}) if isinstance(event, str) else next(iter(event.items()))
    named = dict(detail)
    for key in ("peer", "node"):
        if named.get(key) is not None:
            named[key] = f"n{named[key]}"
    if "replicas" in named:
        named["replicas"] = [f"n{node}" for node in named["replicas"]]
    return Event(
        moment(found["at"]), f"n{found['node']}", name, named, found["generation"], found["sequence"]
    )


def nodes_for_key(keyspace: str, key: str | bytes, timeout: float) -> Flow[tuple[str, ...]]:
    """Compute which nodes store a key, the most preferred one first."""
    info = yield from find_keyspace(keyspace, timeout)
    ring = Ring.of((yield from topology(timeout)))
    return ring.nodes_for_key(key, info.replicas)


def distribution(keyspace: str | None, timeout: float) -> Flow[Distribution]:
    """Compute how evenly the ring spreads the keys of a keyspace."""
    shape = yield from topology(timeout)
    if keyspace is None:
        replicas = min(3, len(shape.members))
    else:
        replicas = (yield from find_keyspace(keyspace, timeout)).replicas
    return Ring.of(shape).distribution(replicas)


def trace(trace_id: str, own: Callable[[int], str], timeout: float) -> Flow[Trace]:
    """Collect the spans of a trace from every member and from this client.

    Replicas report their spans a little after the answer; it is asked again until every span's parent is there.
    """
    try:
        number = int(trace_id, 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 128:
        raise InvalidArgument(f"{trace_id!r} is not a trace id: it has 32 hexadecimal digits")
    members = (yield from topology(timeout)).members
    spans: list[Span] = []
    for _ in range(_SPAN_TRIES):
        before = len(spans)
        spans = [_span(found) for found in json.loads(own(number))]
        for _member, answer in (yield from _ask(members, "spans", number, timeout)):
            if not isinstance(answer, QuorateError):
                spans.extend(_span(found) for found in json.loads(answer))
        if complete(spans) and len(spans) == before:
            break
        yield Pause(_SPAN_PAUSE)
    if not spans:
        raise NotFound(f"no node keeps spans of trace {trace_id}: it was not sampled, or is too old")
    return Trace(f"{number:032x}", arrange(spans))


def _span(found: dict[str, Any]) -> Span:
    return Span(
        found["name"],
        "client" if found["node"] is None else f"n{found['node']}",
        moment(found["start"]),
        max(0, found["end"] - found["start"]) / 1e6,
        f"{found['span_id']:016x}",
        f"{found['parent_id']:016x}" if found["parent_id"] else None,
        dict(found["attributes"]),
        found["error"],
    )


# Batches --------------------------------------------------------------------------------------------------------------


def put_batches(
    items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
) -> tuple[list[tuple[KeyT, bytes]], Iterator[list[tuple[bytes, bytes]]]]:
    """Code the pairs of a put_many, and cut them into batches."""
    pairs = list(items.items() if isinstance(items, Mapping) else items)
    coded = [(key_bytes(key), value_bytes(value)) for key, value in pairs]
    named = [(key, raw) for (key, _), (raw, _) in zip(pairs, coded, strict=True)]
    return named, (coded[i : i + BATCH] for i in range(0, len(coded), BATCH))


def written_batch(
    kind: type[WriteT],
    pairs: list[tuple[KeyT, bytes]],
    raws: Iterable[RawWrite | QuorateError],
    collect: Callable[[str], Any],
) -> dict[KeyT, WriteT]:
    """Make results of what the extension answered to a put_many."""
    answers = (
        (key, raw if isinstance(raw, QuorateError) else written(kind, coded, raw, collect))
        for (key, coded), raw in zip(pairs, raws, strict=True)
    )
    return batch("writes", answers)


def get_batches(keys: Iterable[KeyT]) -> tuple[list[tuple[KeyT, bytes]], Iterator[list[bytes]]]:
    """Code the keys of a get_many, and cut them into batches."""
    named = [(key, key_bytes(key)) for key in dict.fromkeys(keys)]
    coded = [raw for _, raw in named]
    return named, (coded[i : i + BATCH] for i in range(0, len(coded), BATCH))


def entry_batch(
    kind: type[EntryT],
    keys: list[tuple[KeyT, bytes]],
    raws: Iterable[RawEntry | QuorateError],
    collect: Callable[[str], Any],
) -> dict[KeyT, EntryT]:
    """Make entries of what the extension answered to a get_many."""
    answers = (
        (key, raw if isinstance(raw, QuorateError) else entry(kind, coded, raw, collect))
        for (key, coded), raw in zip(keys, raws, strict=True)
    )
    return batch("reads", answers)


def page_limit(page_size: int) -> int:
    """Check the size of a scan's pages."""
    if not isinstance(page_size, int) or isinstance(page_size, bool) or not 0 < page_size <= 10_000:
        raise InvalidArgument(f"page_size {page_size!r}: give a number from 1 to 10000")
    return page_size


# Waiting --------------------------------------------------------------------------------------------------------------


def links(up: Iterable[str], down: Iterable[str], timeout: float) -> Flow[bool]:
    """Wait until all nodes of ``up`` see each other, and none of ``down``; tells whether that came in time."""
    awake = [node_number(name) for name in up]
    gone = {node_number(name) for name in down}
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        answers = yield Call("ask", (awake, "status", 0, max(_LINK_PAUSE, min(left, PROBE_TIMEOUT))))
        if all(_sees(node, answer, awake, gone) for node, answer in zip(awake, answers, strict=True)):
            return True
        if left <= 0:
            return False
        yield Pause(_LINK_PAUSE)


def _sees(node: int, answer: str | QuorateError, awake: list[int], gone: set[int]) -> bool:
    if isinstance(answer, QuorateError):
        return False
    seen = {peer["node"] for peer in json.loads(answer)["peers"] if peer["up"]}
    return seen.issuperset(set(awake) - {node}) and seen.isdisjoint(gone)
