"""What consensus keyspaces answer: immutable records that draw themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quorate import rendering
from quorate.entries import card, escaped, plain_bytes, shorten
from quorate.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rich.console import RenderableType

    from quorate.trace import Trace

__all__ = [
    "Appended",
    "AppendedData",
    "Commit",
    "CommitData",
    "ConsensusEntry",
    "ConsensusEntryData",
    "LogEntry",
]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What all answers have in common, synchronous or not."""

    latency: float
    trace_id: str | None
    _collect: Callable[[str], Any] = field(repr=False, compare=False)

    def _traced(self) -> str:
        if self.trace_id is None:
            raise InvalidArgument("this operation was not traced: repeat it with trace=True")
        return self.trace_id

    def _course(self) -> dict[str, Any]:
        course: dict[str, Any] = {"latency_ms": round(self.latency * 1e3, 3)}
        if self.trace_id is not None:
            course["trace_id"] = self.trace_id
        return course


@dataclass(frozen=True, slots=True, repr=False)
class CommitData(_Answer):
    """A write that a majority has agreed on.

    Attributes
    ----------
    key : str
        The key.
    version : int
        The key's version now: the place of the write in its shard's log. A later write has a greater one.
    term : int
        The leader's term when the write got into the log.
    leader : str
        The node that leads the shard.
    shard : int
        The shard that the key belongs to.
    latency : float
        Seconds from the call to the answer.
    trace_id : str or None
        The operation's trace, 32 hexadecimal digits, when it was traced.
    """

    key: str
    version: int
    term: int
    leader: str
    shard: int

    def to_dict(self) -> dict[str, Any]:
        """Describe the write as plain data, as ``--json`` prints it."""
        return {
            "key": self.key,
            "version": self.version,
            "term": self.term,
            "leader": self.leader,
            "shard": self.shard,
            **self._course(),
        }

    def __repr__(self) -> str:
        latency = rendering.milliseconds(self.latency)
        return f"<Commit {self.key!r}: version {self.version}, term {self.term}, leader {self.leader}, {latency}>"

    def __rich__(self) -> RenderableType:
        rows = [("version", str(self.version)), ("term", str(self.term)), ("leader", self.leader)]
        shard = ("shard", str(self.shard))
        return card(self.key, [*rows, shard, ("latency", rendering.milliseconds(self.latency))])

    def _repr_html_(self) -> str:
        return rendering.html(self.__rich__())


@dataclass(frozen=True, slots=True, repr=False)
class AppendedData(_Answer):
    """An entry that a majority has agreed on.

    Attributes
    ----------
    source : str
        Where it comes from; may be empty.
    entry_id : int
        Its place in its shard's log: a later entry of the shard has a greater one.
    term : int
        The leader's term when the entry got into the log.
    leader : str
        The node that leads the shard.
    shard : int
        The shard that entries with this source belong to.
    latency : float
        Seconds from the call to the answer.
    trace_id : str or None
        The operation's trace, 32 hexadecimal digits, when it was traced.
    """

    source: str
    entry_id: int
    term: int
    leader: str
    shard: int

    def to_dict(self) -> dict[str, Any]:
        """Describe the answer as plain data, as ``--json`` prints it."""
        return {
            "source": self.source,
            "entry_id": self.entry_id,
            "term": self.term,
            "leader": self.leader,
            "shard": self.shard,
            **self._course(),
        }

    def __repr__(self) -> str:
        latency = rendering.milliseconds(self.latency)
        return f"<Appended {self.entry_id} in shard {self.shard}: term {self.term}, leader {self.leader}, {latency}>"

    def __rich__(self) -> RenderableType:
        rows = [("source", escaped(self.source))] if self.source else []
        rows += [("term", str(self.term)), ("leader", self.leader), ("shard", str(self.shard))]
        return card(f"entry {self.entry_id}", [*rows, ("latency", rendering.milliseconds(self.latency))])

    def _repr_html_(self) -> str:
        return rendering.html(self.__rich__())


