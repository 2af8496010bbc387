"""Answers whose trace is to be awaited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quorate.entries import EntryData, WriteData

if TYPE_CHECKING:
    from quorate.trace import Trace

__all__ = ["Entry", "WriteResult"]


@dataclass(frozen=True, slots=True, repr=False)
class Entry(EntryData):
    """A key as a read at some level saw it; see `quorate.Entry`."""

    async def trace(self) -> Trace:
        """Collect the spans of this read; see `quorate.Entry.trace`."""
        trace: Trace = await self._collect(self._traced())
        return trace


@dataclass(frozen=True, slots=True, repr=False)
class WriteResult(WriteData):
    """A write that reached its level; see `quorate.WriteResult`."""

    async def trace(self) -> Trace:
        """Collect the spans of this write; see `quorate.WriteResult.trace`."""
        trace: Trace = await self._collect(self._traced())
        return trace
