"""How the nodes of a cluster are told of faults, and asked for those in force.

What is in force is what the nodes say: a shell and a program that break the same cluster see, and do not undo, what the
other does. Nothing here runs a process or a client: the operations are `quorate.flow.Flow` bodies that
`quorate.fault_api` and `quorate.aio.fault_api` share.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from quorate.arguments import PROBE_TIMEOUT
from quorate.errors import (
    Closed,
    ConnectionLost,
    ConnectionRefused,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    QuorateError,
    ReadTimeout,
    Unavailable,
)
from quorate.faults import IDLE, Faults, Healed, LinkFault, Maker, merged, severed, to_wire
from quorate.flow import Call, Flow, Pause, now

if TYPE_CHECKING:
    from quorate.operations import MemberCache
    from quorate.topology import Member

__all__ = ["FaultsClient"]

Answer: TypeAlias = list[dict[str, Any]]
"""The active faults of a node, as `quorate.faults.from_wire` reads them."""

MEND_PATIENCE = 5.0
"""Seconds, at most, that nodes are given to find each other again when a fault is healed."""
_PAUSE = 0.004
_NO_ANSWER = (Closed, ConnectionLost, OutcomeUnknown, Overloaded, ReadTimeout, Unavailable)


def _effects(faults: Iterable[LinkFault]) -> frozenset[str]:
    """Write faults so that they can be compared: one that has the id of another may be another in effect."""
    return frozenset(json.dumps(to_wire(fault), sort_keys=True) for fault in faults)


def _ended(error: QuorateError) -> bool:
    """Whether an answer says that the node does not run, and not only that it was not heard of."""
    return isinstance(error, (Closed, ConnectionRefused))


class FaultsClient:
    """The faults of one cluster, as one of its clients makes and heals them.

    Parameters
    ----------
    cache : MemberCache
        Who the members are.
    """

    def __init__(self, cache: MemberCache) -> None:
        self._cache = cache
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
        told: dict[str, Answer] = {}
        down: list[str] = []
        missing: list[str] = []
        answers = yield from self._ask(members, {"Heal": [int(fault, 16) for fault in ids]}, timeout)
        for member, answer in answers:
            if not isinstance(answer, QuorateError):
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

    @contextlib.contextmanager
    def restarting(self, name: str) -> Iterator[None]:
        """Take note that a node is started now: if it fails, a later start of it by others is their affair."""
        self.starting(name)
        try:
            yield
        finally:
            self._fresh.discard(name)

    def restore(self, name: str, timeout: float, *, fresh: bool) -> Flow[None]:
        """Tell a node that was restarted, or was paused when others were told, which faults are in force now.

        A fresh one has none. Somebody may heal or make one between asking the others and telling this one: they are
        asked again until they say what it was told.
        """
        members = yield from self._members(timeout)
        (self_,) = (member for member in members if member.name == name)
        others = [member for member in members if member is not self_]
        deadline = (yield from now()) + timeout
        has = frozenset[str]() if fresh else None
        try:
            while True:
                told, _ = yield from self._listen(others, len(members), timeout)
                settled = {node: answer for node, answer in told.items() if node not in self._fresh}
                wanted = merged(settled) if settled else tuple(self._own.values())
                if has == _effects(wanted) or (has is not None and (yield from now()) > deadline):
                    return
                if not (yield from self._replace(self_, wanted, deadline)):
                    return
                has = _effects(wanted)
        finally:
            self._fresh.discard(name)

    def _replace(self, member: Member, wanted: Sequence[LinkFault], deadline: float) -> Flow[bool]:
        """Tell a node that it has these faults and no others; returns whether it is there."""
        change = {"Replace": [to_wire(fault) for fault in wanted]}
        while True:
            # A node that allows no faults has none, and would refuse to be told so: it is asked first.
            answers = yield from self._ask([member], None, PROBE_TIMEOUT)
            if not answers:
                return False
            answer = answers[0][1]
            if not isinstance(answer, QuorateError):
                if _effects(merged({member.name: answer})) == _effects(wanted):
                    return True
                (answer,) = yield Call("faults", ([member.number], change, PROBE_TIMEOUT))
                if not isinstance(answer, QuorateError):
                    return True
            if not isinstance(answer, _NO_ANSWER) or (yield from now()) > deadline:
                raise answer
            yield Pause(_PAUSE)

    def _members(self, timeout: float) -> Flow[tuple[Member, ...]]:
        return (yield from self._cache.topology(timeout)).members

    def _known(self, members: Sequence[Member], timeout: float) -> Flow[tuple[LinkFault, ...]]:
        told, _ = yield from self._listen(members, len(members), timeout)
        return merged(told)

    def _listen(
        self, asked: Sequence[Member], members: int, timeout: float
    ) -> Flow[tuple[dict[str, Answer], list[str]]]:
        """Ask nodes which faults are in force; returns what they answer, by name, and who does not.

        What was made here, and none of them has where most of the members answer, somebody else has healed.
        """
        own = set(self._own)
        answers = yield from self._ask(asked, None, timeout)
        told = {member.name: answer for member, answer in answers if not isinstance(answer, QuorateError)}
        settled = told.keys() - self._fresh
        if 2 * len(settled) > members:
            for fault in own - {fault.id for fault in merged(told)}:
                self._own.pop(fault, None)
        return told, [member.name for member, answer in answers if isinstance(answer, QuorateError)]

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
    ) -> Flow[list[tuple[Member, Answer | QuorateError]]]:
        members = self._there(members)
        numbers = [member.number for member in members]
        answers = yield Call("faults", (numbers, change, min(timeout, PROBE_TIMEOUT)))
        return list(zip(members, answers, strict=True))

    def _tell(
        self, members: Sequence[Member], change: dict[str, Any], timeout: float
    ) -> Flow[dict[str, Answer]]:
        """Have all nodes that are there make a change; returns what they answer, by name."""
        answers = yield from self._ask(members, change, timeout)
        told: dict[str, Answer] = {}
        missing: list[str] = []
        for member, answer in answers:
            if not isinstance(answer, QuorateError):
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
    deadline = (yield from now()) + MEND_PATIENCE
    while asked and (yield from now()) < deadline:
        limit = min(timeout, PROBE_TIMEOUT)
        answers = yield Call("ask", ([member.number for member in asked], "status", 0, limit))
        seen = {
            member.name: {f"n{peer['node']}" for peer in answer["peers"] if peer["up"]}
            for member, answer in zip(asked, answers, strict=True)
            if not isinstance(answer, QuorateError)
        }
        there = [sorted(pair) for pair in pairs if pair <= seen.keys()]
        if all(first in seen[second] and second in seen[first] for first, second in there):
            return
        yield Pause(_PAUSE)
