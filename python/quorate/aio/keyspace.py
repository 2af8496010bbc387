"""A keyspace whose operations are awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import answers, arguments, levels, sharding
from quorate.aio.entries import Entry, WriteResult
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
    """A keyspace of a cluster; got from ``await connection.keyspace(name)``. See `quorate.Keyspace`."""

    def __init__(self, connection: AsyncOwner, info: KeyspaceInfo) -> None:
        self._connection = connection
        self._info = info

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

    @sharding.only_in_consensus
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
        """Write a value; see `quorate.Keyspace.put`.

        Without a context it replaces what its coordinating replica sees, which may have missed writes: they stay as
        siblings. To replace what was read, read at QUORUM and pass ``context=entry.context``.
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await connection._client.put_async(
            self._info.id,
            raw_key,
            arguments.value_bytes(value),
            arguments.seen(context),
            levels.to_wire(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        )
        return answers.written(WriteResult, raw_key, raw, connection.trace)

    async def get(
        self,
        key: str | bytes,
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
        node: str | None = None,
    ) -> Entry:
        """Read a key; see `quorate.Keyspace.get`."""
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await connection._client.get_async(
            self._info.id,
            raw_key,
            levels.to_wire(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
            None if node is None else node_number(node),
        )
        return answers.entry(Entry, raw_key, raw, connection.trace)

    @sharding.only_in_consensus
    async def delete(
        self,
        key: str | bytes,
        *,
        context: Context | None = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
    ) -> WriteResult:
        """Delete a key by writing a tombstone; see `quorate.Keyspace.delete`.

        Without a context it removes what its coordinating replica sees, which may have missed writes: their values are
        still there afterwards. To delete what was read, read at QUORUM and pass ``context=entry.context``.
        """
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await connection._client.put_async(
            self._info.id,
            raw_key,
            None,
            arguments.seen(context),
            levels.to_wire(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        )
        return answers.written(WriteResult, raw_key, raw, connection.trace)

    @sharding.only_in_consensus
    async def put_many(
        self,
        items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
    ) -> dict[KeyT, WriteResult]:
        """Write many values, many at a time; see `quorate.Keyspace.put_many`."""
        pairs, batches = arguments.put_batches(items)
        level = levels.to_wire(consistency)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws = []
        for part in batches:
            raws += await self._connection._client.put_many_async(self._info.id, part, level, limit)
        return answers.written_batch(WriteResult, pairs, raws, self._connection.trace)

    async def get_many(
        self,
        keys: Iterable[KeyT],
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        node: str | None = None,
    ) -> dict[KeyT, Entry]:
        """Read many keys, many at a time; see `quorate.Keyspace.get_many`."""
        wanted, batches = arguments.get_batches(keys)
        level = levels.to_wire(consistency)
        number = None if node is None else node_number(node)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws = []
        for part in batches:
            raws += await self._connection._client.get_many_async(self._info.id, part, level, limit, number)
        return answers.entry_batch(Entry, wanted, raws, self._connection.trace)

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
        """Walk the live keys in the order of their bytes, with ``async for``; see `quorate.Keyspace.scan`."""
        pages = arguments.Pages(start, end, prefix, limit, page_size)
        level = levels.to_wire(consistency)
        return self._scan(pages, level, arguments.seconds(timeout, self._connection.timeout))

    async def _scan(
        self, pages: arguments.Pages, level: str | None, timeout: float
    ) -> AsyncIterator[tuple[str, Entry]]:
        client, more = self._connection._client, pages.wanted
        while more:
            page = await client.scan_async(self._info.id, *pages.request(), level, timeout)
            for key, raw in page.entries:
                yield answers.key_text(key), answers.entry(Entry, key, raw, self._connection.trace)
            more = pages.advance(len(page.entries), page.next)

    async def nodes_for_key(self, key: str | bytes) -> tuple[str, ...]:
        """List the nodes that store a key; see `quorate.Keyspace.nodes_for_key`."""
        return await self._connection.nodes_for_key(self.name, key)

    def __repr__(self) -> str:
        info = self._info
        return f"<Keyspace {info.name!r}: {info.replicas} replicas, read {info.read}, write {info.write}>"
