"""Results of operations: one class hierarchy for both modes and for both clients.

An answer wraps the extension's result and computes its attributes on access. Answers are immutable, compare by their
attributes, and render in terminals and notebooks. `quorate.quorum_answers` and `quorate.consensus_answers` define those
of the two modes; `quorate.results` adds ``trace``, which is synchronous or awaitable.
"""

from __future__ import annotations

import base64
from datetime import datetime, timezone
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar

from quorate import rendering
from quorate.errors import InvalidArgument, PartialFailure, QuorateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from quorate._quorate import RawCommit, RawEntry, RawRecord, RawWrite
    from quorate.arguments import BatchKeys, RawKey

__all__ = ["Answer", "KeyAnswer"]

AnswerT = TypeVar("AnswerT")


class Answer:
    """Base class of all answers.

    Parameters
    ----------
    raw : object
        The extension's result.
    connection : object
        Collects spans with its ``trace`` method.
    """

    __slots__ = ("_connection", "_raw")
    _raw: RawEntry | RawWrite | RawCommit | RawRecord
    _connection: Any

    @property
    def latency(self) -> float:
        """Seconds from the call to the response."""
        return self._raw.seconds

    @property
    def trace_id(self) -> str | None:
        """The operation's trace id, 32 hexadecimal digits, if it was traced."""
        found = self._raw.trace_id
        return None if found is None else f"{found:032x}"

    def _traced(self) -> str:
        found = self.trace_id
        if found is None:
            raise InvalidArgument("this operation was not traced: repeat it with trace=True")
        return found

    def _timing(self) -> dict[str, Any]:
        timing: dict[str, Any] = {"latency_ms": round(self.latency * 1e3, 3)}
        if self.trace_id is not None:
            timing["trace_id"] = self.trace_id
        return timing

    def _facts(self) -> tuple[Any, ...]:
        """List the attributes that answers are compared by."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer) or type(other) is not type(self):
            return NotImplemented
        return self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash(self._facts())

    def _repr_html_(self) -> str:
        return rendering.html(self.__rich__())

    def __rich__(self) -> RenderableType:
        raise NotImplementedError


class KeyAnswer(Answer):
    """Base class of answers about one key.

    Parameters
    ----------
    raw : object
        The extension's result.
    key : bytes or tuple
        The key, or its partition and its sort part.
    connection : object
        Collects spans with its ``trace`` method.
    """

    __slots__ = ("_key",)

    def __init__(self, raw: Any, key: RawKey, connection: Any) -> None:
        self._raw = raw
        self._key = key
        self._connection = connection

    @property
    def key(self) -> str:
        """The key, or its partition where it has a sort part."""
        return key_text(self._key if isinstance(self._key, bytes) else self._key[0])

    @property
    def sort_key(self) -> str | None:
        """The sort part of the key: records of one partition are ordered by it. ``None`` when the key has none."""
        sort = None if isinstance(self._key, bytes) else self._key[1]
        return None if sort is None else key_text(sort)

    def _plain_key(self) -> dict[str, Any]:
        sort = self.sort_key
        return {"key": self.key} if sort is None else {"key": self.key, "sort_key": sort}

    def _title(self) -> str:
        sort = self.sort_key
        return self.key if sort is None else f"{self.key} / {sort}"


def key_text(key: bytes) -> str:
    """Show a key as text; the inverse of `quorate.arguments.key_bytes`."""
    return key.decode("utf-8", "surrogateescape")


def moment(micros: int) -> datetime:
    """Convert microseconds since the Unix epoch to a date and time in UTC."""
    return datetime.fromtimestamp(micros / 1e6, tz=timezone.utc)


def shorten(value: bytes, limit: int = 60) -> str:
    """Format a value on one line: as text if it is UTF-8."""
    try:
        shown = repr(value.decode())
    except UnicodeDecodeError:
        shown = repr(value)
    if len(shown) > limit:
        return f"{shown[: limit - 1]}… ({rendering.size(len(value))})"
    return shown


def plain_bytes(name: str, value: bytes) -> dict[str, str]:
    """Describe bytes as plain data: as text if they are UTF-8."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def escaped(shown: str) -> str:
    """Escape text for rich, so that square brackets are shown."""
    from rich.markup import escape

    return escape(shown)


def card(title: str, rows: list[tuple[str, str]]) -> RenderableType:
    """Draw a table of attributes and values."""
    from rich import box
    from rich.table import Table

    table = Table(title=escaped(title), box=box.ROUNDED, show_header=False, title_justify="left")
    table.add_column(style="bold cyan")
    table.add_column(overflow="fold")
    for name, shown in rows:
        table.add_row(name, shown)
    return table


def batch(
    what: str,
    kind: Callable[[Any, RawKey, Any], AnswerT],
    keys: BatchKeys,
    raws: Sequence[object],
    connection: object,
) -> dict[Any, AnswerT]:
    """Collect the answers of a batch, by key as given.

    Raises
    ------
    PartialFailure
        If any operation failed; it holds the results and the errors.
    """
    if len(raws) != len(keys.raws):
        raise ValueError(f"{len(raws)} results of {len(keys.raws)} {what}")
    if not any(issubclass(each, QuorateError) for each in set(map(type, raws))):
        return dict(zip(keys.names, map(kind, raws, keys.raws, repeat(connection)), strict=True))
    succeeded: dict[Any, AnswerT] = {}
    failed: dict[Any, QuorateError] = {}
    for key, coded, raw in zip(*keys, raws, strict=True):
        if isinstance(raw, QuorateError):
            failed[key] = raw
        else:
            succeeded[key] = kind(raw, coded, connection)
    if failed:
        key, first = next(iter(failed.items()))
        raise PartialFailure(
            f"{len(failed)} of {len(failed) + len(succeeded)} {what} failed; the first: key {key!r}:"
            f" {type(first).__name__}: {first}",
            succeeded=succeeded,
            failed=failed,
        )
    return succeeded
