"""A keyspace in quorum mode: keys and values that every replica accepts, with a consistency level per operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import answers, arguments, levels, modes, rendering
from quorate.aio.results import Entry, WriteResult
from quorate.arguments import key_bytes, node_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from quorate._quorate import Context
    from quorate.arguments import KeyT
    from quorate.levels import Consistency, Level
    from quorate.owner import AsyncOwner
    from quorate.topology import KeyspaceInfo

__all__ = ["Keyspace"]


class Keyspace:
    """A keyspace of a cluster; got from ``cluster.keyspace(name)``.

    Keys are text (coded as UTF-8) or bytes, up to 1 KiB; values are text or bytes, up to 1 MiB. Every operation takes
    a consistency level or a number of replicas, and a timeout in seconds.

    Examples
    --------
    >>> import quorate
    >>> from quorate import ALL, ONE
    >>> async with quorate.aio.Cluster(nodes=3) as cluster:
    ...     users = await cluster.keyspace("users", mode="quorum", replicas=3)
    ...     written = await users.put("user-123", "Ada", consistency=ALL)
    ...     (await users.get("user-123", consistency=ONE)).text
    'Ada'
    """

    def __init__(self, connection: AsyncOwner, info: KeyspaceInfo) -> None:
        self._connection = connection
        self._info = info
        self._calls = connection._client.quorum(info.id, info.name, info.replicas)

    @property
    def name(self) -> str:
        """Its name."""
        return self._info.name

    @property
    def replicas(self) -> int:
        """N, how many nodes store each key."""
        return self._info.replicas

    @property
    def read(self) -> Level | int:
        """The level of reads that name none."""
        return self._info.read

    @property
    def write(self) -> Level | int:
        """The level of writes that name none."""
        return self._info.write

    @property
    def info(self) -> KeyspaceInfo:
        """All its settings."""
        return self._info

    @modes.rejects_arguments_of_consensus
    async def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        context: Context | None = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
    ) -> WriteResult:
        """Write a value. It goes to all replicas; the call returns when as many as the level asks for have it durably.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        value : str or bytes
            Up to 1 MiB.
        context : Context, optional
            What the writer has seen (``entry.context``): the put replaces exactly that, and becomes a sibling of what
            was written concurrently. Without it, it replaces what its coordinating replica sees; see the notes.
        consistency : Level, str or int, optional
            How many replicas to wait for; the keyspace's write level by default.
        timeout : float, optional
            Seconds.
        trace : bool
            Whether to record what every process does for it; see `WriteResult.trace`.

        Returns
        -------
        WriteResult
            Its version, the replicas that acknowledged it, the latency.

        Raises
        ------
        Unavailable
            Too few replicas are alive; nothing was written.
        OutcomeUnknown
            The time was up; the write may or may not take effect.
        LimitExceeded
            The key or the value is too large.

        Notes
        -----
        A put without a context replaces what its coordinating replica sees in its own copy, and nothing else. A replica
        that has missed writes, for example because it was down, does not know of them: they stay, as siblings of what
        is put, whatever the level. To replace what the cluster has, read at QUORUM and pass the entry's context.

        Examples
        --------
        >>> import quorate
        >>> from quorate import QUORUM
        >>> async with quorate.aio.Cluster(nodes=3) as cluster:
        ...     users = await cluster.keyspace("users", mode="quorum", replicas=3)
        ...     written = await users.put("user-123", "Ada")
        ...     entry = await users.get("user-123", consistency=QUORUM)
        ...     written = await users.put("user-123", "Ada Lovelace", context=entry.context)
        ...     (await users.get("user-123", consistency=QUORUM)).text
        'Ada Lovelace'
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await self._calls.put(
            raw_key,
            arguments.value_bytes(value),
            arguments.seen(context),
            levels.checked(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        )
        return WriteResult(raw, raw_key, connection)

    async def get(
        self,
        key: str | bytes,
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
        node: str | None = None,
    ) -> Entry:
        """Read a key from as many replicas as the level asks for.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        consistency : Level, str or int, optional
            How many replicas to wait for; the keyspace's read level by default.
        timeout : float, optional
            Seconds.
        trace : bool
            Whether to record what every process does for it; see `Entry.trace`.
        node : str, optional
            Ask this node and no other; at ONE it answers with what it has itself, if it stores the key.

        Returns
        -------
        Entry
            Its value (or siblings), version, and the replicas that answered.

        Raises
        ------
        Unavailable
            Too few replicas are alive.
        ReadTimeout
            The time was up.
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await self._calls.get(
            raw_key,
            levels.checked(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
            None if node is None else node_number(node),
        )
        return Entry(raw, raw_key, connection)

    @modes.rejects_arguments_of_consensus
    async def delete(
        self,
        key: str | bytes,
        *,
        context: Context | None = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
    ) -> WriteResult:
        """Delete a key by writing a tombstone; deleting what is not there is no error.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        context : Context, optional
            What the writer has seen (``entry.context``): the delete removes exactly that. Without it, it removes what
            its coordinating replica sees; see the notes.
        consistency : Level, str or int, optional
            How many replicas to wait for; the keyspace's write level by default.
        timeout : float, optional
            Seconds.
        trace : bool
            Whether to record what every process does for it.

        Returns
        -------
        WriteResult
            As of a put.

        Raises
        ------
        Unavailable
            Too few replicas are alive; nothing was written.
        OutcomeUnknown
            The time was up; the delete may or may not take effect.

        Notes
        -----
        A delete without a context removes what its coordinating replica sees in its own copy, and nothing else. If that
        replica has missed a write, for example because it was down, the value of that write is still there afterwards,
        even when QUORUM or ALL has acknowledged the delete. To delete what the cluster has, read at QUORUM and pass the
        entry's context.

        Examples
        --------
        >>> import quorate
        >>> from quorate import QUORUM
        >>> async with quorate.aio.Cluster(nodes=3) as cluster:
        ...     users = await cluster.keyspace("users", mode="quorum", replicas=3)
        ...     written = await users.put("user-123", "Ada")
        ...     entry = await users.get("user-123", consistency=QUORUM)
        ...     deleted = await users.delete("user-123", context=entry.context)
        ...     (await users.get("user-123", consistency=QUORUM)).found
        False
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await self._calls.put(
            raw_key,
            None,
            arguments.seen(context),
            levels.checked(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        )
        return WriteResult(raw, raw_key, connection)

    @modes.rejects_arguments_of_consensus
    async def put_many(
        self,
        items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        progress: bool | None = None,
    ) -> dict[KeyT, WriteResult]:
        """Write many values, many at a time. Each is a put of its own, without a context: there is no all or nothing.

        Parameters
        ----------
        items : mapping, or iterable of pairs
            Keys and values.
        consistency : Level, str or int, optional
            As of a put.
        timeout : float, optional
            Seconds for each write.
        progress : bool, optional
            Whether a progress bar may appear after a second; by default when stderr is a terminal.

        Returns
        -------
        dict
            The results by key.

        Raises
        ------
        PartialFailure
            Some failed; it holds the results of the others.
        """
        pairs, batches = arguments.put_batches(items)
        level = levels.checked(consistency)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws: list[object] = []
        with rendering.tracker(f"put {self.name}", len(pairs), show=progress) as advance:
            for part in batches:
                raws += await self._calls.put_many(part, level, limit)
                advance(len(part))
        return answers.batch("writes", WriteResult, pairs, raws, self._connection)

    async def get_many(
        self,
        keys: Iterable[KeyT],
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        node: str | None = None,
        progress: bool | None = None,
    ) -> dict[KeyT, Entry]:
        """Read many keys, many at a time.

        Parameters
        ----------
        keys : iterable of str or bytes
            The keys.
        consistency : Level, str or int, optional
            As of a get.
        timeout : float, optional
            Seconds for each read.
        node : str, optional
            As of a get.
        progress : bool, optional
            Whether a progress bar may appear after a second; by default when stderr is a terminal.

        Returns
        -------
        dict
            The entries by key; entries of absent keys have ``found == False``.

        Raises
        ------
        PartialFailure
            Some failed; it holds the entries of the others.
        """
        wanted, batches = arguments.get_batches(keys)
        level = levels.checked(consistency)
        number = None if node is None else node_number(node)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws: list[object] = []
        with rendering.tracker(f"get {self.name}", len(wanted), show=progress) as advance:
            for part in batches:
                raws += await self._calls.get_many(part, level, limit, number)
                advance(len(part))
        return answers.batch("reads", Entry, wanted, raws, self._connection)

    def scan(
        self,
        start: str | bytes | None = None,
        end: str | bytes | None = None,
        *,
        prefix: str | bytes | None = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        limit: int | None = None,
        page_size: int = 256,
    ) -> AsyncIterator[tuple[str, Entry]]:
        """Walk the live keys in the order of their bytes.

        Keys that are not UTF-8 come with lone surrogates in place of the offending bytes, and are taken back as such.

        Parameters
        ----------
        start : str or bytes, optional
            The first key; the beginning by default.
        end : str or bytes, optional
            The first key that is too far; the end by default.
        prefix : str or bytes, optional
            Only keys that begin with this, in place of ``start`` and ``end``.
        consistency : Level, str or int, optional
            As of a get.
        timeout : float, optional
            Seconds for each page.
        limit : int, optional
            At most so many entries; all by default.
        page_size : int
            Entries fetched at once.

        Yields
        ------
        tuple of str and Entry
            Key and entry.

        Raises
        ------
        Unavailable
            Too few replicas are alive for a part of the keys.
        ReadTimeout
            The time was up.
        """
        pages = arguments.Pages(start, end, prefix, limit, page_size)
        level = levels.checked(consistency)
        return self._scan(pages, level, arguments.seconds(timeout, self._connection.timeout))

    async def _scan(
        self, pages: arguments.Pages, level: str | int | None, timeout: float
    ) -> AsyncIterator[tuple[str, Entry]]:
        more = pages.wanted
        while more:
            page = await self._calls.scan(*pages.request(), level, timeout)
            for key, raw in page.entries:
                yield answers.key_text(key[0]), Entry(raw, key, self._connection)
            more = pages.advance(len(page.entries), page.next)

    async def nodes_for_key(self, key: str | bytes) -> tuple[str, ...]:
        """List the nodes that store a key, the most preferred one first.

        Parameters
        ----------
        key : str or bytes
            The key.

        Returns
        -------
        tuple of str
            As many names as the keyspace has replicas.
        """
        return await self._connection.nodes_for_key(self.name, key)

    def __repr__(self) -> str:
        info = self._info
        return f"<aio.Keyspace {info.name!r}: {info.replicas} replicas, read {info.read}, write {info.write}>"
