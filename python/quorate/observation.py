"""Requests to every node: status, metrics, events, spans, links.

Results include the nodes that do not respond. Each is a `quorate.flow.Flow`, so that the synchronous and the
asynchronous client share it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from quorate import levels
from quorate.answers import moment
from quorate.arguments import PROBE_TIMEOUT, node_number, text, whole_number
from quorate.errors import InvalidArgument, NotFound, QuorateError
from quorate.flow import Call, Flow, Pause, now
from quorate.groups import CONTROL, CONTROL_GROUP, GroupClaim, Groups
from quorate.metrics import Metrics, Sample
from quorate.metrics import parse as parse_metrics
from quorate.operations import MemberCache, find_keyspace, keyspaces
from quorate.ring import Ring
from quorate.timeline import Event, Timeline
from quorate.topology import ClusterStatus, Health, Member, NodeStatus, PeerStatus
from quorate.trace import Span, Trace, arrange, complete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_LINK_PAUSE = 0.004
_SPAN_TRIES = 25
_SPAN_PAUSE = 0.02


def _ask(
    members: Sequence[Member], what: str, argument: int, timeout: float
) -> Flow[list[tuple[Member, Any]]]:
    answers = yield Call("ask", ([member.number for member in members], what, argument, timeout))
    return list(zip(members, answers, strict=True))


def status(cache: MemberCache, timeout: float) -> Flow[ClusterStatus]:
    """Fetch the status of every member; one that does not respond in time is down."""
    members = (yield from cache.topology(timeout)).members
    answers = yield from _ask(members, "status", 0, timeout)
    return ClusterStatus(tuple(_node_status(member, answer) for member, answer in answers))


def _node_status(member: Member, answer: Any) -> NodeStatus:
    if isinstance(answer, QuorateError):
        return NodeStatus(member.name, member.address, up=False, error=f"{type(answer).__name__}: {answer}")
    found = answer
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
        # This request is one of them.
        in_flight=max(0, found["in_flight"] - 1),
        full=found["storage"]["full"],
    )


def health(cache: MemberCache, keyspace: str | None, timeout: float) -> Flow[Health]:
    """Check whether a keyspace (or a key with three copies) is available.

    A key of a consensus keyspace is in one of its groups, whose members were chosen at its creation. Any other key is
    on one of the ring's sets of replicas.
    """
    shape = yield from cache.topology(timeout)
    info = None if keyspace is None else (yield from find_keyspace(keyspace, timeout))
    replicas = min(3, len(shape.members)) if info is None else info.replicas
    if info is not None and info.mode == "consensus":
        sets = {group.members for group in info.groups}
    else:
        sets = set(Ring.of(shape).replica_sets(replicas))
    nodes = (yield from status(cache, timeout)).nodes
    sights = _sights(nodes)
    required = levels.QUORUM.required(replicas)

    def served(members: tuple[str, ...]) -> bool:
        return any(
            len(sights[member].intersection(members)) >= required for member in members if member in sights
        )

    has_quorum = all(served(members) for members in sets)
    names = sorted(sights, key=node_number)
    parted = tuple(
        (one, other) for one, other in itertools.combinations(names, 2) if other not in sights[one]
    )
    well = all(node.up and node.full is None for node in nodes) and not parted
    verdict: Any = "healthy" if well else "degraded" if has_quorum else "unavailable"
    return Health(verdict, replicas > 1, len(nodes), len(sights), required, has_quorum, nodes, parted)


def _sights(nodes: Iterable[NodeStatus]) -> dict[str, set[str]]:
    """Map each node that is up to the nodes with which it has links in both directions, including itself."""
    sees = {node.name: {peer.name for peer in node.peers if peer.up} for node in nodes if node.up}
    return {
        name: {name, *(other for other in seen if name in sees.get(other, ()))} for name, seen in sees.items()
    }


def metrics(cache: MemberCache, timeout: float) -> Flow[Metrics]:
    """Fetch the metrics of every member."""
    members = (yield from cache.topology(timeout)).members
    answers = yield from _ask(members, "metrics", 0, timeout)
    samples: list[Sample] = []
    missing: list[str] = []
    for member, answer in answers:
        if isinstance(answer, QuorateError):
            missing.append(member.name)
        else:
            samples.extend(parse_metrics(member.name, answer).samples)
    return Metrics(tuple(samples), tuple(missing))


def groups(cache: MemberCache, timeout: float) -> Flow[Groups]:
    """Fetch every member's claims about its Raft groups."""
    members = (yield from cache.topology(timeout)).members
    answers = yield from _ask(members, "groups", 0, timeout)
    claims: list[GroupClaim] = []
    missing: list[str] = []
    for member, answer in answers:
        if isinstance(answer, QuorateError):
            missing.append(member.name)
        else:
            claims.extend(_claim(found) for found in answer)
    claims.sort(key=lambda claim: (claim.group, node_number(claim.node)))
    return Groups(tuple(claims), tuple(missing))


