# Generated from aio/results.py by python/generate_sync.py: change that file, then run it.
"""What operations return, with their traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate.answers import Answer
from quorate.consensus_answers import AppendedData, CommitData, ConsensusEntryData
from quorate.quorum_answers import EntryData, WriteData

if TYPE_CHECKING:
    from quorate.trace import Trace

__all__ = ["Appended", "Commit", "ConsensusEntry", "Entry", "WriteResult"]


class Traced(Answer):
    """An answer whose trace can be collected."""

    __slots__ = ()

    def trace(self) -> Trace:
        """Collect the spans of this operation from all nodes that it touched.

        Returns
        -------
        Trace
            A waterfall: it draws itself when printed or shown in a notebook.

        Raises
        ------
        InvalidArgument
            When the operation was not traced.

        Examples
        --------
        >>> from quorate import Cluster
        >>> with Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum")
        ...     written = users.put("user-123", "Ada", trace=True)
        ...     written.trace().trace_id == written.trace_id
        True
        """
        trace: Trace = self._connection.trace(self._traced())
        return trace


class Entry(EntryData, Traced):
    """A key as a read at some level saw it."""

    __slots__ = ()


class WriteResult(WriteData, Traced):
    """A write that reached its level."""

    __slots__ = ()


class Commit(CommitData, Traced):
    """A write that a majority has agreed on."""

    __slots__ = ()


class Appended(AppendedData, Traced):
    """An entry that a majority has agreed on."""

    __slots__ = ()


class ConsensusEntry(ConsensusEntryData, Traced):
    """A key of a consensus keyspace as a read saw it."""

    __slots__ = ()
