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
    """The log operations of a `quorate.ConsensusKeyspace`: append and list entries."""

    def __init__(self, connection: Owner, info: KeyspaceInfo, ring_hash: str) -> None:
        self._connection = connection
        self._info = info
        groups = [
            (group.id, [arguments.node_number(member) for member in group.members]) for group in info.groups
        ]
        self._calls = connection._client.consensus(info.id, info.name, groups, ring_hash)

    @modes.rejects_arguments_of_quorum
    def append(
        self,
        data: str | bytes,
        source: str = "",
        *,
        timeout: float | None = None,
        trace: bool = False,
    ) -> Appended:
        """Append an entry to the keyspace's log, which is separate from its keys. Entries are immutable.

        Parameters
        ----------
        data : str or bytes
            The content, up to 1 MiB.
        source : str
            Origin of the entry, up to 256 bytes. It determines the shard: entries of one source are totally ordered.
        timeout : float, optional
            Seconds, including retries.
        trace : bool
            Record the spans of this operation in every process; see `Appended.trace`.

        Returns
        -------
        Appended
            Its id, greater than the ids of all earlier entries of the shard; the term; the leader.

        Raises
        ------
        Unavailable
            No majority of the group is reachable; nothing was appended.
        OutcomeUnknown
            The operation timed out; the entry may or may not be appended.
        SessionExpired
            As in `put`.

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
        """Iterate over the log's entries.

        Entries of one shard, and so of one source, are ordered by id; several shards are merged by time, then shard,
        then id.

        Parameters
        ----------
        after : int or mapping
            Only entries with greater ids. Ids are per shard: to continue a listing of several shards, pass the last id
            of each, as in ``{0: 17, 1: 4}``.
        source : str, optional
            Only entries of this source; only its shard is read.
        limit : int, optional
            Maximum number of entries; unlimited by default.
        consistency : ReadLevel or str, optional
            As in `get`.
        timeout : float, optional
            Seconds for each page.
        page_size : int
            Entries per page, from each shard.

        Yields
        ------
        LogEntry
            Id, shard, term, time, source and data.

        Raises
        ------
        Unavailable
            No majority of a shard's group is reachable.
        ReadTimeout
            The operation timed out.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     events = cluster.keyspace("events", mode="consensus", replicas=3)
        ...     first = events.append("up", source="web")
        ...     second = events.append("down", source="web")
        ...     [entry.text for entry in events.entries(after=first.entry_id)]
        ['down']
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
