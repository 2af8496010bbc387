# Generated from aio/entry_log.py by python/generate_sync.py: change that file, then run it.
"""The log of entries of a consensus keyspace, beside its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import arguments, entry_pages, levels, modes
from quorate.results import Appended

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quorate.consensus_answers import LogEntry
    from quorate.levels import ReadConsistency
    from quorate.owner import Owner
    from quorate.topology import KeyspaceInfo

__all__ = ["EntryLog"]


class EntryLog:
    """What a `quorate.ConsensusKeyspace` does with entries: it appends and lists them."""

    def __init__(self, connection: Owner, info: KeyspaceInfo, ring_hash: str) -> None:
        self._connection = connection
        self._info = info
        self._calls = connection._client.consensus(info.id, info.name, info.group_members(), ring_hash)

    @modes.rejects_arguments_of_quorum
    def append(
        self,
        data: str | bytes,
        source: str = "",
        *,
        timeout: float | None = None,
        trace: bool = False,
    ) -> Appended:
        """Add an entry to the keyspace's log of entries, beside its keys. Entries cannot be changed.

        Parameters
        ----------
        data : str or bytes
            What it says, up to 1 MiB.
        source : str
            Where it comes from, up to 256 bytes. It decides on the shard: entries of one source are in one order.
        timeout : float, optional
            Seconds, in all.
        trace : bool
            Whether to record what every process does for it; see `Appended.trace`.

        Returns
        -------
        Appended
            Its id, which is greater than that of every entry of the shard before it; the term; the leader.

        Raises
        ------
        Unavailable
            No majority of the group can be reached; nothing was appended.
        OutcomeUnknown
            The time was up; the entry may or may not be there later.
        SessionExpired
            As of a put.

        Examples
        --------
        >>> from quorate import Cluster
        >>> with Cluster(nodes=3) as cluster:
        ...     events = cluster.keyspace("events", mode="consensus", replicas=3)
        ...     for line in ("up", "down", "up again"):
        ...         appended = events.append(line, source="web")
        ...     [entry.text for entry in events.entries(source="web")]
        ['up', 'down', 'up again']
        """
        connection = self._connection
        source = arguments.text(source, "source")
        raw = self._calls.append(
            source,
            arguments.value_bytes(data),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        ).wait()
        return Appended(raw, source, connection)

    def entries(
        self,
        after: int | Mapping[int, int] = 0,
        *,
        source: str | None = None,
        limit: int | None = None,
        consistency: ReadConsistency | None = None,
        timeout: float | None = None,
        page_size: int = 256,
    ) -> Iterator[LogEntry]:
        """Walk the entries that were appended.

        Those of one shard, and so those of one source, come in the order of their ids; several shards are merged by
        time, then shard, then id.

        Parameters
        ----------
        after : int or mapping
            Only entries with greater ids. Shards count by themselves: to go on where a listing of several has ended,
            give the last id of each by shard, as in ``{0: 17, 1: 4}``.
        source : str, optional
            Only entries from there; only its shard is asked.
        limit : int, optional
            At most so many; all by default.
        consistency : ReadLevel or str, optional
            As of a get.
        timeout : float, optional
            Seconds for each page.
        page_size : int
            Entries fetched at once from each shard.

        Yields
        ------
        LogEntry
            Id, shard, term, time, source and data.

        Raises
        ------
        Unavailable
            No majority of a shard's group can be reached.
        ReadTimeout
            The time was up.
        """
        if source is None:
            wanted = list(range(self._info.shards))
        else:
            wanted = [self._calls.shard_of_source(arguments.text(source, "source"))]
        pages = entry_pages.EntryPages(wanted, after, source, limit, page_size)
        stale = levels.is_stale(consistency)
        return self._entries(pages, stale, arguments.seconds(timeout, self._connection.timeout))

    def _entries(self, pages: entry_pages.EntryPages, stale: bool, timeout: float) -> Iterator[LogEntry]:
        while (wanted := pages.request()) is not None:
            asked, size = wanted
            found = self._calls.entries(asked, size, stale, timeout).wait()
            for entry in pages.feed(asked, found):
                yield entry
