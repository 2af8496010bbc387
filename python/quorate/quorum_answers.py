"""Results of reads and writes in quorum keyspaces."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quorate import levels, rendering
from quorate.answers import KeyAnswer, card, escaped, moment, plain_bytes, shorten
from quorate.errors import Conflict

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

    from quorate._quorate import Context, RawEntry, RawWrite
    from quorate.levels import Level

__all__ = ["EntryData", "Version", "WriteData"]


@dataclass(frozen=True, slots=True)
class Version:
    """One of a key's values.

    Attributes
    ----------
    value : bytes
        The value.
    timestamp : datetime
        Time of the write, by the hybrid logical clock of its coordinator.
    node : str
        The replica that assigned the version.
    counter : int
        The version's number at that replica.
    """

    value: bytes
    timestamp: datetime
    node: str
    counter: int


class QuorumAnswer(KeyAnswer):
    """Base class of the results of reads and writes."""

    __slots__ = ()
    _raw: RawEntry | RawWrite

    @property
    def context(self) -> Context:
        """The versions of the key that this read or write saw; pass it to the put that replaces them."""
        return self._raw.context

    @property
    def version(self) -> dict[str, int]:
        """The version vector as a map: the number of included writes by replica, ``{"n1": 5, "n2": 3}``."""
        return self._raw.context.version

    @property
    def coordinator(self) -> str:
        """The node that coordinated the operation."""
        return f"n{self._raw.coordinator}"

    @property
    def level(self) -> Level | int:
        """The consistency level that was reached."""
        return levels.from_wire(self._raw.level)

    @property
    def replicas(self) -> tuple[str, ...]:
        """The replicas that had responded when the response was sent; for a write, those that had it durably."""
        raise NotImplementedError

    def _plain(self) -> dict[str, Any]:
        level = self.level
        return {
            **self._plain_key(),
            "version": self.version,
            "context": base64.b64encode(bytes(self.context)).decode(),
            "level": level if isinstance(level, int) else level.value,
            "replicas": list(self.replicas),
            "coordinator": self.coordinator,
            **self._timing(),
        }

    def _summary(self) -> list[tuple[str, str]]:
        return [
            ("version", describe_vector(self.version)),
            ("level", str(self.level)),
            ("replicas", ", ".join(self.replicas)),
            ("coordinator", self.coordinator),
            ("latency", rendering.milliseconds(self.latency)),
        ]

    def _facts(self) -> tuple[Any, ...]:
        raw = self._raw
        return (self._key, raw.context, self.replicas, raw.coordinator, raw.level, raw.seconds, raw.trace_id)


class EntryData(QuorumAnswer):
    """The result of a read in a quorum keyspace."""

    __slots__ = ()
    _raw: RawEntry

    @property
    def versions(self) -> tuple[Version, ...]:
        """The values: none if the key is absent or deleted, several if concurrent writes are not reconciled."""
        return tuple(Version(v.value, moment(v.micros), f"n{v.node}", v.counter) for v in self._raw.versions)

    @property
    def replicas(self) -> tuple[str, ...]:
        """The replicas that responded."""
        return tuple(f"n{node}" for node in self._raw.answered)

    @property
    def found(self) -> bool:
        """Whether the key has a value."""
        return bool(self._raw.values)

    def __bool__(self) -> bool:
        """Whether the key has a value, even an empty one."""
        return self.found

    @property
    def value(self) -> bytes | None:
        """The value; ``None`` if the key is absent.

        Raises
        ------
        Conflict
            If concurrent writes left several values: picking one here would silently drop the others.
        """
        values = self._raw.values
        if len(values) > 1:
            raise Conflict(
                f"key {self.key!r} has {len(values)} concurrent values: read entry.siblings, then write the"
                " merged value with context=entry.context (entry.latest is the newest one)",
                siblings=self.siblings,
                context=self.context,
            )
        return values[0] if values else None

    @property
    def text(self) -> str | None:
        """The value as text; see `value`.

        Raises
        ------
        Conflict
            If concurrent writes left several values.
        UnicodeDecodeError
            If the value is not UTF-8.
        """
        value = self.value
        return None if value is None else value.decode()

    @property
    def siblings(self) -> tuple[bytes, ...]:
        """All the values: none, one, or several that were written concurrently."""
        return tuple(self._raw.values)

    @property
    def latest(self) -> bytes | None:
        """The value with the newest timestamp: last write wins."""
        newest = self._newest()
        return None if newest is None else newest.value

    @property
    def timestamp(self) -> datetime | None:
        """Time of the newest value's write, by the hybrid logical clock of its coordinator."""
        newest = self._newest()
        return None if newest is None else newest.timestamp

    def to_dict(self) -> dict[str, Any]:
        """Describe the entry as plain data, as ``--json`` prints it.

        Values that are not UTF-8 are in ``value_base64`` instead of ``value``; siblings are in a separate list.
        """
        versions = self.versions
        plain = {**self._plain(), "found": self.found}
        if len(versions) == 1:
            plain.update(_plain_version(versions[0]))
        elif versions:
            plain["siblings"] = [_plain_version(version) for version in versions]
        return plain

    def _newest(self) -> Version | None:
        return max(self.versions, key=lambda v: (v.timestamp, v.node, v.counter), default=None)

    def _facts(self) -> tuple[Any, ...]:
        return (*super()._facts(), self.versions)

    def __repr__(self) -> str:
        values = self._raw.values
        if not values:
            what = "not found"
        elif len(values) == 1:
            what = shorten(values[0])
        else:
            what = " | ".join(shorten(value, 30) for value in values)
        version, latency = describe_vector(self.version), rendering.milliseconds(self.latency)
        return f"<Entry {self._title()!r}: {what}, version {{{version}}}, {self.level}, {latency}>"

    def __rich__(self) -> RenderableType:
        values = self._raw.values
        rows = [] if values else [("value", "[dim]not found[/]")]
        for number, value in enumerate(values, 1):
            rows.append(("value" if len(values) == 1 else f"sibling {number}", escaped(shorten(value))))
        written = self.timestamp
        if written is not None:
            rows.append(("written", written.isoformat(sep=" ", timespec="milliseconds")))
        return card(self._title(), rows + self._summary())


