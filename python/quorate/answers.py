"""What the extension answers to reads and writes, made into results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from quorate import levels
from quorate.entries import EntryData, Version, WriteData, moment
from quorate.errors import PartialFailure, QuorateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quorate._quorate import RawEntry, RawWrite
    from quorate.arguments import KeyT

EntryT = TypeVar("EntryT", bound=EntryData)
WriteT = TypeVar("WriteT", bound=WriteData)
AnswerT = TypeVar("AnswerT")


def key_text(key: bytes) -> str:
    """Show a key as text; the inverse of `quorate.arguments.key_bytes`."""
    return key.decode("utf-8", "surrogateescape")


def entry(kind: type[EntryT], key: bytes, raw: RawEntry, collect: Callable[[str], Any]) -> EntryT:
    """Make an entry of what the extension answered."""
    return kind(
        key_text(key),
        raw.context,
        tuple(f"n{node}" for node in raw.answered),
        f"n{raw.coordinator}",
        levels.from_wire(raw.level),
        raw.seconds,
        None if raw.trace_id is None else f"{raw.trace_id:032x}",
        collect,
        tuple(Version(v.value, moment(v.micros), f"n{v.node}", v.counter) for v in raw.versions),
    )


def written(kind: type[WriteT], key: bytes, raw: RawWrite, collect: Callable[[str], Any]) -> WriteT:
    """Make a write's result of what the extension answered."""
    return kind(
        key_text(key),
        raw.context,
        tuple(f"n{node}" for node in raw.acked),
        f"n{raw.coordinator}",
        levels.from_wire(raw.level),
        raw.seconds,
        None if raw.trace_id is None else f"{raw.trace_id:032x}",
        collect,
        moment(raw.micros),
    )


def written_batch(
    kind: type[WriteT],
    pairs: list[tuple[KeyT, bytes]],
    raws: Iterable[RawWrite | QuorateError],
    collect: Callable[[str], Any],
) -> dict[KeyT, WriteT]:
    """Make results of what the extension answered to a put_many."""
    answers = (
        (key, raw if isinstance(raw, QuorateError) else written(kind, coded, raw, collect))
        for (key, coded), raw in zip(pairs, raws, strict=True)
    )
    return batch("writes", answers)


def entry_batch(
    kind: type[EntryT],
    keys: list[tuple[KeyT, bytes]],
    raws: Iterable[RawEntry | QuorateError],
    collect: Callable[[str], Any],
) -> dict[KeyT, EntryT]:
    """Make entries of what the extension answered to a get_many."""
    answers = (
        (key, raw if isinstance(raw, QuorateError) else entry(kind, coded, raw, collect))
        for (key, coded), raw in zip(keys, raws, strict=True)
    )
    return batch("reads", answers)


def batch(what: str, answers: Iterable[tuple[KeyT, AnswerT | QuorateError]]) -> dict[KeyT, AnswerT]:
    """Separate what succeeded from what failed.

    Raises
    ------
    PartialFailure
        When anything failed, holding both.
    """
    succeeded: dict[KeyT, AnswerT] = {}
    failed: dict[KeyT, QuorateError] = {}
    for key, answer in answers:
        if isinstance(answer, QuorateError):
            failed[key] = answer
        else:
            succeeded[key] = answer
    if failed:
        key, first = next(iter(failed.items()))
        raise PartialFailure(
            f"{len(failed)} of {len(failed) + len(succeeded)} {what} failed; the first: key {key!r}:"
            f" {type(first).__name__}: {first}",
            succeeded=succeeded,
            failed=failed,
        )
    return succeeded
