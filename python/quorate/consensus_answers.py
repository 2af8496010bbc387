"""Results of reads, writes and appends in consensus keyspaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quorate import rendering
from quorate.answers import Answer, KeyAnswer, card, escaped, moment, plain_bytes, shorten

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

    from quorate._quorate import RawCommit, RawRecord

__all__ = ["AppendedData", "CommitData", "ConsensusEntryData", "LogEntry"]


class Committed(Answer):
    """Base class of the results of writes and appends."""

    __slots__ = ()
    _raw: RawCommit

    @property
    def term(self) -> int:
        """The leader's term when the command was appended to the log."""
        return self._raw.term

    @property
    def leader(self) -> str:
        """The node that leads the shard."""
        return f"n{self._raw.leader}"

    @property
    def shard(self) -> int:
        """The shard that executed it."""
        return self._raw.shard

    def _plain(self) -> dict[str, Any]:
        return {"term": self.term, "leader": self.leader, "shard": self.shard, **self._timing()}

    def _facts(self) -> tuple[Any, ...]:
        raw = self._raw
        return (raw.index, raw.term, raw.leader, raw.shard, raw.seconds, raw.trace_id)

    def _summary(self) -> list[tuple[str, str]]:
        summary = [("term", str(self.term)), ("leader", self.leader), ("shard", str(self.shard))]
        return [*summary, ("latency", rendering.milliseconds(self.latency))]


class CommitData(KeyAnswer, Committed):
    """The result of a committed write."""

    __slots__ = ()
    _raw: RawCommit

    @property
    def version(self) -> int:
        """The key's version now: the log index of the write in its shard. A later write has a greater one."""
        return self._raw.index

    def to_dict(self) -> dict[str, Any]:
        """Describe the write as plain data, as ``--json`` prints it."""
        return {**self._plain_key(), "version": self.version, **self._plain()}

    def _facts(self) -> tuple[Any, ...]:
        return (self._key, *Committed._facts(self))

    def __repr__(self) -> str:
        latency = rendering.milliseconds(self.latency)
        return f"<Commit {self._title()!r}: version {self.version}, term {self.term}, leader {self.leader}, {latency}>"

    def __rich__(self) -> RenderableType:
        return card(self._title(), [("version", str(self.version)), *self._summary()])


class AppendedData(Committed):
    """The result of a committed append.

    Parameters
    ----------
    raw : object
        The extension's result.
    source : str
        Origin of the entry.
    connection : object
        Collects spans with its ``trace`` method.
    """

    __slots__ = ("_source",)

    def __init__(self, raw: RawCommit, source: str, connection: Any) -> None:
        self._raw = raw
        self._source = source
        self._connection = connection

    @property
    def source(self) -> str:
        """Origin of the entry; may be empty."""
        return self._source

    @property
    def entry_id(self) -> int:
        """Its log index in its shard; later entries of the shard have greater ones."""
        return self._raw.index

    def to_dict(self) -> dict[str, Any]:
        """Describe the answer as plain data, as ``--json`` prints it."""
        return {"source": self.source, "entry_id": self.entry_id, **self._plain()}

    def _facts(self) -> tuple[Any, ...]:
        return (self.source, *super()._facts())

    def __repr__(self) -> str:
        latency = rendering.milliseconds(self.latency)
        return f"<Appended {self.entry_id} in shard {self.shard}: term {self.term}, leader {self.leader}, {latency}>"

    def __rich__(self) -> RenderableType:
        rows = [("source", escaped(self.source))] if self.source else []
        return card(f"entry {self.entry_id}", [*rows, *self._summary()])


