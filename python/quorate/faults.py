"""Faults of the links between nodes: what they are, and how nodes are told of them.

A fault says what is wrong between groups of nodes, in the same words to every node; each node takes from it what
concerns the messages that it sends itself. What is in force is what the nodes say: a shell and a program that break the
same cluster see, and do not undo, what the other does. Nothing here runs a process or a client: the operations are
`quorate.flow.Flow` bodies that `quorate.injection` and `quorate.aio.injection` share.
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from quorate.arguments import PROBE_TIMEOUT, elements, node_number, switch
from quorate.errors import (
    Closed,
    ConnectionLost,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    QuorateError,
    ReadTimeout,
    Unavailable,
)
from quorate.flow import Call, Flow, Pause
from quorate.rendering import Rendered, listing, of_nodes, unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from quorate.operations import Roster
    from quorate.topology import Member

__all__ = ["Board", "Faults", "Healed", "LinkFault", "Maker", "isolate", "lossy", "partition", "slow"]

MAX_DELAY = 3600.0
"""Seconds: the longest delay, and the longest jitter."""
MEND_PATIENCE = 5.0
"""Seconds, at most, that nodes are given to find each other again when a fault is healed."""
IDLE = 1.0
"""Seconds of silence after which a link counts as broken, where no ``idle_ms`` is set."""
_PAUSE = 0.004
_NO_ANSWER = (Closed, ConnectionLost, OutcomeUnknown, Overloaded, ReadTimeout, Unavailable)

Way: TypeAlias = tuple[str, str]
"""From one node to another."""


@dataclass(frozen=True, slots=True)
class LinkFault:
    """Something that is wrong between groups of nodes. Within a group, and with all other nodes, all is well.

    Attributes
    ----------
    id : str
        Names the fault, on every node.
    groups : tuple of tuple of str
        The nodes, by name; two groups or more.
    one_way : bool
        Whether only the way from the first group to the second is concerned.
    block : bool
        Whether nothing passes.
    percent : float
        How many of a hundred messages are lost. Heartbeats are not, as TCP would send them again.
    delay : float
        Seconds that everything arrives later.
    jitter : float
        Seconds, at most, that it arrives later still.
    nodes : tuple of str
        The nodes that have it in force, of those that were asked and answered.
    """

    id: str
    groups: tuple[tuple[str, ...], ...]
    one_way: bool = False
    block: bool = False
    percent: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    nodes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``partition``, ``lossy`` or ``slow``: the worst that is wrong."""
        return "partition" if self.block else "lossy" if self.percent else "slow"

    @property
    def between(self) -> str:
        """Between whom, as in ``n1,n2 <-> n3``, or from whom to whom, as in ``n1 -> n2``."""
        return (" -> " if self.one_way else " <-> ").join(",".join(group) for group in self.groups)

    @property
    def effect(self) -> str:
        """What is wrong, in words."""
        parts = ["blocked"] if self.block else []
        if self.percent:
            parts.append(f"{self.percent:g} % lost")
        if self.delay or self.jitter:
            parts.append(f"{self.delay * 1e3:g} ms late")
        if self.jitter:
            parts.append(f"jitter {self.jitter * 1e3:g} ms")
        return ", ".join(parts)

    @property
    def blocked(self) -> frozenset[Way]:
        """The ways that nothing passes, from node to node."""
        return self.ways if self.block else frozenset()

    @property
    def ways(self) -> frozenset[Way]:
        """The ways on which something is wrong, from node to node."""
        return frozenset(
            (sender, receiver)
            for first, senders in enumerate(self.groups)
            for second, receivers in enumerate(self.groups)
            if first != second and not (self.one_way and first > second)
            for sender in senders
            for receiver in receivers
        )

    def to_dict(self) -> dict[str, Any]:
        """Describe the fault as plain data, as ``--json`` prints it."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, repr=False)
class Faults(Rendered):
    """The faults that are in force, as the nodes say.

    Attributes
    ----------
    faults : tuple of LinkFault
        By their ids.
    missing : tuple of str
        The nodes that did not answer.
    """

    faults: tuple[LinkFault, ...]
    missing: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[LinkFault]:
        return iter(self.faults)

    def __len__(self) -> int:
        return len(self.faults)

    def __getitem__(self, index: int) -> LinkFault:
        return self.faults[index]

    def __rich__(self) -> RenderableType:
        table = listing("id", "between", "what is wrong", "in force on", title="faults")
        for fault in self.faults:
            table.add_row(
                fault.id, fault.between, f"[magenta]{fault.effect}[/]", ",".join(fault.nodes) or "-"
            )
        return of_nodes(table, self.missing)


@dataclass(frozen=True, slots=True)
class Healed:
    """What came of healing.

    Attributes
    ----------
    ids : tuple of str
        The faults that are in force no longer on any node that answered.
    down : tuple of str
        Nodes that do not run: a node that ends has no faults when it starts again.
    missing : tuple of str
        Nodes that did not answer and may run: they may still have the faults in force.
    """

    ids: tuple[str, ...]
    down: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """What is not certain, and the remedy; nothing when all is."""
        if not self.missing:
            return ""
        return (
            f"{unanswered(self.missing)}, which may have faults in force still: resume or restart what does not"
            " answer, then heal again"
        )

    def checked(self) -> tuple[str, ...]:
        """Tell the ids of the faults that were healed.

        Raises
        ------
        OutcomeUnknown
            When a node may have them still.
        """
        if self.missing:
            raise OutcomeUnknown(self.doubt)
        return self.ids


# Making faults --------------------------------------------------------------------------------------------------------

Maker: TypeAlias = Callable[[Sequence[str]], LinkFault]
"""Makes a fault among these members, or says why it cannot be."""
Group: TypeAlias = str | Iterable[str]


def partition(groups: Sequence[Group], one_way: bool) -> Maker:
    """Let nothing pass between groups."""
    switch(one_way, "one_way")
    if len(groups) < 2:
        raise InvalidArgument("a partition has two groups of nodes or more: partition({'n1'}, {'n2', 'n3'})")
    if one_way and len(groups) != 2:
        raise InvalidArgument(
            f"one_way=True is from the first group to the second: name two groups, not {len(groups)}"
        )
    return lambda members: _made(_groups(groups, members), one_way, block=True)


def isolate(node: str) -> Maker:
    """Let nothing pass between a node and all others."""

    def make(members: Sequence[str]) -> LinkFault:
        ((alone,),) = _groups([_single(node)], members)
        others = tuple(member for member in members if member != alone)
        if not others:
            raise InvalidArgument(
                f"{alone} is the only node of this cluster: there is nobody to cut it off from"
            )
        return _made(((alone,), others), one_way=False, block=True)

    return make


def slow(first: Group, second: Group, delay: float, jitter: float, one_way: bool) -> Maker:
    """Let everything between two groups be late."""
    switch(one_way, "one_way")
    late = _amount(delay, "delay", "seconds", MAX_DELAY)
    later = _amount(jitter, "jitter", "seconds", MAX_DELAY)
    # What is shorter than the unit in which nodes are told would be nothing.
    if max(late, later) < 1e-6:
        raise InvalidArgument(
            f"delay={delay!r} and jitter={jitter!r}: nothing would be late, give seconds above 0"
        )
    return lambda members: _made(_groups((first, second), members), one_way, delay=late, jitter=later)


def lossy(first: Group, second: Group, percent: float, one_way: bool) -> Maker:
    """Lose some messages between two groups."""
    switch(one_way, "one_way")
    lost = _amount(percent, "percent", "of a hundred messages", 100.0)
    if lost < 1e-4:
        raise InvalidArgument(f"percent={percent!r}: nothing would be lost, give more than 0")
    return lambda members: _made(_groups((first, second), members), one_way, percent=lost)


def _made(groups: tuple[tuple[str, ...], ...], one_way: bool, **effect: Any) -> LinkFault:
    return LinkFault(f"{secrets.randbits(32):08x}", groups, one_way, **effect)


def _single(node: str) -> str:
    if not isinstance(node, str):
        raise InvalidArgument(f"{node!r:.40} is not the name of a node: write one, for example 'n1'")
    return node


def _groups(groups: Iterable[Group], members: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Check groups of nodes; a name alone is a group of one."""
    found: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for group in groups:
        names = [group] if isinstance(group, str) else elements(group, "a group of nodes")
        if not names:
            raise InvalidArgument("a group is empty: name at least one node in each")
        for name in names:
            if not isinstance(name, str) or name not in members:
                raise InvalidArgument(f"no node {name!r:.40}: this cluster has {', '.join(members)}")
            if name in seen:
                raise InvalidArgument(f"{name} is named twice: put each node in one group, once")
            seen.add(name)
        found.append(tuple(sorted(names, key=node_number)))
    return tuple(found)


