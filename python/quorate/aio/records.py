"""Answers of consensus keyspaces whose trace is to be awaited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quorate.records import AppendedData, CommitData, ConsensusEntryData

if TYPE_CHECKING:
    from quorate.trace import Trace

__all__ = ["Appended", "Commit", "ConsensusEntry"]


@dataclass(frozen=True, slots=True, repr=False)
class Commit(CommitData):
    """A write that a majority has agreed on; see `quorate.Commit`."""

    async def trace(self) -> Trace:
        """Collect the spans of this write; see `quorate.Commit.trace`."""
        trace: Trace = await self._collect(self._traced())
        return trace


@dataclass(frozen=True, slots=True, repr=False)
class Appended(AppendedData):
    """An entry that a majority has agreed on; see `quorate.Appended`."""

    async def trace(self) -> Trace:
        """Collect the spans of this append; see `quorate.Appended.trace`."""
        trace: Trace = await self._collect(self._traced())
        return trace


@dataclass(frozen=True, slots=True, repr=False)
class ConsensusEntry(ConsensusEntryData):
    """A key of a consensus keyspace as a read saw it; see `quorate.ConsensusEntry`."""

    async def trace(self) -> Trace:
        """Collect the spans of this read; see `quorate.ConsensusEntry.trace`."""
        trace: Trace = await self._collect(self._traced())
        return trace