@dataclass(frozen=True, slots=True, repr=False)
class ConsensusEntryData(_Answer):
    """A key of a consensus keyspace as a read saw it.

    Attributes
    ----------
    key : str
        The key.
    value : bytes or None
        The value; ``None`` when the key is absent.
    version : int
        The place in its shard's log of the write that made it; 0 when the key is absent. As ``if_version`` it makes a
        write depend on nobody else having written since.
    timestamp : datetime or None
        When it was written, by the clock of the leader.
    node : str
        The node whose state was read.
    leader : str or None
        Who leads the shard, as far as that node knows.
    applied : int
        The last entry of the shard's log that the read has seen.
    staleness : float or None
        How old the state that was read may be, in seconds: everything that anybody was told longer than that before the
        node answered is in it. 0 for a linearizable read. For a stale one it is between one and two periods of
        heartbeats in a healthy group, more where entries come late or no leader is heard of; ``None`` if its node has
        heard of none since it started.
    latency : float
        Seconds from the call to the answer.
    trace_id : str or None
        The operation's trace, 32 hexadecimal digits, when it was traced.
    """

    key: str
    value: bytes | None
    version: int
    timestamp: datetime | None
    node: str
    leader: str | None
    applied: int
    staleness: float | None

    @property
    def found(self) -> bool:
        """Whether the key has a value."""
        return self.value is not None

    def __bool__(self) -> bool:
        """Whether the key has a value, so that ``if entry:`` asks what it seems to ask; an empty value is one."""
        return self.found

    @property
    def text(self) -> str | None:
        """The value as text.

        Raises
        ------
        UnicodeDecodeError
            When the value is not UTF-8.
        """
        return None if self.value is None else self.value.decode()

    def to_dict(self) -> dict[str, Any]:
        """Describe the entry as plain data, as ``--json`` prints it.

        A value that is not UTF-8 is in ``value_base64`` in place of ``value``.
        """
        plain: dict[str, Any] = {
            "key": self.key,
            "version": self.version,
            "node": self.node,
            "leader": self.leader,
            "applied": self.applied,
            "staleness_ms": None if self.staleness is None else round(self.staleness * 1e3, 3),
            **self._course(),
            "found": self.found,
        }
        if self.value is not None and self.timestamp is not None:
            plain.update(plain_bytes("value", self.value), timestamp=self.timestamp.isoformat())
        return plain

    def _freshness(self) -> str:
        if self.staleness is None:
            return "of unknown age"
        return f"at most {rendering.milliseconds(self.staleness)} old" if self.staleness else "linearizable"

    def __repr__(self) -> str:
        what = "not found" if self.value is None else f"{shorten(self.value)}, version {self.version}"
        latency = rendering.milliseconds(self.latency)
        return f"<ConsensusEntry {self.key!r}: {what}, {self._freshness()}, {latency}>"

    def __rich__(self) -> RenderableType:
        shown = "[dim]not found[/]" if self.value is None else escaped(shorten(self.value))
        rows = [("value", shown)]
        if self.timestamp is not None:
            rows.append(("written", self.timestamp.isoformat(sep=" ", timespec="milliseconds")))
            rows.append(("version", str(self.version)))
        rows += [("read", self._freshness()), ("node", self.node), ("leader", self.leader or "unknown")]
        return card(self.key, [*rows, ("latency", rendering.milliseconds(self.latency))])

    def _repr_html_(self) -> str:
        return rendering.html(self.__rich__())


@dataclass(frozen=True, slots=True, repr=False)
class Commit(CommitData):
    """A write that a majority has agreed on; its attributes are those of `CommitData`."""

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


@dataclass(frozen=True, slots=True, repr=False)
class Appended(AppendedData):
    """An entry that a majority has agreed on; its attributes are those of `AppendedData`."""

    def trace(self) -> Trace:
        """Collect the spans of this append from all nodes that it touched.

        Returns
        -------
        Trace
            A waterfall: it draws itself when printed or shown in a notebook.

        Raises
        ------
        InvalidArgument
            When the append was not traced.
        """
        trace: Trace = self._collect(self._traced())
        return trace


@dataclass(frozen=True, slots=True, repr=False)
class ConsensusEntry(ConsensusEntryData):
    """A key of a consensus keyspace as a read saw it; its attributes are those of `ConsensusEntryData`."""

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
class LogEntry:
    """An entry that was appended.

    Attributes
    ----------
    entry_id : int
        Its place in its shard's log: a later entry of the shard has a greater one.
    shard : int
        Which shard it is in.
    term : int
        The leader's term when it got into the log.
    timestamp : datetime
        When it was appended, by the clock of the leader; never earlier than that of the entry before it in the shard.
    source : str
        Where it comes from; may be empty.
    data : bytes
        What it says.
    """

    entry_id: int
    shard: int
    term: int
    timestamp: datetime
    source: str
    data: bytes

    @property
    def text(self) -> str:
        """What it says, as text.

        Raises
        ------
        UnicodeDecodeError
            When it is not UTF-8.
        """
        return self.data.decode()

    def to_dict(self) -> dict[str, Any]:
        """Describe the entry as plain data, as ``--json`` prints it.

        Data that is not UTF-8 is in ``data_base64`` in place of ``data``.
        """
        return {
            "entry_id": self.entry_id,
            "shard": self.shard,
            "term": self.term,
            "timestamp": self.timestamp.isoformat(),
            "source": self.source,
            **plain_bytes("data", self.data),
        }

    def __repr__(self) -> str:
        source = f" from {self.source!r}" if self.source else ""
        return f"<LogEntry {self.entry_id} in shard {self.shard}{source}: {shorten(self.data)}>"
