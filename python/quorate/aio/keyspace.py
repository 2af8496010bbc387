"""A keyspace whose operations are awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import levels, operations
from quorate.aio.entries import Entry, WriteResult
from quorate.ring import key_bytes, node_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from quorate._quorate import Context
    from quorate.aio.connection import Connection
    from quorate.levels import Consistency, Level
    from quorate.operations import KeyT
    from quorate.topology import KeyspaceInfo

__all__ = ["Keyspace"]


class Keyspace:
    """A keyspace of a cluster; got from ``await connection.keyspace(name)``. See `quorate.Keyspace`."""

    def __init__(self, connection: Connection, info: KeyspaceInfo) -> None:
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
        """Write a value; see `quorate.Keyspace.put`."""
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await connection._client.put_async(
            self._info.id,
            raw_key,
            operations.value_bytes(value),
            context,
            levels.to_wire(consistency),
            operations.seconds(timeout, connection.timeout),
            trace,
        )
        return operations.written(WriteResult, raw_key, raw, connection.trace)

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
            operations.seconds(timeout, connection.timeout),
            trace,
            None if node is None else node_number(node),
        )
        return operations.entry(Entry, raw_key, raw, connection.trace)

    async def delete(
        self,
        key: str | bytes,
        *,
        context: Context | None = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
    ) -> WriteResult:
        """Delete a key by writing a tombstone; see `quorate.Keyspace.delete`."""
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await connection._client.put_async(
            self._info.id,
            raw_key,
            None,
            context,
            levels.to_wire(consistency),
            operations.seconds(timeout, connection.timeout),
            trace,
        )
        return operations.written(WriteResult, raw_key, raw, connection.trace)

    async def put_many(
        self,
        items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
    ) -> dict[KeyT, WriteResult]:
        """Write many values, many at a time; see `quorate.Keyspace.put_many`."""
        pairs, batches = operations.put_batches(items)
        level = levels.to_wire(consistency)
        limit = operations.seconds(timeout, self._connection.timeout)
        raws = []
        for part in batches:
            raws += await self._connection._client.put_many_async(self._info.id, part, level, limit)
        return operations.written_batch(WriteResult, pairs, raws, self._connection.trace)

    async def get_many(
        self,
        keys: Iterable[KeyT],
        *,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        node: str | None = None,
    ) -> dict[KeyT, Entry]:
        """Read many keys, many at a time; see `quorate.Keyspace.get_many`."""
        wanted, batches = operations.get_batches(keys)
        level = levels.to_wire(consistency)
        number = None if node is None else node_number(node)
        limit = operations.seconds(timeout, self._connection.timeout)
        raws = []
        for part in batches:
            raws += await self._connection._client.get_many_async(self._info.id, part, level, limit, number)
        return operations.entry_batch(Entry, wanted, raws, self._connection.trace)

    def scan(
        self,
        start: str | bytes | None = None,
        end: str | bytes | None = None,
        *,
        prefix: str | bytes | None = None,
        consistency: Consistency | None = None,
        timeout: float | None = None,
        page_size: int = 256,
    ) -> AsyncIterator[tuple[str, Entry]]:
        """Walk the live keys in the order of their bytes, with ``async for``; see `quorate.Keyspace.scan`."""
        cursor, stop = operations.scan_range(start, end, prefix)
        level = levels.to_wire(consistency)
        limit = operations.seconds(timeout, self._connection.timeout)
        return self._pages(cursor, stop, level, limit, operations.page_limit(page_size))

    async def _pages(
        self,
        cursor: bytes | None,
        stop: bytes | None,
        level: str | None,
        timeout: float,
        limit: int,
    ) -> AsyncIterator[tuple[str, Entry]]:
        client, after = self._connection._client, False
        while True:
            page = await client.scan_async(self._info.id, cursor, stop, after, limit, level, timeout)
            for key, raw in page.entries:
                yield operations.key_text(key), operations.entry(Entry, key, raw, self._connection.trace)
            if page.next is None:
                return
            cursor, after = page.next, True

    async def nodes_for_key(self, key: str | bytes) -> tuple[str, ...]:
        """List the nodes that store a key; see `quorate.Keyspace.nodes_for_key`."""
        return await self._connection.nodes_for_key(self.name, key)

    def __repr__(self) -> str:
        info = self._info
        return f"<Keyspace {info.name!r}: {info.replicas} replicas, read {info.read}, write {info.write}>"
