"""Sends faults to the nodes of a cluster, and lists the active ones.

The nodes' reports are the truth: a shell and a program that inject faults into the same cluster see, and do not undo,
each other's faults. Nothing here runs a process or a client: the operations are `quorate.flow.Flow` bodies that
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

RECONNECT_PATIENCE = 5.0
"""Maximum wait for nodes to reconnect after a fault is healed, in seconds."""
_PAUSE = 0.004
_NO_ANSWER = (Closed, ConnectionLost, OutcomeUnknown, Overloaded, ReadTimeout, Unavailable)


def _effects(faults: Iterable[LinkFault]) -> frozenset[str]:
    """Encode faults for comparison: faults of the same id may differ in effect."""
    return frozenset(json.dumps(to_wire(fault), sort_keys=True) for fault in faults)


def _ended(error: QuorateError) -> bool:
    """Whether an answer proves that the node does not run, and not only that it did not respond."""
    return isinstance(error, (Closed, ConnectionRefused))


class FaultsClient:
    """The faults of one cluster, injected and healed by one of its clients.

    Parameters
    ----------
    cache : MemberCache
        The cluster's members.
    """

    def __init__(self, cache: MemberCache) -> None:
        self._cache = cache
        self._own: dict[str, LinkFault] = {}
        """Faults that were injected here and not healed since: used when all nodes have ended and none can report."""
        self._fresh: set[str] = set()
        """Nodes that are being started: their lack of faults is not evidence."""
        self.awake: Callable[[], Collection[str]] | None = None
        """The nodes that must respond, if known; otherwise any may be down."""
        self.idle = IDLE
        """Idle timeout of this cluster's links, in seconds."""

    def begin(self, make: Maker, timeout: float) -> Flow[LinkFault]:
        """Activate a fault on all nodes that respond; if any of them rejects it, it is active on none.

        Nor is it if this was interrupted, by Ctrl-C or by the cancellation of a task: no one could heal it.
        """
        members = yield from self._members(timeout)
        fault = make([member.name for member in members])
        try:
            told = yield from self._tell(members, {"Add": [to_wire(fault)]}, timeout)
            if not told:
                raise ConnectionLost("no node of this cluster runs: restart() one first")
            # Only after nodes have it: before, another thread would take it for a fault that another client has healed.
            self._own[fault.id] = fault
            return replace(fault, nodes=tuple(told))
        except GeneratorExit:
            # The client is closed.
            self._own.pop(fault.id, None)
            raise
        except BaseException:
            self._own.pop(fault.id, None)
            with contextlib.suppress(QuorateError):
                yield from self._ask(members, {"Heal": [int(fault.id, 16)]}, timeout)
            raise

    def end(self, ids: Sequence[str] | None, timeout: float) -> Flow[Healed]:
        """Heal these faults, or all; wait for the nodes that they partitioned to reconnect.

        Raises
        ------
        ConnectionLost
            If no node responds.
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
            raise _no_response(down + missing)
        apart = severed((fault for fault in before if fault.id in ids), self.idle)
        still = severed(merged(told), self.idle)
        yield from _mended(self._there(members), apart - still, timeout)
        return Healed(tuple(ids), tuple(down), tuple(missing))

    def named(self, ids: Sequence[str], timeout: float) -> Flow[None]:
        """Check that faults with these ids are active.

        Raises
        ------
        NotFound
            If one of them is not.
        """
        found = yield from self.report(timeout)
        # A fault that all nodes lost because they ended is active again after their restart.
        known = sorted({fault.id for fault in found} | self._own.keys())
        for fault in ids:
            if fault not in known:
                raise NotFound(
                    f"fault {fault!r:.40} is not active: active faults are {', '.join(known) or 'none'}"
                )

    def report(self, timeout: float) -> Flow[Faults]:
        """List the active faults, as reported by all nodes."""
        members = yield from self._members(timeout)
        told, missing = yield from self._listen(members, len(members), timeout)
        return Faults(merged(told), tuple(missing))

    def severed(self, timeout: float) -> Flow[frozenset[frozenset[str]]]:
        """Find the pairs of nodes that active faults partition."""
        if self.awake is not None and not self.awake():
            return frozenset()
        members = yield from self._members(timeout)
        return severed((yield from self._known(members, timeout)), self.idle)

    def starting(self, name: str) -> None:
        """Record that a node is about to start: until it receives the active faults, it has none."""
        self._fresh.add(name)

    @contextlib.contextmanager
    def restarting(self, name: str) -> Iterator[None]:
        """Record that the start of a node is over: if it failed, a later start by others is not handled here."""
        self.starting(name)
        try:
            yield
        finally:
            self._fresh.discard(name)

    def restore(self, name: str, timeout: float, *, fresh: bool) -> Flow[None]:
        """Send the active faults to a node that was restarted or paused.

        A restarted node has none. Another client may heal or inject one between the read from the others and the write
        to this one: both are repeated until they agree.
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
        """Replace the faults of a node with these; returns whether it responded."""
        change = {"Replace": [to_wire(fault) for fault in wanted]}
        while True:
            # A node that does not allow fault injection has no faults, and would reject even an empty list: read first.
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
        """Read the active faults of nodes; returns their responses, by name, and the nodes that did not respond.

        A fault that was injected here, and that no node reports while most members respond, was healed by another
        client.
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
        """Whether a node that does not respond does not run."""
        return _ended(answer) if self.awake is None else member.name not in self.awake()

    def _there(self, members: Sequence[Member]) -> Sequence[Member]:
        """Exclude nodes that are known not to respond."""
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
        """Send a change to all nodes that may respond; returns their responses, by name."""
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
            raise _no_response(missing)
        return told


def _no_response(missing: Sequence[str]) -> ConnectionLost:
    return ConnectionLost(f"no node responds ({', '.join(missing)}): start one, or use other endpoints")


def _mended(members: Sequence[Member], pairs: Collection[frozenset[str]], timeout: float) -> Flow[None]:
    """Wait until the nodes of these pairs that respond see each other again, for at most `RECONNECT_PATIENCE`.

    No fault partitions them any more; other causes, for example a node that is down, are not waited for.
    """
    names = {name for pair in pairs for name in pair}
    asked = [member for member in members if member.name in names]
    deadline = (yield from now()) + RECONNECT_PATIENCE
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