def _claim(found: dict[str, Any]) -> GroupClaim:
    def names(nodes: Iterable[int]) -> tuple[str, ...]:
        return tuple(f"n{node}" for node in nodes)

    state = str(found["state"]).lower()
    if state == "follower" and found["node"] in found["learners"]:
        state = "learner"
    activity = found["activity"]
    return GroupClaim(
        found["group"],
        found["name"],
        f"n{found['node']}",
        state,
        found["term"],
        None if found["leader"] is None else f"n{found['leader']}",
        None if found["heard_micros"] is None else found["heard_micros"] / 1e6,
        found["commit"],
        found["applied"],
        found["last"],
        found["snapshot"],
        names(found["voters"]),
        names(found["learners"]),
        {f"n{node}": count for node, count in found["lag"]},
        found["elections"],
        found["problem"],
        activity["heartbeats_sent"],
        activity["heartbeats_answered"],
        activity["commands"],
        activity["elections_won"],
        activity["election_micros"] / 1e6,
    )


def led(up: Iterable[str], timeout: float, hopeless: Callable[[], object] = lambda: None) -> Flow[bool]:
    """Wait until one of these nodes leads the control plane and all of them report it.

    Returns whether this happened in time. Stops waiting when ``hopeless`` returns true.
    """
    awake = [node_number(name) for name in up]
    deadline = (yield from now()) + timeout
    while True:
        left = deadline - (yield from now())
        answers = yield Call("ask", (awake, "groups", 0, max(_LINK_PAUSE, min(left, PROBE_TIMEOUT))))
        told = [answer for answer in answers if not isinstance(answer, QuorateError)]
        claims = [_claim(found) for answer in told for found in answer if found["name"] == CONTROL]
        leaders = {claim.leader for claim in claims}
        if len(claims) == len(awake) and len(leaders) == 1 and None not in leaders:
            return True
        if left <= 0 or hopeless():
            return False
        yield Pause(_LINK_PAUSE)


def leader(
    cache: MemberCache, keyspace: str | None, key: str | bytes | None, shard: int | None, timeout: float
) -> Flow[str | None]:
    """Find the leader of the control plane, or of a shard of a keyspace, by the nodes' claims."""
    if keyspace is None:
        if key is not None or shard is not None:
            raise InvalidArgument("key and shard need a keyspace: name the keyspace too")
        return (yield from groups(cache, timeout)).where(CONTROL).leader
    if key is not None and shard is not None:
        raise InvalidArgument("give key or shard, not both: a key is in one shard")
    info = yield from find_keyspace(keyspace, timeout)
    if info.mode == "quorum":
        raise InvalidArgument(
            f'keyspace {keyspace!r} has mode="quorum": it has no leader, every replica accepts writes'
        )
    if key is None:
        chosen = whole_number(0 if shard is None else shard, "shard", 0, info.shards - 1)
    else:
        ring = Ring.of((yield from cache.topology(timeout)))
        chosen = ring.token_of(key) * info.shards >> 64
    return (yield from groups(cache, timeout)).where(group=info.groups[chosen].id).leader


