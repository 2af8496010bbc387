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
        When, by that node's wall clock.
    node : str
        Where.
    name : str
        What, for example ``PeerDown``.
    detail : dict
        More about it, for example ``{"peer": "n2", "reason": "..."}``. What happens in a Raft group has its number as
        ``group`` and, while the group exists, as ``name`` what it is for: ``control``, a keyspace, or a keyspace and
        a shard as in ``accounts/0``.
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

    def is_of(self, group: int | str | None) -> bool:
        """Tell whether it happened in a Raft group, given as in `Timeline.where`; in any, or none, if ``None``."""
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
            Only events of the Raft group of this number, or of ``control``, the groups of a keyspace, or one of them
            as in ``accounts/0``.
        since : float, optional
            Only events from this moment on, in seconds since the Unix epoch, as ``time.time()`` tells it.

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
                # The number says nothing that the name does not.
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
