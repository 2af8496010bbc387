"""The cluster's timeline: what happened, when, and on which node."""

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
}


EVENTS = tuple(_STYLES)
"""The names of all events."""


@dataclass(frozen=True, slots=True)
class Event:
    """One state change of one node.

    Attributes
    ----------
    time : datetime
        When, by that node's wall clock.
    node : str
        Where.
    name : str
        What, for example ``PeerDown``.
    detail : dict
        More about it, for example ``{"peer": "n2", "reason": "..."}``.
    generation : int
        The topology generation it happened in.
    sequence : int
        Rises by one with each event of one run of a node.
    """

    time: datetime
    node: str
    name: str
    detail: dict[str, Any]
    generation: int
    sequence: int

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
    """Events in the order of their time.

    Attributes
    ----------
    events : tuple of Event
        What happened.
    missing : tuple of str
        The nodes that did not answer; when it names all of them, that there are no events says nothing.
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

    def where(self, name: str | None = None, *, node: str | None = None) -> Timeline:
        """Select events.

        Parameters
        ----------
        name : str, optional
            Only events of this name, for example ``PeerDown``.
        node : str, optional
            Only events of this node.

        Returns
        -------
        Timeline
            The events that fit.

        Raises
        ------
        InvalidArgument
            There are no events of this name.
        """
        if name not in (None, *EVENTS) and all(event.name != name for event in self.events):
            raise InvalidArgument(f"no event is called {name!r}: there are {', '.join(EVENTS)}")
        chosen = (e for e in self.events if name in (None, e.name) and node in (None, e.node))
        return Timeline(tuple(chosen), self.missing)

    def __rich__(self) -> RenderableType:
        from rich.markup import escape

        table = listing("time (UTC)", "node", "event", "detail", title="timeline")
        for event in self.events:
            style = _STYLES.get(event.name, "white")
            detail = ", ".join(f"{key}={_plain(value)}" for key, value in event.detail.items())
            table.add_row(
                event.time.strftime("%H:%M:%S.%f")[:-3],
                event.node,
                f"[{style}]{escape(event.name)}[/]",
                escape(detail),
            )
        return of_nodes(table, self.missing)


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
