"""What reads and writes answer: immutable records that draw themselves."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from quorate import rendering
from quorate.errors import Conflict, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from quorate._quorate import Context
    from quorate.levels import Level
    from quorate.trace import Trace

__all__ = ["Entry", "EntryData", "Version", "WriteData", "WriteResult"]


def moment(micros: int) -> datetime:
    """Turn microseconds since the Unix epoch into a date and time in UTC."""
    return datetime.fromtimestamp(micros / 1e6, tz=timezone.utc)


def shorten(value: bytes, limit: int = 60) -> str:
    """Show a value on one line: as text where it is text."""
    try:
        shown = repr(value.decode())
    except UnicodeDecodeError:
        shown = repr(value)
    if len(shown) > limit:
        return f"{shown[: limit - 1]}… ({rendering.size(len(value))})"
    return shown


def plain_bytes(name: str, value: bytes) -> dict[str, str]:
    """Describe bytes as plain data: as text where they are text."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _plain_version(version: Version) -> dict[str, str]:
    return {**plain_bytes("value", version.value), "timestamp": version.timestamp.isoformat()}


def describe_vector(version: dict[str, int]) -> str:
    """Write a version vector the way it is read aloud: ``n1: 5, n2: 3``."""
    return ", ".join(f"{replica}: {counter}" for replica, counter in version.items()) or "empty"


