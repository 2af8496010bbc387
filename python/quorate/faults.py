"""Faults of the links between nodes: what they are, how they are made, and how they are written for nodes.

A fault says what is wrong between groups of nodes, in the same words to every node; each node takes from it what
concerns the messages that it sends itself. `quorate.faults_client` sends them to nodes.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from quorate.arguments import elements, node_number, switch
from quorate.errors import InvalidArgument, OutcomeUnknown
from quorate.rendering import Rendered, listing, of_nodes, unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

__all__ = ["Faults", "Healed", "LinkFault", "Maker", "isolate", "lossy", "partition", "slow"]

MAX_DELAY = 3600.0
"""Seconds: the longest delay, and the longest jitter."""
IDLE = 1.0
"""Seconds of silence after which a link counts as broken, where no ``idle_ms`` is set."""

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
        Percentage of messages that are dropped. Heartbeats are not, as TCP would send them again.
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
