"""A consensus keyspace whose operations are awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import answers, arguments, levels, sharding
from quorate.aio.records import Appended, Commit, ConsensusEntry
from quorate.arguments import key_bytes, node_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from quorate.arguments import KeyT
    from quorate.levels import ReadConsistency
    from quorate.owner import AsyncOwner
    from quorate.records import LogEntry
    from quorate.topology import KeyspaceInfo

__all__ = ["ConsensusKeyspace"]


class ConsensusKeyspace:
    """A keyspace whose writes are agreed on; got from ``await connection.keyspace(name, mode="consensus")``.

    See `quorate.ConsensusKeyspace`.
    """

    def __init__(self, connection: AsyncOwner, info: KeyspaceInfo, ring_hash: str) -> None:
        self._connection = connection
        self._info = info
        self._shards = connection._client.consensus(info.id, info.name, sharding.groups(info), ring_hash)

    @property
    def name(self) -> str:
        """Its name."""
        return self._info.name

    @property
    def replicas(self) -> int:
        """How many nodes are members of each shard's group."""
        return self._info.replicas

    @property
    def shards(self) -> int:
        """How many Raft groups share the keys."""
        return self._info.shards

    @property
    def info(self) -> KeyspaceInfo:
        """All its settings."""
        return self._info

    def shard_of(self, key: str | bytes) -> int:
        """Tell the shard that a key belongs to; see `quorate.ConsensusKeyspace.shard_of`."""
        return self._shards.shard_of(key_bytes(key))

    @sharding.only_in_quorum
    async def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        if_version: int | None = None,
        if_absent: bool = False,
        timeout: float | None = None,
        trace: bool = False,
    ) -> Commit:
        """Write a value; see `quorate.ConsensusKeyspace.put`."""
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await self._shards.put_async(
            raw_key,
            arguments.value_bytes(value),
            sharding.expected(if_version, if_absent),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        )
        return sharding.commit(Commit, raw_key, raw, connection.trace)

    @sharding.only_in_quorum
    async def delete(
        self,
        key: str | bytes,
        *,
        if_version: int | None = None,
        timeout: float | None = None,
        trace: bool = False,
    ) -> Commit:
        """Delete a key; see `quorate.ConsensusKeyspace.delete`."""
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await self._shards.put_async(
            raw_key,
            None,
            sharding.expected(if_version, if_absent=False),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        )
        return sharding.commit(Commit, raw_key, raw, connection.trace)

    @sharding.only_in_quorum
    async def put_many(
        self,
        items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
        *,
        if_version: Mapping[KeyT, int] | None = None,
        if_absent: bool | Iterable[KeyT] = False,
        timeout: float | None = None,
    ) -> dict[KeyT, Commit]:
        """Write many values; see `quorate.ConsensusKeyspace.put_many`."""
        pairs, coded = sharding.conditional(items, if_version, if_absent)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws = await self._shards.put_many_async(coded, limit)
        return sharding.commits(Commit, pairs, raws, self._connection.trace)

    async def get(
        self,
        key: str | bytes,
        *,
        consistency: ReadConsistency | None = None,
        timeout: float | None = None,
        trace: bool = False,
        node: str | None = None,
    ) -> ConsensusEntry:
        """Read a key; see `quorate.ConsensusKeyspace.get`."""
        raw_key = key_bytes(key)
        connection = self._connection
        raw = await self._shards.get_async(
            raw_key,
            levels.is_stale(consistency),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
            None if node is None else node_number(node),
        )
        return sharding.entry(ConsensusEntry, raw_key, raw, connection.trace)

    async def get_many(
        self,
        keys: Iterable[KeyT],
        *,
        consistency: ReadConsistency | None = None,
        timeout: float | None = None,
        node: str | None = None,
    ) -> dict[KeyT, ConsensusEntry]:
        """Read many keys; see `quorate.ConsensusKeyspace.get_many`."""
        wanted, batches = arguments.get_batches(keys)
        stale = levels.is_stale(consistency)
        number = None if node is None else node_number(node)
        limit = arguments.seconds(timeout, self._connection.timeout)
        raws = []
        for part in batches:
            raws += await self._shards.get_many_async(part, stale, limit, number)
        return sharding.entries(ConsensusEntry, wanted, raws, self._connection.trace)

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
    ) -> AsyncIterator[tuple[str, ConsensusEntry]]:
        """Walk the keys in order, with ``async for``; see `quorate.ConsensusKeyspace.scan`."""
        pages = arguments.Pages(start, end, prefix, limit, page_size)
        stale = levels.is_stale(consistency)
        return self._scan(pages, stale, arguments.seconds(timeout, self._connection.timeout))

    async def _scan(
        self, pages: arguments.Pages, stale: bool, timeout: float
    ) -> AsyncIterator[tuple[str, ConsensusEntry]]:
        more = pages.wanted
        while more:
            page = await self._shards.scan_async(*pages.request(), stale, timeout)
            for key, raw in page.entries:
                yield answers.key_text(key), sharding.entry(ConsensusEntry, key, raw, self._connection.trace)
            more = pages.advance(len(page.entries), page.next)

    @sharding.only_in_quorum
    async def append(
        self,
        data: str | bytes,
        source: str = "",
        *,
        timeout: float | None = None,
        trace: bool = False,
    ) -> Appended:
        """Add an entry; see `quorate.ConsensusKeyspace.append`."""
        connection = self._connection
        source = sharding.source_text(source)
        raw = await self._shards.append_async(
            source,
            arguments.value_bytes(data),
            arguments.seconds(timeout, connection.timeout),
            arguments.switch(trace, "trace"),
        )
        return sharding.appended(Appended, source, raw, connection.trace)

    def entries(
        self,
        after: int | Mapping[int, int] = 0,
        *,
        source: str | None = None,
        limit: int | None = None,
        consistency: ReadConsistency | None = None,
        timeout: float | None = None,
        page_size: int = 256,
    ) -> AsyncIterator[LogEntry]:
        """Walk the entries, with ``async for``; see `quorate.ConsensusKeyspace.entries`."""
        if source is None:
            wanted = list(range(self._info.shards))
        else:
            wanted = [self._shards.shard_of_source(sharding.source_text(source))]
        pages = sharding.EntryPages(wanted, after, source, limit, page_size)
        stale = levels.is_stale(consistency)
        return self._entries(pages, stale, arguments.seconds(timeout, self._connection.timeout))

    async def _entries(
        self, pages: sharding.EntryPages, stale: bool, timeout: float
    ) -> AsyncIterator[LogEntry]:
        while (wanted := pages.request()) is not None:
            asked, size = wanted
            found = await self._shards.entries_async(asked, size, stale, timeout)
            for entry in pages.feed(asked, found):
                yield entry

    async def nodes_for_key(self, key: str | bytes) -> tuple[str, ...]:
        """List the members of a key's group; see `quorate.ConsensusKeyspace.nodes_for_key`."""
        return self._info.groups[self.shard_of(key)].members

    def __repr__(self) -> str:
        info = self._info
        of = "shard" if info.shards == 1 else "shards"
        return f"<aio.ConsensusKeyspace {info.name!r}: {info.replicas} replicas, {info.shards} {of}>"