class ConsensusEntryData(KeyAnswer):
    """The result of a read in a consensus keyspace."""

    __slots__ = ()
    _raw: RawRecord

    @property
    def value(self) -> bytes | None:
        """The value; ``None`` if the key is absent."""
        return self._raw.value

    @property
    def version(self) -> int:
        """The log index of the write that made it, in its shard; 0 when the key is absent.

        Passed as ``if_version``, it makes a write conditional: the write is rejected if the key was written since.
        """
        return self._raw.version or 0

    @property
    def timestamp(self) -> datetime | None:
        """Time of the write, by the clock of the leader."""
        micros = self._raw.micros
        return None if micros is None else moment(micros)

    @property
    def node(self) -> str:
        """The node whose state was read."""
        return f"n{self._raw.node}"

    @property
    def leader(self) -> str | None:
        """The shard's leader as known to that node."""
        return None if self._raw.leader is None else f"n{self._raw.leader}"

    @property
    def applied(self) -> int:
        """Index of the last applied entry of the shard's log that the read reflects."""
        return self._raw.applied

    @property
    def staleness(self) -> float | None:
        """Seconds: an upper bound on the age of the state that was read.

        The state contains every write that was acknowledged earlier than this, counted from the node's response. 0 for
        a linearizable read. For a stale read it is between one and two heartbeat periods in a healthy group, more if
        entries arrive late or no leader is known; ``None`` if the node has not known a leader since it started.
        """
        return self._raw.staleness

    @property
    def found(self) -> bool:
        """Whether the key has a value."""
        return self._raw.version is not None

    def __bool__(self) -> bool:
        """Whether the key has a value, even an empty one."""
        return self.found

    @property
    def text(self) -> str | None:
        """The value as text.

        Raises
        ------
        UnicodeDecodeError
            If the value is not UTF-8.
        """
        value = self.value
        return None if value is None else value.decode()

    def to_dict(self) -> dict[str, Any]:
        """Describe the entry as plain data, as ``--json`` prints it.

        A value that is not UTF-8 is in ``value_base64`` instead of ``value``.
        """
        plain: dict[str, Any] = {
            **self._plain_key(),
            "version": self.version,
            "node": self.node,
            "leader": self.leader,
            "applied": self.applied,
            "staleness_ms": None if self.staleness is None else round(self.staleness * 1e3, 3),
            **self._timing(),
            "found": self.found,
        }
        value, timestamp = self.value, self.timestamp
        if value is not None and timestamp is not None:
            plain.update(plain_bytes("value", value), timestamp=timestamp.isoformat())
        return plain

    def _facts(self) -> tuple[Any, ...]:
        raw = self._raw
        read = (raw.value, raw.version, raw.micros, raw.node, raw.leader, raw.applied, raw.staleness)
        return (self._key, *read, raw.seconds, raw.trace_id)

    def _age(self) -> str:
        if self.staleness is None:
            return "of unknown age"
        return f"at most {rendering.milliseconds(self.staleness)} old" if self.staleness else "linearizable"

    def __repr__(self) -> str:
        value = self.value
        what = "not found" if value is None else f"{shorten(value)}, version {self.version}"
        latency = rendering.milliseconds(self.latency)
        return f"<ConsensusEntry {self._title()!r}: {what}, {self._age()}, {latency}>"

    def __rich__(self) -> RenderableType:
        value, timestamp = self.value, self.timestamp
        rows = [("value", "[dim]not found[/]" if value is None else escaped(shorten(value)))]
        if timestamp is not None:
            rows.append(("written", timestamp.isoformat(sep=" ", timespec="milliseconds")))
            rows.append(("version", str(self.version)))
        rows += [("read", self._age()), ("node", self.node), ("leader", self.leader or "unknown")]
        return card(self._title(), [*rows, ("latency", rendering.milliseconds(self.latency))])


@dataclass(frozen=True, slots=True, repr=False)
class LogEntry:
    """An entry of a keyspace's log.

    Attributes
    ----------
    entry_id : int
        Its log index in its shard; later entries of the shard have greater ones.
    shard : int
        Its shard.
    term : int
        The leader's term when it was appended.
    timestamp : datetime
        Time of the append, by the clock of the leader; never earlier than that of the previous entry of the shard.
    source : str
        Its origin; may be empty.
    data : bytes
        Its content.
    """

    entry_id: int
    shard: int
    term: int
    timestamp: datetime
    source: str
    data: bytes

    @property
    def text(self) -> str:
        """The content as text.

        Raises
        ------
        UnicodeDecodeError
            If it is not UTF-8.
        """
        return self.data.decode()

    def to_dict(self) -> dict[str, Any]:
        """Describe the entry as plain data, as ``--json`` prints it.

        Data that is not UTF-8 is in ``data_base64`` instead of ``data``.
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