def events(cache: MemberCache, timeout: float) -> Flow[Timeline]:
    """Fetch the events of every member, sorted by time."""
    members = (yield from cache.topology(timeout)).members
    answers = yield from _ask(members, "events", 0, timeout)
    names = yield from _group_names(timeout)
    found: list[Event] = []
    missing: list[str] = []
    for member, answer in answers:
        if isinstance(answer, QuorateError):
            missing.append(member.name)
        else:
            found.extend(_event(occurrence, names) for occurrence in answer)
    found.sort(key=lambda event: (event.time, event.node, event.sequence))
    return Timeline(tuple(found), tuple(missing))


def _group_names(timeout: float) -> Flow[dict[int, str]]:
    """Map the numbers of existing Raft groups to their names, from their members' claims."""
    names = {CONTROL_GROUP: CONTROL}
    try:
        known = yield from keyspaces(timeout)
    except QuorateError:
        return names
    for info in known:
        for shard, group in enumerate(info.groups):
            names[group.id] = info.name if len(info.groups) == 1 else f"{info.name}/{shard}"
    return names


def _event(found: dict[str, Any], groups: Mapping[int, str]) -> Event:
    event = found["event"]
    name, detail = (event, {}) if isinstance(event, str) else next(iter(event.items()))
    named = dict(detail)
    if named.get("group") in groups:
        named = {"group": named["group"], "name": groups[named["group"]], **named}
    for key in ("peer", "node", "leader"):
        if named.get(key) is not None:
            named[key] = f"n{named[key]}"
    if "replicas" in named:
        named["replicas"] = [f"n{node}" for node in named["replicas"]]
    return Event(
        moment(found["at"]), f"n{found['node']}", name, named, found["generation"], found["sequence"]
    )


def trace(
    cache: MemberCache, trace_id: str, own: Callable[[int], list[dict[str, Any]]], timeout: float
) -> Flow[Trace]:
    """Collect the spans of a trace from every member and from this client.

    Replicas report their spans shortly after the response; this polls until every span's parent is present.
    """
    try:
        number = int(text(trace_id, "a trace id"), 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 128:
        raise InvalidArgument(f"{trace_id!r} is not a trace id: it has 32 hexadecimal digits")
    members = (yield from cache.topology(timeout)).members
    spans: list[Span] = []
    for _ in range(_SPAN_TRIES):
        before = len(spans)
        spans = [_span(found) for found in own(number)]
        for _member, answer in (yield from _ask(members, "spans", number, timeout)):
            if not isinstance(answer, QuorateError):
                spans.extend(_span(found) for found in answer)
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


def links(
    up: Iterable[str],
    down: Iterable[str],
    timeout: float,
    hopeless: Callable[[], object] = lambda: None,
    severed: Iterable[frozenset[str]] = (),
) -> Flow[bool]:
    """Wait until all nodes of ``up`` see each other, except for pairs that are ``severed``, and none of ``down``.

    Returns whether this happened in time. Stops waiting when ``hopeless`` returns true.
    """
    awake = [node_number(name) for name in up]
    gone = {node_number(name) for name in down}
    apart = {frozenset(map(node_number, pair)) for pair in severed}
    deadline = (yield from now()) + timeout
    while True:
        left = deadline - (yield from now())
        answers = yield Call("ask", (awake, "status", 0, max(_LINK_PAUSE, min(left, PROBE_TIMEOUT))))
        wanted = [{other for other in awake if frozenset((node, other)) not in apart} for node in awake]
        if all(
            _sees(node, answer, others, gone)
            for node, answer, others in zip(awake, answers, wanted, strict=True)
        ):
            return True
        if left <= 0 or hopeless():
            return False
        yield Pause(_LINK_PAUSE)


def _sees(node: int, answer: Any, awake: set[int], gone: set[int]) -> bool:
    if isinstance(answer, QuorateError):
        return False
    seen = {peer["node"] for peer in answer["peers"] if peer["up"]}
    return seen.issuperset(awake - {node}) and seen.isdisjoint(gone)
