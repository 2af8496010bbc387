"""Results of operations, with their traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate.answers import Answer
from quorate.consensus_answers import AppendedData, CommitData, ConsensusEntryData
from quorate.quorum_answers import EntryData, WriteData

if TYPE_CHECKING:
    from quorate.trace import Trace

__all__ = ["Appended", "Commit", "ConsensusEntry", "Entry", "WriteResult"]


class Traced(Answer):
    """A result whose trace can be collected."""

    __slots__ = ()

    async def trace(self) -> Trace:
        """Collect the spans of this operation from all nodes that took part.

        Returns
        -------
        Trace
            A waterfall of spans; drawn when printed or shown in a notebook.

        Raises
        ------
        InvalidArgument
            The operation was not traced.

        Examples
        --------
        >>> from quorate.aio import Cluster
        >>> async with Cluster(nodes=3) as cluster:
        ...     users = await cluster.keyspace("users", mode="quorum")
        ...     written = await users.put("user-123", "Ada", trace=True)
        ...     (await written.trace()).trace_id == written.trace_id
        True
        """
        trace: Trace = await self._connection.trace(self._traced())
        return trace


class Entry(EntryData, Traced):
    """The result of a read in a quorum keyspace."""

    __slots__ = ()


class WriteResult(WriteData, Traced):
    """The result of a write that reached its level."""

    __slots__ = ()


class Commit(CommitData, Traced):
    """The result of a committed write."""

    __slots__ = ()


class Appended(AppendedData, Traced):
    """The result of a committed append."""

    __slots__ = ()


class ConsensusEntry(ConsensusEntryData, Traced):
    """The result of a read in a consensus keyspace."""

    __slots__ = ()
