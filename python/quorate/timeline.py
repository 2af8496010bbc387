"""The cluster's timeline: events of all nodes, in order of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from quorate.errors import InvalidArgument
from quorate.rendering import Rendered, listing, of_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rich.console import RenderableType

__all__ = ["EVENTS", "Event", "Timeline"]

_STYLES = {
    "NodeStarted": "green",
    "PeerUp": "green",
    "StorageRecovered": "green",
    "LeaderElected": "green",
    "SnapshotInstalled": "green",
    "KeyspaceCreated": "cyan",
    "KeyspaceAltered": "cyan",
    "KeyspaceDropped": "cyan",
    "TopologyChanged": "cyan",
    "SnapshotTaken": "cyan",
    "ReadRepaired": "cyan",
    "NodeStopping": "yellow",
    "ElectionStarted": "yellow",
    "LeaderChanged": "yellow",
    "LogCut": "yellow",
    "ClockAhead": "yellow",
    "Fault": "magenta",
    "PeerDown": "bold red",
    "PeerRefused": "bold red",
    "StorageFull": "bold red",
    "CorruptRecord": "bold red",
    "QuorumLost": "bold red",
    "SnapshotCorrupt": "bold red",
    "GroupBroken": "bold red",
    "MessageRejected": "bold red",
    "TermsExhausted": "bold red",
}


EVENTS = tuple(_STYLES)
"""The names of all events."""


@dataclass(frozen=True, slots=True)
class Event:
    """One state change of one node.

    Attributes
    ----------
    time : datetime
        The time, by that node's wall clock.
    node : str
        The node.
    name : str
        The event's name, for example ``PeerDown``.
    detail : dict
        Details, for example ``{"peer": "n2", "reason": "..."}``. Events of a Raft group have its number as ``group``
        and, while the group exists, its name as ``name``: ``control``, a keyspace, or a keyspace and a shard as in
        ``accounts/0``.
    generation : int
        The topology generation of the node.
    sequence : int
        Increases by one with each event of one run of a node.
    """

    time: datetime
    node: str
    name: str
    detail: dict[str, Any]
    generation: int
    sequence: int

    def is_of(self, group: int | str | None) -> bool:
        """Whether it is an event of a Raft group, given as in `Timeline.where`; ``None`` matches all events."""
        name = str(self.detail.get("name", ""))
        return group is None or group in (
            self.detail.get("group"),
            name or None,
            name.partition("/")[0] or None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Describe the event as plain data, as ``--json`` prints it."""
        return {
            "time": self.time.isoformat(),
            "node": self.node,
            "event": self.name,
            "detail": self.detail,
            "generation": self.generation,
            "sequence": self.sequence,
        }


@dataclass(frozen=True, slots=True, repr=False)
class Timeline(Rendered):
    """Events in order of time.

    Attributes
    ----------
    events : tuple of Event
        The events.
    missing : tuple of str
        The nodes that did not respond; if these are all nodes, the lack of events is not evidence.
    """

    events: tuple[Event, ...]
    missing: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Event, ...]: ...

    def __getitem__(self, index: int | slice) -> Event | tuple[Event, ...]:
        return self.events[index]

    def where(
        self,
        name: str | None = None,
        *,
        node: str | None = None,
        group: int | str | None = None,
        since: float | None = None,
    ) -> Timeline:
        """Select events.

        Parameters
        ----------
        name : str, optional
            Only events of this name, for example ``PeerDown``.
        node : str, optional
            Only events of this node.
        group : int or str, optional
            Only events of the Raft group with this number, or of ``control``, the groups of a keyspace, or one of them
            as in ``accounts/0``.
        since : float, optional
            Only events from this time on, in seconds since the Unix epoch, as returned by ``time.time()``.

        Returns
        -------
        Timeline
            The matching events.

        Raises
        ------
        InvalidArgument
            No event has this name.
        """
        if name not in (None, *EVENTS) and all(event.name != name for event in self.events):
            raise InvalidArgument(f"unknown event {name!r}: events are {', '.join(EVENTS)}")
        chosen = (
            event
            for event in self.events
            if name in (None, event.name)
            and node in (None, event.node)
            and event.is_of(group)
            and (since is None or event.time.timestamp() >= since)
        )
        return Timeline(tuple(chosen), self.missing)

    def __rich__(self) -> RenderableType:
        from rich.markup import escape

        table = listing("time (UTC)", "node", "event", "detail", title="timeline")
        for event in self.events:
            style = _STYLES.get(event.name, "none")
            shown = dict(event.detail)
            if "name" in shown:
                # The number is redundant beside the name.
                shown["group"] = shown.pop("name")
            detail = ", ".join(f"{key}={_plain(value)}" for key, value in shown.items())
            table.add_row(
                event.time.strftime("%H:%M:%S.%f")[:-3],
                event.node,
                f"[{style}]{escape(event.name)}[/]",
                escape(detail),
            )
        return of_nodes(table, self.missing)


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