@dataclass(frozen=True, slots=True)
class Version:
    """One of a key's values.

    Attributes
    ----------
    value : bytes
        The value.
    timestamp : datetime
        When it was written, by the hybrid logical clock of the node that coordinated the write.
    node : str
        The replica that assigned the version.
    counter : int
        The version's number at that replica.
    """

    value: bytes
    timestamp: datetime
    node: str
    counter: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the answers to reads and to writes have in common, synchronous or not."""

    key: str
    context: Context
    replicas: tuple[str, ...]
    coordinator: str
    level: Level | int
    latency: float
    trace_id: str | None
    _collect: Callable[[str], Any] = field(repr=False, compare=False)

    @property
    def version(self) -> dict[str, int]:
        """The version vector as a map: how many writes of each replica are included, ``{"n1": 5, "n2": 3}``."""
        return self.context.version

    def _traced(self) -> str:
        if self.trace_id is None:
            raise InvalidArgument("this operation was not traced: repeat it with trace=True")
        return self.trace_id

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "key": self.key,
            "version": self.version,
            "context": base64.b64encode(bytes(self.context)).decode(),
            "level": self.level if isinstance(self.level, int) else self.level.value,
            "replicas": list(self.replicas),
            "coordinator": self.coordinator,
            "latency_ms": round(self.latency * 1e3, 3),
        }
        if self.trace_id is not None:
            plain["trace_id"] = self.trace_id
        return plain

    def _summary(self) -> list[tuple[str, str]]:
        return [
            ("version", describe_vector(self.version)),
            ("level", str(self.level)),
            ("replicas", ", ".join(self.replicas)),
            ("coordinator", self.coordinator),
            ("latency", rendering.milliseconds(self.latency)),
        ]


@dataclass(frozen=True, slots=True, repr=False)
class EntryData(Answer):
    """A key as a read at some level saw it.

    Attributes
    ----------
    key : str
        The key.
    versions : tuple of Version
        Empty when the key is absent or deleted; several when concurrent writes have not been reconciled.
    context : Context
        What this read has seen: give it to the put that is to replace it.
    replicas : tuple of str
        The replicas that answered.
    coordinator : str
        The node that coordinated the read.
    level : Level or int
        The consistency level that was reached.
    latency : float
        Seconds from the call to the answer.
    trace_id : str or None
        The operation's trace, 32 hexadecimal digits, when it was traced.
    """

    versions: tuple[Version, ...]

    @property
    def found(self) -> bool:
        """Whether the key has a value."""
        return bool(self.versions)

    def __bool__(self) -> bool:
        """Whether the key has a value, so that ``if entry:`` asks what it seems to ask; an empty value is one."""
        return self.found

    @property
    def value(self) -> bytes | None:
        """The value, ``None`` when there is none.

        Raises
        ------
        Conflict
            When concurrent writes left several values: picking one here would silently drop the others.
        """
        if len(self.versions) > 1:
            raise Conflict(
                f"key {self.key!r} has {len(self.versions)} concurrent values: read entry.siblings, then write the"
                " merged value with context=entry.context (entry.latest is the newest one)",
                siblings=self.siblings,
                context=self.context,
            )
        return self.versions[0].value if self.versions else None

    @property
    def text(self) -> str | None:
        """The value as text; see `value`.

        Raises
        ------
        Conflict
            When concurrent writes left several values.
        UnicodeDecodeError
            When the value is not UTF-8.
        """
        value = self.value
        return None if value is None else value.decode()

    @property
    def siblings(self) -> tuple[bytes, ...]:
        """All the values: none, one, or several that were written concurrently."""
        return tuple(version.value for version in self.versions)

    @property
    def latest(self) -> bytes | None:
        """The value with the newest timestamp: last write wins."""
        newest = self._newest()
        return None if newest is None else newest.value

    @property
    def timestamp(self) -> datetime | None:
        """When the newest value was written, by the hybrid logical clock of its coordinator."""
        newest = self._newest()
        return None if newest is None else newest.timestamp

    def to_dict(self) -> dict[str, Any]:
        """Describe the entry as plain data, as ``--json`` prints it.

        Values that are not UTF-8 are in ``value_base64`` in place of ``value``; siblings are in a list of their own.
        """
        plain = {**self._plain(), "found": self.found}
        if len(self.versions) == 1:
            plain.update(_plain_version(self.versions[0]))
        elif self.versions:
            plain["siblings"] = [_plain_version(version) for version in self.versions]
        return plain

    def _newest(self) -> Version | None:
        return max(self.versions, key=lambda v: (v.timestamp, v.node, v.counter), default=None)

    def __repr__(self) -> str:
        if not self.versions:
            what = "not found"
        elif len(self.versions) == 1:
            what = shorten(self.versions[0].value)
        else:
            what = " | ".join(shorten(version.value, 30) for version in self.versions)
        latency = rendering.milliseconds(self.latency)
        return f"<Entry {self.key!r}: {what}, version {{{describe_vector(self.version)}}}, {self.level}, {latency}>"

    def __rich__(self) -> RenderableType:
        rows = [("value", "[dim]not found[/]")] if not self.versions else []
        for number, version in enumerate(self.versions, 1):
            name = "value" if len(self.versions) == 1 else f"sibling {number}"
            rows.append((name, escaped(shorten(version.value))))
        written = self.timestamp
        if written is not None:
            rows.append(("written", written.isoformat(sep=" ", timespec="milliseconds")))
        return card(self.key, rows + self._summary())

    def _repr_html_(self) -> str:
        return rendering.html(self.__rich__())


@dataclass(frozen=True, slots=True, repr=False)
class WriteData(Answer):
    """A write that reached its level.

    Attributes
    ----------
    key : str
        The key.
    timestamp : datetime
        When it was written, by the coordinator's hybrid logical clock.
    context : Context
        The key's state after this write: give it to the put that is to replace it.
    replicas : tuple of str
        The replicas that had the write durably when the answer left.
    coordinator : str
        The node that coordinated the write.
    level : Level or int
        The consistency level that was reached.
    latency : float
        Seconds from the call to the answer.
    trace_id : str or None
        The operation's trace, 32 hexadecimal digits, when it was traced.
    """

    timestamp: datetime

    def to_dict(self) -> dict[str, Any]:
        """Describe the write as plain data, as ``--json`` prints it."""
        return {**self._plain(), "timestamp": self.timestamp.isoformat()}

    def __repr__(self) -> str:
        latency = rendering.milliseconds(self.latency)
        return (
            f"<WriteResult {self.key!r}: version {{{describe_vector(self.version)}}}, {self.level} by"
            f" {', '.join(self.replicas)}, {latency}>"
        )

    def __rich__(self) -> RenderableType:
        written = ("written", self.timestamp.isoformat(sep=" ", timespec="milliseconds"))
        return card(self.key, [written, *self._summary()])

    def _repr_html_(self) -> str:
        return rendering.html(self.__rich__())


@dataclass(frozen=True, slots=True, repr=False)
class Entry(EntryData):
    """A key as a read at some level saw it; its attributes are those of `EntryData`."""

    def trace(self) -> Trace:
        """Collect the spans of this read from all nodes that it touched.

        Returns
        -------
        Trace
            A waterfall: it draws itself when printed or shown in a notebook.

        Raises
        ------
        InvalidArgument
            When the read was not traced.
        """
        trace: Trace = self._collect(self._traced())
        return trace


@dataclass(frozen=True, slots=True, repr=False)
class WriteResult(WriteData):
    """A write that reached its level; its attributes are those of `WriteData`."""

    def trace(self) -> Trace:
        """Collect the spans of this write from all nodes that it touched.

        Returns
        -------
        Trace
            A waterfall: it draws itself when printed or shown in a notebook.

        Raises
        ------
        InvalidArgument
            When the write was not traced.
        """
        trace: Trace = self._collect(self._traced())
        return trace


def escaped(shown: str) -> str:
    """Show text as it is, square brackets too."""
    from rich.markup import escape

    return escape(shown)


def card(title: str, rows: list[tuple[str, str]]) -> RenderableType:
    """Draw what there is to say about one thing."""
    from rich import box
    from rich.table import Table

    table = Table(title=escaped(title), box=box.ROUNDED, show_header=False, title_justify="left")
    table.add_column(style="bold cyan")
    table.add_column(overflow="fold")
    for name, shown in rows:
        table.add_row(name, shown)
    return table
