# Generated from aio/consensus.py by python/generate_sync.py: change that file, then run it.
"""A consensus keyspace: linearizable keys and values, and logs of entries, on Raft groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import answers, arguments, conditions, levels, modes
from quorate.arguments import key_bytes, node_number
from quorate.entry_log import EntryLog
from quorate.results import Commit, ConsensusEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from quorate.arguments import KeyT
    from quorate.levels import ReadConsistency
    from quorate.topology import KeyspaceInfo

__all__ = ["ConsensusKeyspace"]


class ConsensusKeyspace(EntryLog):
    """A linearizable keyspace on Raft groups, returned by ``cluster.keyspace(name, mode="consensus")``.

    Its keys are distributed over ``shards`` Raft groups. A write is committed when a majority of its group has stored
    it durably. A read sees every write that was acknowledged before it began, unless its level is STALE. Operations on
    one key, and on the keys of one shard, are linearizable; an operation across several shards is consistent within
    each of them only.

    A client retries until the deadline, also across leader changes, and a write is executed once however often it is
    sent.

    Keys are text (encoded as UTF-8) or bytes, up to 1 KiB; values are text or bytes, up to 1 MiB.

    Examples
    --------
    >>> import quorate
    >>> from quorate import ConditionFailed
    >>> with quorate.Cluster(nodes=3) as cluster:
    ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3, shards=4)
    ...     opened = accounts.put("ada", "100", if_absent=True)
    ...     changed = accounts.put("ada", "90", if_version=opened.version)
    ...     try:
    ...         accounts.put("ada", "80", if_version=opened.version)
    ...     except ConditionFailed as error:
    ...         assert error.current == changed.version
    ...     accounts.get("ada").text
    '90'
    """

    @property
    def name(self) -> str:
        """Its name."""
        return self._info.name

    @property
    def replicas(self) -> int:
        """Number of members of each shard's group."""
        return self._info.replicas

    @property
    def shards(self) -> int:
        """Number of Raft groups that share the keys."""
        return self._info.shards

    @property
    def info(self) -> KeyspaceInfo:
        """All its settings."""
        return self._info

    def shard_of(self, key: str | bytes) -> int:
        """Compute the shard of a key.

        Parameters
        ----------
        key : str or bytes
            The key.

        Returns
        -------
        int
            The shard's number, from 0; its group is ``info.groups[shard]``.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3, shards=4)
        ...     written = accounts.put("ada", "100")
        ...     accounts.shard_of("ada") == written.shard
        True
        """
        return self._calls.shard_of(key_bytes(key))

    @modes.rejects_arguments_of_quorum
    def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        if_version: int | None = None,
        if_absent: bool = False,
        timeout: float | None = None,
        trace: bool = False,
    ) -> Commit:
        """Write a value. Returns when a majority of the key's group has stored it durably and it was executed.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        value : str or bytes
            Up to 1 MiB.
        if_version : int, optional
            Write only if this is the key's version (``entry.version``); 0 if it must be absent.
        if_absent : bool
            Write only if the key is absent.
        timeout : float, optional
            Seconds, including retries; retried across leader changes.
        trace : bool
            Record the spans of this operation in every process; see `Commit.trace`.

        Returns
        -------
        Commit
            Its version, the leader, the latency.

        Raises
        ------
        ConditionFailed
            The condition does not hold; the error names the key's version. Nothing was written.
        Unavailable
            No majority of the group is reachable; nothing was written.
        OutcomeUnknown
            The operation timed out; the write may or may not take effect.
        SessionExpired
            The response was lost and the group no longer keeps it; the write will not be executed again.
        LimitExceeded
            The key or the value is too large.

        Examples
        --------
        >>> from quorate import Cluster
        >>> with Cluster(nodes=3) as cluster:
        ...     counters = cluster.keyspace("counters", mode="consensus", replicas=3)
        ...     for _ in range(3):
        ...         entry = counters.get("visits")
        ...         written = counters.put("visits", str(int(entry.text or 0) + 1), if_version=entry.version)
        ...     counters.get("visits").text
        '3'
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = self._calls.put(
            raw_key,
            arguments.value_bytes(value),
            conditions.expected(if_version, if_absent),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        ).wait()
        return Commit(raw, raw_key, connection)

    @modes.rejects_arguments_of_quorum
    def delete(
        self,
        key: str | bytes,
        *,
        if_version: int | None = None,
        timeout: float | None = None,
        trace: bool = False,
    ) -> Commit:
        """Delete a key; deleting an absent key is no error.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        if_version : int, optional
            Delete only if this is the key's version (``entry.version``).
        timeout : float, optional
            Seconds, including retries.
        trace : bool
            Record the spans of this operation in every process.

        Returns
        -------
        Commit
            As in `put`.

        Raises
        ------
        ConditionFailed
            The key has another version; nothing was deleted.
        Unavailable
            No majority of the group is reachable; nothing was deleted.
        OutcomeUnknown
            The operation timed out; the delete may or may not take effect.
        SessionExpired
            As in `put`.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3)
        ...     written = accounts.put("ada", "100")
        ...     deleted = accounts.delete("ada", if_version=written.version)
        ...     accounts.get("ada").found
        False
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = self._calls.put(
            raw_key,
            None,
            conditions.expected(if_version, if_absent=False),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        ).wait()
        return Commit(raw, raw_key, connection)

    @modes.rejects_arguments_of_quorum
    def put_many(
        self,
        items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
        *,
        if_version: Mapping[KeyT, int] | None = None,
        if_absent: bool | Iterable[KeyT] = False,
        atomic: bool = True,
        timeout: float | None = None,
    ) -> dict[KeyT, Commit]:
        """Write many values: atomic within each shard, independent across shards.

        A condition that does not hold rejects all values of its key's shard, and no others: for conditions that must
        hold together, use one shard.

        Parameters
        ----------
        items : mapping, or iterable of pairs
            Keys and values, each key once; up to 1.25 MiB in total per shard if ``atomic``.
        if_version : mapping, optional
            Required versions of some of the keys (``entry.version``); 0 for a key that must be absent.
        if_absent : bool or iterable of keys
            Whether all keys must be absent, or the keys that must be absent.
        atomic : bool
            Whether all values of one shard are written or none. If false, they are written in parts, each of which is
            atomic and rejected by its own conditions, so that any number of values can be written.
        timeout : float, optional
            Seconds.

        Returns
        -------
        dict
            The results by key; keys of one shard have the same version.

        Raises
        ------
        PartialFailure
            Some shards failed; it holds the results of the others. Where a condition does not hold, all keys of its
            shard have its `ConditionFailed`, which names the key of the condition and its version.
        LimitExceeded
            One shard's part is too large. Nothing was written.

        Examples
        --------
        >>> import quorate
        >>> from quorate import PartialFailure
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3)
        ...     opened = accounts.put_many({"ada": "100", "bob": "0"}, if_absent=True)
        ...     versions = {key: commit.version for key, commit in opened.items()}
        ...     moved = accounts.put_many({"ada": "90", "bob": "10"}, if_version=versions)
        ...     try:
        ...         accounts.put_many({"ada": "80", "bob": "20"}, if_version=versions)
        ...     except PartialFailure as error:
        ...         assert error.failed["bob"].current == moved["ada"].version
        ...     accounts.get("bob").text
        '10'
        """
        named, coded = conditions.conditional(items, if_version, if_absent)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws = self._calls.put_many(coded, arguments.switch(atomic, "atomic"), limit).wait()
        return answers.batch("writes", Commit, named, raws, self._connection)

    def get(
        self,
        key: str | bytes,
        *,
        consistency: ReadConsistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
        node: str | None = None,
    ) -> ConsensusEntry:
        """Read a key.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        consistency : ReadLevel or str, optional
            LINEARIZABLE (the default) sees every write that was acknowledged before; STALE reads the state of one
            member, also without a majority, and the entry has a bound on its age.
        timeout : float, optional
            Seconds, including retries.
        trace : bool
            Record the spans of this operation in every process; see `ConsensusEntry.trace`.
        node : str, optional
            Send the request to this node only. It forwards requests that it cannot answer itself.

        Returns
        -------
        ConsensusEntry
            Its value, its version, and the node that was read.

        Raises
        ------
        Unavailable
            No majority of the group is reachable.
        ReadTimeout
            The operation timed out.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3)
        ...     written = accounts.put("ada", "100")
        ...     entry = accounts.get("ada")
        ...     entry.text, entry.version == written.version
        ('100', True)
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = self._calls.get(
            raw_key,
            levels.is_stale(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
            None if node is None else node_number(node),
        ).wait()
        return ConsensusEntry(raw, raw_key, connection)

    def get_many(
        self,
        keys: Iterable[KeyT],
        *,
        consistency: ReadConsistency | None = None,
        timeout: float | None = None,
        node: str | None = None,
    ) -> dict[KeyT, ConsensusEntry]:
        """Read many keys concurrently.

        Parameters
        ----------
        keys : iterable of str or bytes
            The keys.
        consistency : ReadLevel or str, optional
            As in `get`.
        timeout : float, optional
            Seconds for each read.
        node : str, optional
            As in `get`.

        Returns
        -------
        dict
            The entries by key; entries of absent keys have ``found == False``.

        Raises
        ------
        PartialFailure
            Some failed; it holds the entries of the others.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3)
        ...     written = accounts.put("ada", "100")
        ...     found = accounts.get_many(["ada", "bob"])
        ...     {key: entry.text for key, entry in found.items()}
        {'ada': '100', 'bob': None}
        """
        named, batches = arguments.get_batches(keys)
        stale = levels.is_stale(consistency)
        number = None if node is None else node_number(node)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws: list[object] = []
        for part in batches:
            raws += self._calls.get_many(part, stale, limit, number).wait()
        return answers.batch("reads", ConsensusEntry, named, raws, self._connection)

    def scan(
        self,
        start: str | bytes | None = None,
        end: str | bytes | None = None,
        *,
        prefix: str | bytes | None = None,
        consistency: ReadConsistency | None = None,
        timeout: float | None = None,
        limit: int | None = None,
        page_size: int = 256,
    ) -> Iterator[tuple[str, ConsensusEntry]]:
        """Iterate over the keys of all shards in byte order.

        Each page is a consistent snapshot within each shard. Keys that are not UTF-8 have lone surrogates in place of
        the invalid bytes, and are accepted in this form.

        Parameters
        ----------
        start : str or bytes, optional
            Inclusive lower bound; unbounded by default.
        end : str or bytes, optional
            Exclusive upper bound; unbounded by default.
        prefix : str or bytes, optional
            Only keys with this prefix; excludes ``start`` and ``end``.
        consistency : ReadLevel or str, optional
            As in `get`.
        timeout : float, optional
            Seconds for each page.
        limit : int, optional
            Maximum number of entries; unlimited by default.
        page_size : int
            Entries per page, across all shards.

        Yields
        ------
        tuple of str and ConsensusEntry
            Key and entry.

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
        ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3, shards=4)
        ...     written = accounts.put_many({"cy": "5", "bob": "0", "ada": "100"})
        ...     [(key, entry.text) for key, entry in accounts.scan(end="c")]
        [('ada', '100'), ('bob', '0')]
        """
        pages = arguments.Pages(start, end, prefix, limit, page_size)
        stale = levels.is_stale(consistency)
        return self._scan(pages, stale, arguments.seconds(timeout, self._connection.timeout))

    def _scan(
        self, pages: arguments.Pages, stale: bool, timeout: float
    ) -> Iterator[tuple[str, ConsensusEntry]]:
        more = pages.wanted
        while more:
            page = self._calls.scan(*pages.request(), stale, timeout).wait()
            for key, raw in page.entries:
                yield answers.key_text(key[0]), ConsensusEntry(raw, key, self._connection)
            more = pages.advance(len(page.entries), page.next)

    def nodes_for_key(self, key: str | bytes) -> tuple[str, ...]:
        """List the members of a key's group, in the ring's order of preference.

        Parameters
        ----------
        key : str or bytes
            The key.

        Returns
        -------
        tuple of str
            One name per replica.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3)
        ...     sorted(accounts.nodes_for_key("ada"))
        ['n1', 'n2', 'n3']
        """
        return self._info.groups[self.shard_of(key)].members

    def __repr__(self) -> str:
        info = self._info
        of = "shard" if info.shards == 1 else "shards"
        return f"<ConsensusKeyspace {info.name!r}: {info.replicas} replicas, {info.shards} {of}>"