def _amount(value: float, name: str, unit: str, most: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or math.isnan(value):
        raise InvalidArgument(f"{name}={value!r:.40}: give {unit}, from 0 to {most:g}")
    return float(value)


# On the wire ----------------------------------------------------------------------------------------------------------


def to_wire(fault: LinkFault) -> dict[str, Any]:
    """Write a fault as nodes are told it."""
    return {
        "id": int(fault.id, 16),
        "groups": [[node_number(name) for name in group] for group in fault.groups],
        "one_way": fault.one_way,
        "effect": {
            "block": fault.block,
            "loss_ppm": round(fault.percent * 1e4),
            "delay_micros": round(fault.delay * 1e6),
            "jitter_micros": round(fault.jitter * 1e6),
        },
    }


def from_wire(found: Mapping[str, Any], nodes: Sequence[str] = ()) -> LinkFault:
    """Read a fault as nodes tell it."""
    effect = found["effect"]
    return LinkFault(
        f"{found['id']:08x}",
        tuple(tuple(f"n{node}" for node in group) for group in found["groups"]),
        found["one_way"],
        effect["block"],
        effect["loss_ppm"] / 1e4,
        effect["delay_micros"] / 1e6,
        effect["jitter_micros"] / 1e6,
        tuple(nodes),
    )


def merged(told: Mapping[str, str]) -> tuple[LinkFault, ...]:
    """Put together what nodes tell, by name."""
    found: dict[int, tuple[dict[str, Any], list[str]]] = {}
    for node, answer in told.items():
        for fault in json.loads(answer):
            found.setdefault(fault["id"], (fault, []))[1].append(node)
    return tuple(from_wire(fault, nodes) for _, (fault, nodes) in sorted(found.items()))


def severed(faults: Iterable[LinkFault], idle: float = IDLE) -> frozenset[frozenset[str]]:
    """Find the pairs of nodes that cannot keep a connection: it needs both ways, and a sign of life within ``idle``."""
    late: dict[Way, float] = {}
    for fault in faults:
        latest = math.inf if fault.block else fault.delay + fault.jitter
        for way in fault.ways:
            late[way] = late.get(way, 0.0) + latest
    return frozenset(frozenset(way) for way, latest in late.items() if latest >= idle)


def _effects(faults: Iterable[LinkFault]) -> frozenset[str]:
    """Write faults so that they can be compared: one that has the id of another may be another in effect."""
    return frozenset(json.dumps(to_wire(fault), sort_keys=True) for fault in faults)


def _ended(error: QuorateError) -> bool:
    """Whether an answer says that the node does not run, and not only that it was not heard of."""
    return isinstance(error, Closed) or (isinstance(error, ConnectionLost) and "refused" in str(error))


# Telling nodes --------------------------------------------------------------------------------------------------------


class Board:
    """The faults of one cluster, as one of its clients makes and heals them.

    Parameters
    ----------
    roster : Roster
        Who the members are.
    """

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._own: dict[str, LinkFault] = {}
        """What was made here and not healed since: it counts when no node can tell, as all of them have ended."""
        self._fresh: set[str] = set()
        """Nodes that are being started: that they have no faults says nothing."""
        self.awake: Callable[[], Collection[str]] | None = None
        """Which nodes must answer, where that is known; otherwise any may be down."""
        self.idle = IDLE
        """Seconds of silence after which the links of this cluster count as broken."""

    def begin(self, make: Maker, timeout: float) -> Flow[LinkFault]:
        """Put a fault in force on all nodes that answer; one that any of them refuses is in force on none.

        Nor is one whose making was broken off, by Ctrl-C or by the cancellation of a task: nobody could heal it.
        """
        members = yield from self._members(timeout)
        fault = make([member.name for member in members])
        try:
            told = yield from self._tell(members, {"Add": [to_wire(fault)]}, timeout)
            if not told:
                raise ConnectionLost("no node of this cluster runs: restart() one first")
            # Not before nodes have it: meanwhile another thread would take it for one that somebody has healed.
            self._own[fault.id] = fault
            return replace(fault, nodes=tuple(told))
        except GeneratorExit:
            # Nothing can be asked any more.
            self._own.pop(fault.id, None)
            raise
        except BaseException:
            self._own.pop(fault.id, None)
            with contextlib.suppress(QuorateError):
                yield from self._ask(members, {"Heal": [int(fault.id, 16)]}, timeout)
            raise

    def end(self, ids: Sequence[str] | None, timeout: float) -> Flow[Healed]:
        """Heal these faults, or all; give the nodes that they kept apart some time to see each other.

        Raises
        ------
        ConnectionLost
            When no node answers.
        """
        members = yield from self._members(timeout)
        before = yield from self._known(members, timeout)
        if ids is None:
            ids = sorted({fault.id for fault in before} | self._own.keys())
        for fault in ids:
            self._own.pop(fault, None)
        told: dict[str, str] = {}
        down: list[str] = []
        missing: list[str] = []
        answers = yield from self._ask(members, {"Heal": [int(fault, 16) for fault in ids]}, timeout)
        for member, answer in answers:
            if isinstance(answer, str):
                told[member.name] = answer
            elif not isinstance(answer, _NO_ANSWER):
                raise answer
            elif self._down(member, answer):
                down.append(member.name)
            else:
                missing.append(member.name)
        if answers and not told:
            raise _nobody(down + missing)
        apart = severed((fault for fault in before if fault.id in ids), self.idle)
        still = severed(merged(told), self.idle)
        yield from _mended(self._there(members), apart - still, timeout)
        return Healed(tuple(ids), tuple(down), tuple(missing))

    def named(self, ids: Sequence[str], timeout: float) -> Flow[None]:
        """Check that faults of these ids are in force.

        Raises
        ------
        NotFound
            When one of them is not.
        """
        found = yield from self.report(timeout)
        # One that all nodes have forgotten, as they have ended, is in force again when they are back.
        known = sorted({fault.id for fault in found} | self._own.keys())
        for fault in ids:
            if fault not in known:
                raise NotFound(f"no fault {fault!r:.40} is in force: there are {', '.join(known) or 'none'}")

    def report(self, timeout: float) -> Flow[Faults]:
        """Ask every node which faults are in force."""
        members = yield from self._members(timeout)
        told, missing = yield from self._listen(members, len(members), timeout)
        return Faults(merged(told), tuple(missing))

    def severed(self, timeout: float) -> Flow[frozenset[frozenset[str]]]:
        """Find the pairs of nodes that faults keep apart now."""
        if self.awake is not None and not self.awake():
            return frozenset()
        members = yield from self._members(timeout)
        return severed((yield from self._known(members, timeout)), self.idle)

    def starting(self, name: str) -> None:
        """Take note that a node is about to be started: until it is told which faults there are, it has none."""
        self._fresh.add(name)

    def restore(self, name: str, timeout: float, *, fresh: bool) -> Flow[None]:
        """Tell a node that was restarted, or was paused when others were told, which faults are in force now.

        A fresh one has none. Somebody may heal or make one between asking the others and telling this one: they are
        asked again until they say what it was told.
        """
        members = yield from self._members(timeout)
        (self_,) = (member for member in members if member.name == name)
        others = [member for member in members if member is not self_]
        deadline = time.monotonic() + timeout
        has = frozenset[str]() if fresh else None
        try:
            while True:
                told, _ = yield from self._listen(others, len(members), timeout)
                settled = {node: answer for node, answer in told.items() if node not in self._fresh}
                wanted = merged(settled) if settled else tuple(self._own.values())
                if has == _effects(wanted) or (has is not None and time.monotonic() > deadline):
                    return
                if not (yield from self._replace(self_, wanted, deadline)):
                    return
                has = _effects(wanted)
        finally:
            self._fresh.discard(name)

    def _replace(self, member: Member, wanted: Sequence[LinkFault], deadline: float) -> Flow[bool]:
        """Tell a node that it has these faults and no others; returns whether it is there."""
        change = json.dumps({"Replace": [to_wire(fault) for fault in wanted]})
        while True:
            # A node that allows no faults has none, and would refuse to be told so: it is asked first.
            answers = yield from self._ask([member], None, PROBE_TIMEOUT)
            if not answers:
                return False
            answer = answers[0][1]
            if isinstance(answer, str):
                if _effects(merged({member.name: answer})) == _effects(wanted):
                    return True
                (answer,) = yield Call("faults", ([member.number], change, PROBE_TIMEOUT))
                if isinstance(answer, str):
                    return True
            if not isinstance(answer, _NO_ANSWER) or time.monotonic() > deadline:
                raise answer
            yield Pause(_PAUSE)

    def _members(self, timeout: float) -> Flow[tuple[Member, ...]]:
        return (yield from self._roster.topology(timeout)).members

    def _known(self, members: Sequence[Member], timeout: float) -> Flow[tuple[LinkFault, ...]]:
        told, _ = yield from self._listen(members, len(members), timeout)
        return merged(told)

    def _listen(
        self, asked: Sequence[Member], members: int, timeout: float
    ) -> Flow[tuple[dict[str, str], list[str]]]:
        """Ask nodes which faults are in force; returns what they answer, by name, and who does not.

        What was made here, and none of them has where most of the members answer, somebody else has healed.
        """
        own = set(self._own)
        answers = yield from self._ask(asked, None, timeout)
        told = {member.name: answer for member, answer in answers if isinstance(answer, str)}
        settled = told.keys() - self._fresh
        if 2 * len(settled) > members:
            for fault in own - {fault.id for fault in merged(told)}:
                self._own.pop(fault, None)
        return told, [member.name for member, answer in answers if not isinstance(answer, str)]

    def _down(self, member: Member, answer: QuorateError) -> bool:
        """Whether a node that gives no answer does not run."""
        return _ended(answer) if self.awake is None else member.name not in self.awake()

    def _there(self, members: Sequence[Member]) -> Sequence[Member]:
        """Leave out those that are known to answer nothing."""
        if self.awake is None:
            return members
        awake = set(self.awake())
        return [member for member in members if member.name in awake]

    def _ask(
        self, members: Sequence[Member], change: dict[str, Any] | None, timeout: float
    ) -> Flow[list[tuple[Member, str | QuorateError]]]:
        members = self._there(members)
        text = None if change is None else json.dumps(change)
        numbers = [member.number for member in members]
        answers = yield Call("faults", (numbers, text, min(timeout, PROBE_TIMEOUT)))
        return list(zip(members, answers, strict=True))

    def _tell(
        self, members: Sequence[Member], change: dict[str, Any], timeout: float
    ) -> Flow[dict[str, str]]:
        """Have all nodes that are there make a change; returns what they answer, by name."""
        answers = yield from self._ask(members, change, timeout)
        told: dict[str, str] = {}
        missing: list[str] = []
        for member, answer in answers:
            if isinstance(answer, str):
                told[member.name] = answer
            elif not isinstance(answer, _NO_ANSWER) or (
                self.awake is not None and member.name in self.awake()
            ):
                raise answer
            else:
                missing.append(member.name)
        if missing and not told:
            raise _nobody(missing)
        return told


def _nobody(missing: Sequence[str]) -> ConnectionLost:
    return ConnectionLost(f"no node answers ({', '.join(missing)}): start one, or name other endpoints")


def _mended(members: Sequence[Member], pairs: Collection[frozenset[str]], timeout: float) -> Flow[None]:
    """Wait until the nodes of these pairs, as far as they answer, see each other again, or `MEND_PATIENCE` is over.

    No fault keeps them apart any more; what else does, for example a link that is down, is not for healing to wait for.
    """
    names = {name for pair in pairs for name in pair}
    asked = [member for member in members if member.name in names]
    deadline = time.monotonic() + MEND_PATIENCE
    while asked and time.monotonic() < deadline:
        limit = min(timeout, PROBE_TIMEOUT)
        answers = yield Call("ask", ([member.number for member in asked], "status", 0, limit))
        seen = {
            member.name: {f"n{peer['node']}" for peer in json.loads(answer)["peers"] if peer["up"]}
            for member, answer in zip(asked, answers, strict=True)
            if isinstance(answer, str)
        }
        there = [sorted(pair) for pair in pairs if pair <= seen.keys()]
        if all(first in seen[second] and second in seen[first] for first, second in there):
            return
        yield Pause(_PAUSE)
