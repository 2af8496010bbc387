# Generated from aio/keyspace.py by python/generate_sync.py: change that file, then run it.
"""A keyspace in quorum mode: keys and values that every replica accepts, with a consistency level per operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import answers, arguments, levels, modes, rendering
from quorate.arguments import key_bytes, node_number
from quorate.results import Entry, WriteResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from quorate._quorate import Context
    from quorate.arguments import KeyT
    from quorate.levels import Consistency, Level
    from quorate.owner import Owner
    from quorate.topology import KeyspaceInfo

__all__ = ["Keyspace"]


class Keyspace:
    """A leaderless keyspace with tunable consistency, returned by ``cluster.keyspace(name)``.

    Keys are text (encoded as UTF-8) or bytes, up to 1 KiB; values are text or bytes, up to 1 MiB. Every operation takes
    a consistency level or a number of replicas, and a timeout in seconds.

    Examples
    --------
    >>> import quorate
    >>> from quorate import ALL, ONE
    >>> with quorate.Cluster(nodes=3) as cluster:
    ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
    ...     written = users.put("user-123", "Ada", consistency=ALL)
    ...     users.get("user-123", consistency=ONE).text
    'Ada'
    """

    def __init__(self, connection: Owner, info: KeyspaceInfo) -> None:
        self._connection = connection
        self._info = info
        self._calls = connection._client.quorum(info.id, info.name, info.replicas)

    @property
    def name(self) -> str:
        """Its name."""
        return self._info.name

    @property
    def replicas(self) -> int:
        """N, the number of nodes that store each key."""
        return self._info.replicas

    @property
    def read(self) -> Level | int:
        """The default level of reads."""
        return self._info.read

    @property
    def write(self) -> Level | int:
        """The default level of writes."""
        return self._info.write

    @property
    def info(self) -> KeyspaceInfo:
        """All its settings."""
        return self._info

    @modes.rejects_arguments_of_consensus
    def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        context: Context | None = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
    ) -> WriteResult:
        """Write a value to all replicas. Returns when as many as the level requires have stored it durably.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        value : str or bytes
            Up to 1 MiB.
        context : Context, optional
            The versions that the writer has read (``entry.context``): the put replaces exactly these, and becomes a
            sibling of concurrent writes. Without a context it replaces the versions in its coordinating replica's copy;
            see the notes.
        consistency : Level, str or int, optional
            How many replicas to wait for; the keyspace's write level by default.
        timeout : float, optional
            Seconds.
        trace : bool
            Record the spans of this operation in every process; see `WriteResult.trace`.

        Returns
        -------
        WriteResult
            Its version, the replicas that acknowledged it, the latency.

        Raises
        ------
        Unavailable
            Too few replicas are reachable; nothing was written.
        OutcomeUnknown
            The operation timed out; the write may or may not take effect.
        LimitExceeded
            The key or the value is too large.

        Notes
        -----
        A put without a context replaces the versions in its coordinating replica's own copy, and no others. Writes that
        this replica has missed, for example because it was down, stay as siblings of the new value, whatever the level.
        To replace all versions in the cluster, read at QUORUM and pass the entry's context.

        Examples
        --------
        >>> import quorate
        >>> from quorate import QUORUM
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
        ...     written = users.put("user-123", "Ada")
        ...     entry = users.get("user-123", consistency=QUORUM)
        ...     written = users.put("user-123", "Ada Lovelace", context=entry.context)
        ...     users.get("user-123", consistency=QUORUM).text
        'Ada Lovelace'
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = self._calls.put(
            raw_key,
            arguments.value_bytes(value),
            arguments.seen(context),
            levels.checked(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        ).wait()
        return WriteResult(raw, raw_key, connection)

    def get(
        self,
        key: str | bytes,
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
        node: str | None = None,
    ) -> Entry:
        """Read a key from as many replicas as the level requires.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        consistency : Level, str or int, optional
            How many replicas to wait for; the keyspace's read level by default.
        timeout : float, optional
            Seconds.
        trace : bool
            Record the spans of this operation in every process; see `Entry.trace`.
        node : str, optional
            Send the request to this node only; at ONE it returns its own copy, if it stores the key.

        Returns
        -------
        Entry
            Its value (or siblings), its version, and the replicas that responded.

        Raises
        ------
        Unavailable
            Too few replicas are reachable.
        ReadTimeout
            The operation timed out.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
        ...     written = users.put("user-123", "Ada")
        ...     users.get("user-123").text
        ...     users.get("user-456").found
        'Ada'
        False
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = self._calls.get(
            raw_key,
            levels.checked(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
            None if node is None else node_number(node),
        ).wait()
        return Entry(raw, raw_key, connection)

    @modes.rejects_arguments_of_consensus
    def delete(
        self,
        key: str | bytes,
        *,
        context: Context | None = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
    ) -> WriteResult:
        """Delete a key by writing a tombstone; deleting an absent key is no error.

        Parameters
        ----------
        key : str or bytes
            Up to 1 KiB.
        context : Context, optional
            The versions that the writer has read (``entry.context``): the delete removes exactly these. Without a
            context it removes the versions in its coordinating replica's copy; see the notes.
        consistency : Level, str or int, optional
            How many replicas to wait for; the keyspace's write level by default.
        timeout : float, optional
            Seconds.
        trace : bool
            Record the spans of this operation in every process.

        Returns
        -------
        WriteResult
            As in `put`.

        Raises
        ------
        Unavailable
            Too few replicas are reachable; nothing was written.
        OutcomeUnknown
            The operation timed out; the delete may or may not take effect.

        Notes
        -----
        A delete without a context removes the versions in its coordinating replica's own copy, and no others. If that
        replica has missed a write, for example because it was down, the value of that write remains, even if the delete
        was acknowledged at QUORUM or ALL. To delete all versions in the cluster, read at QUORUM and pass the entry's
        context.

        Examples
        --------
        >>> import quorate
        >>> from quorate import QUORUM
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
        ...     written = users.put("user-123", "Ada")
        ...     entry = users.get("user-123", consistency=QUORUM)
        ...     deleted = users.delete("user-123", context=entry.context)
        ...     users.get("user-123", consistency=QUORUM).found
        False
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = self._calls.put(
            raw_key,
            None,
            arguments.seen(context),
            levels.checked(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        ).wait()
        return WriteResult(raw, raw_key, connection)

    @modes.rejects_arguments_of_consensus
    def put_many(
        self,
        items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        progress: bool | None = None,
    ) -> dict[KeyT, WriteResult]:
        """Write many values concurrently. Each is an independent put without a context; the batch is not atomic.

        Parameters
        ----------
        items : mapping, or iterable of pairs
            Keys and values.
        consistency : Level, str or int, optional
            As in `put`.
        timeout : float, optional
            Seconds for each write.
        progress : bool, optional
            Whether to show a progress bar after one second; by default if stderr is a terminal.

        Returns
        -------
        dict
            The results by key.

        Raises
        ------
        PartialFailure
            Some failed; it holds the results of the others.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
        ...     written = users.put_many({"user-1": "Ada", "user-2": "Grace"})
        ...     users.get("user-2").text
        'Grace'
        """
        named, batches = arguments.put_batches(items)
        level = levels.checked(consistency)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws: list[object] = []
        with rendering.tracker(f"put {self.name}", len(named.raws), show=progress) as advance:
            for part in batches:
                raws += self._calls.put_many(part, level, limit).wait()
                advance(len(part))
        return answers.batch("writes", WriteResult, named, raws, self._connection)

    def get_many(
        self,
        keys: Iterable[KeyT],
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        node: str | None = None,
        progress: bool | None = None,
    ) -> dict[KeyT, Entry]:
        """Read many keys concurrently.

        Parameters
        ----------
        keys : iterable of str or bytes
            The keys.
        consistency : Level, str or int, optional
            As in `get`.
        timeout : float, optional
            Seconds for each read.
        node : str, optional
            As in `get`.
        progress : bool, optional
            Whether to show a progress bar after one second; by default if stderr is a terminal.

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
        ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
        ...     written = users.put("user-1", "Ada")
        ...     found = users.get_many(["user-1", "user-2"])
        ...     {key: entry.text for key, entry in found.items()}
        {'user-1': 'Ada', 'user-2': None}
        """
        named, batches = arguments.get_batches(keys)
        level = levels.checked(consistency)
        number = None if node is None else node_number(node)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws: list[object] = []
        with rendering.tracker(f"get {self.name}", len(named.raws), show=progress) as advance:
            for part in batches:
                raws += self._calls.get_many(part, level, limit, number).wait()
                advance(len(part))
        return answers.batch("reads", Entry, named, raws, self._connection)

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
    ) -> Iterator[tuple[str, Entry]]:
        """Iterate over the live keys in byte order.

        Keys that are not UTF-8 have lone surrogates in place of the invalid bytes, and are accepted in this form.

        Parameters
        ----------
        start : str or bytes, optional
            Inclusive lower bound; unbounded by default.
        end : str or bytes, optional
            Exclusive upper bound; unbounded by default.
        prefix : str or bytes, optional
            Only keys with this prefix; excludes ``start`` and ``end``.
        consistency : Level, str or int, optional
            As in `get`.
        timeout : float, optional
            Seconds for each page.
        limit : int, optional
            Maximum number of entries; unlimited by default.
        page_size : int
            Entries per page.

        Yields
        ------
        tuple of str and Entry
            Key and entry.

        Raises
        ------
        Unavailable
            Too few replicas are reachable for some of the keys.
        ReadTimeout
            The operation timed out.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
        ...     written = users.put_many({"user-2": "Grace", "user-1": "Ada", "admin": "Alan"})
        ...     [(key, entry.text) for key, entry in users.scan(prefix="user-")]
        [('user-1', 'Ada'), ('user-2', 'Grace')]
        """
        pages = arguments.Pages(start, end, prefix, limit, page_size)
        level = levels.checked(consistency)
        return self._scan(pages, level, arguments.seconds(timeout, self._connection.timeout))

    def _scan(
        self, pages: arguments.Pages, level: str | int | None, timeout: float
    ) -> Iterator[tuple[str, Entry]]:
        more = pages.wanted
        while more:
            page = self._calls.scan(*pages.request(), level, timeout).wait()
            for key, raw in page.entries:
                yield answers.key_text(key[0]), Entry(raw, key, self._connection)
            more = pages.advance(len(page.entries), page.next)

    def nodes_for_key(self, key: str | bytes) -> tuple[str, ...]:
        """List the nodes that store a key, the most preferred one first.

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
        ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
        ...     sorted(users.nodes_for_key("user-123"))
        ['n1', 'n2', 'n3']
        """
        return self._connection.nodes_for_key(self.name, key)

    def __repr__(self) -> str:
        info = self._info
        return f"<Keyspace {info.name!r}: {info.replicas} replicas, read {info.read}, write {info.write}>"
