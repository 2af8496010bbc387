"""Faults of the links between nodes: definition, validation, and wire form.

A fault describes the links between groups of nodes, identically for every node; each node applies the part that
concerns the messages that it sends. `quorate.faults_client` sends faults to nodes.
"""

from __future__ import annotations

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
"""Maximum delay and maximum jitter, in seconds."""
IDLE = 1.0
"""Default idle timeout of a link (``idle_ms``), in seconds."""

Way: TypeAlias = tuple[str, str]
"""From one node to another."""


@dataclass(frozen=True, slots=True)
class LinkFault:
    """A fault of the links between groups of nodes. Links within a group and to other nodes are not affected.

    Attributes
    ----------
    id : str
        The fault's id, the same on every node.
    groups : tuple of tuple of str
        The nodes, by name; at least two groups.
    one_way : bool
        Whether only the direction from the first group to the second is affected.
    block : bool
        Whether all messages are dropped.
    percent : float
        Percentage of messages that are dropped. Heartbeats are not, as TCP would retransmit them.
    delay : float
        Delay of every message, in seconds.
    jitter : float
        Maximum random additional delay, in seconds.
    nodes : tuple of str
        The nodes on which it is active, among those that responded.
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
        """``partition``, ``lossy`` or ``slow``: the most severe effect."""
        return "partition" if self.block else "lossy" if self.percent else "slow"

    @property
    def between(self) -> str:
        """The groups and the direction, as in ``n1,n2 <-> n3`` or ``n1 -> n2``."""
        return (" -> " if self.one_way else " <-> ").join(",".join(group) for group in self.groups)

    @property
    def effect(self) -> str:
        """The effect in words."""
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
        """The directed links that are blocked, as pairs of nodes."""
        return self.ways if self.block else frozenset()

    @property
    def ways(self) -> frozenset[Way]:
        """The directed links that are affected, as pairs of nodes."""
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
    """The active faults, as the nodes report them.

    Attributes
    ----------
    faults : tuple of LinkFault
        Sorted by id.
    missing : tuple of str
        The nodes that did not respond.
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
    """The outcome of healing.

    Attributes
    ----------
    ids : tuple of str
        The faults that are no longer active on any node that responded.
    down : tuple of str
        Nodes that do not run: a node has no faults after a restart.
    missing : tuple of str
        Nodes that did not respond and may run: the faults may still be active there.
    """

    ids: tuple[str, ...]
    down: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """The uncertainty and the remedy; empty if there is none."""
        if not self.missing:
            return ""
        return (
            f"{unanswered(self.missing)}, where faults may still be active: resume or restart the nodes that do not"
            " respond, then heal again"
        )

    def checked(self) -> tuple[str, ...]:
        """Return the ids of the healed faults.

        Raises
        ------
        OutcomeUnknown
            If they may still be active on a node.
        """
        if self.missing:
            raise OutcomeUnknown(self.doubt)
        return self.ids


# Making faults --------------------------------------------------------------------------------------------------------

Maker: TypeAlias = Callable[[Sequence[str]], LinkFault]
"""Creates faults among these members; rejects invalid ones."""
Group: TypeAlias = str | Iterable[str]


def partition(groups: Sequence[Group], one_way: bool) -> Maker:
    """Drop all messages between groups."""
    switch(one_way, "one_way")
    if len(groups) < 2:
        raise InvalidArgument("a partition has at least two groups of nodes: partition({'n1'}, {'n2', 'n3'})")
    if one_way and len(groups) != 2:
        raise InvalidArgument(
            f"one_way=True is from the first group to the second: name two groups, not {len(groups)}"
        )
    return lambda members: _made(_groups(groups, members), one_way, block=True)


def isolate(node: str) -> Maker:
    """Drop all messages between a node and all others."""

    def make(members: Sequence[str]) -> LinkFault:
        ((alone,),) = _groups([_single(node)], members)
        others = tuple(member for member in members if member != alone)
        if not others:
            raise InvalidArgument(
                f"{alone} is the only node of this cluster: there is no node to isolate it from"
            )
        return _made(((alone,), others), one_way=False, block=True)

    return make


def slow(first: Group, second: Group, delay: float, jitter: float, one_way: bool) -> Maker:
    """Delay all messages between two groups."""
    switch(one_way, "one_way")
    late = _amount(delay, "delay", "seconds", MAX_DELAY)
    later = _amount(jitter, "jitter", "seconds", MAX_DELAY)
    # A delay below the unit of the wire form would be zero.
    if max(late, later) < 1e-6:
        raise InvalidArgument(
            f"delay={delay!r} and jitter={jitter!r}: no message would be delayed, give seconds above 0"
        )
    return lambda members: _made(_groups((first, second), members), one_way, delay=late, jitter=later)


def lossy(first: Group, second: Group, percent: float, one_way: bool) -> Maker:
    """Drop some messages between two groups."""
    switch(one_way, "one_way")
    lost = _amount(percent, "percent", "of a hundred messages", 100.0)
    if lost < 1e-4:
        raise InvalidArgument(f"percent={percent!r}: no message would be dropped, give more than 0")
    return lambda members: _made(_groups((first, second), members), one_way, percent=lost)


def _made(groups: tuple[tuple[str, ...], ...], one_way: bool, **effect: Any) -> LinkFault:
    return LinkFault(f"{secrets.randbits(32):08x}", groups, one_way, **effect)


def _single(node: str) -> str:
    if not isinstance(node, str):
        raise InvalidArgument(f"{node!r:.40} is not the name of a node: write one, for example 'n1'")
    return node


def _groups(groups: Iterable[Group], members: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Check groups of nodes; a single name is a group of one."""
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
    """Encode a fault for nodes."""
    return {
        "id": int(fault.id, 16),
        "groups": [[node_number(name) for name in group] for group in fault.groups],
        "one_way": fault.one_way,
        "impairment": {
            "block": fault.block,
            "loss_ppm": round(fault.percent * 1e4),
            "delay_micros": round(fault.delay * 1e6),
            "jitter_micros": round(fault.jitter * 1e6),
        },
    }


def from_wire(found: Mapping[str, Any], nodes: Sequence[str] = ()) -> LinkFault:
    """Decode a fault that a node reported."""
    effect = found["impairment"]
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


def merged(told: Mapping[str, list[dict[str, Any]]]) -> tuple[LinkFault, ...]:
    """Merge the reports of nodes, by name."""
    found: dict[int, tuple[dict[str, Any], list[str]]] = {}
    for node, answer in told.items():
        for fault in answer:
            found.setdefault(fault["id"], (fault, []))[1].append(node)
    return tuple(from_wire(fault, nodes) for _, (fault, nodes) in sorted(found.items()))


def severed(faults: Iterable[LinkFault], idle: float = IDLE) -> frozenset[frozenset[str]]:
    """Find the pairs of nodes without both directions, or without a heartbeat within ``idle``: they cannot connect."""
    late: dict[Way, float] = {}
    for fault in faults:
        latest = math.inf if fault.block else fault.delay + fault.jitter
        for way in fault.ways:
            late[way] = late.get(way, 0.0) + latest
    return frozenset(frozenset(way) for way, latest in late.items() if latest >= idle)