class WriteData(QuorumAnswer):
    """The result of a write that reached its level."""

    __slots__ = ()
    _raw: RawWrite

    @property
    def timestamp(self) -> datetime:
        """Time of the write, by the coordinator's hybrid logical clock."""
        return moment(self._raw.micros)

    @property
    def replicas(self) -> tuple[str, ...]:
        """The replicas that had the write durably when the response was sent."""
        return tuple(f"n{node}" for node in self._raw.acked)

    def to_dict(self) -> dict[str, Any]:
        """Describe the write as plain data, as ``--json`` prints it."""
        return {**self._plain(), "timestamp": self.timestamp.isoformat()}

    def _facts(self) -> tuple[Any, ...]:
        return (*super()._facts(), self._raw.micros)

    def __repr__(self) -> str:
        latency = rendering.milliseconds(self.latency)
        return (
            f"<WriteResult {self._title()!r}: version {{{describe_vector(self.version)}}}, {self.level} by"
            f" {', '.join(self.replicas)}, {latency}>"
        )

    def __rich__(self) -> RenderableType:
        written = ("written", self.timestamp.isoformat(sep=" ", timespec="milliseconds"))
        return card(self._title(), [written, *self._summary()])


def describe_vector(version: dict[str, int]) -> str:
    """Format a version vector as ``n1: 5, n2: 3``."""
    return ", ".join(f"{replica}: {counter}" for replica, counter in version.items()) or "empty"


def _plain_version(version: Version) -> dict[str, str]:
    return {**plain_bytes("value", version.value), "timestamp": version.timestamp.isoformat()}
