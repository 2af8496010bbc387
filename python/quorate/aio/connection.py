"""A connection whose operations are awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from quorate import _quorate, arguments, flow, observation, operations
from quorate.aio.consensus import ConsensusKeyspace
from quorate.aio.injection import FaultControl
from quorate.aio.keyspace import Keyspace
from quorate.board import Board
from quorate.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Literal

    from typing_extensions import Self

    from quorate.groups import Groups
    from quorate.levels import Consistency
    from quorate.metrics import Metrics
    from quorate.ring import Distribution
    from quorate.timeline import Timeline
    from quorate.topology import ClusterStatus, Health, KeyspaceInfo, Topology
    from quorate.trace import Trace

__all__ = ["Connecting", "Connection", "connect"]


class Connection(FaultControl):
    """A client of a cluster; got from `connect`. See `quorate.Connection`."""

    def __init__(self, client: _quorate.Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._roster = operations.Roster()
        self._board = Board(self._roster)

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take when it names no timeout."""
        return self._timeout

    @overload
    async def keyspace(
        self,
        name: str,
        *,
        mode: Literal["quorum"],
        replicas: int | None = None,
        read: Consistency | None = None,
        write: Consistency | None = None,
        read_repair: str | None = None,
    ) -> Keyspace: ...

    @overload
    async def keyspace(
        self,
        name: str,
        *,
        mode: Literal["consensus"],
        replicas: int | None = None,
        shards: int | None = None,
        snapshot_every: int | None = None,
    ) -> ConsensusKeyspace: ...

    @overload
    async def keyspace(
        self,
        name: str,
        *,
        mode: str | None = None,
        replicas: int | None = None,
        read: Consistency | None = None,
        write: Consistency | None = None,
        read_repair: str | None = None,
        shards: int | None = None,
        snapshot_every: int | None = None,
    ) -> Keyspace | ConsensusKeyspace: ...

    async def keyspace(
        self,
        name: str,
        *,
        mode: str | None = None,
        replicas: int | None = None,
        read: Consistency | None = None,
        write: Consistency | None = None,
        read_repair: str | None = None,
        shards: int | None = None,
        snapshot_every: int | None = None,
    ) -> Keyspace | ConsensusKeyspace:
        """Create a keyspace, or find it; see `quorate.Connection.keyspace`."""
        wanted = operations.open_keyspace(
            name, mode, replicas, read, write, read_repair, shards, snapshot_every, self._timeout
        )
        info = await flow.run_async(self._client, wanted)
        ring_hash = await flow.run_async(self._client, operations.ring_hash(info, self._timeout))
        return Keyspace(self, info) if ring_hash is None else ConsensusKeyspace(self, info, ring_hash)

    async def keyspaces(self) -> tuple[KeyspaceInfo, ...]:
        """List the keyspaces by name; see `quorate.Connection.keyspaces`."""
        return await flow.run_async(self._client, operations.keyspaces(self._timeout))

    async def alter_keyspace(
        self,
        name: str,
        *,
        read: Consistency | None = None,
        write: Consistency | None = None,
        read_repair: str | None = None,
    ) -> KeyspaceInfo:
        """Change settings of a keyspace; see `quorate.Connection.alter_keyspace`."""
        change = operations.alter_keyspace(name, read, write, read_repair, self._timeout)
        return await flow.run_async(self._client, change)

    async def drop_keyspace(self, name: str) -> KeyspaceInfo:
        """Have a keyspace no more; see `quorate.Connection.drop_keyspace`."""
        return await flow.run_async(self._client, operations.drop_keyspace(name, self._timeout))

    async def groups(self, *, timeout: float = arguments.PROBE_TIMEOUT) -> Groups:
        """Ask every node about its Raft groups; see `quorate.Connection.groups`."""
        limit = arguments.seconds(timeout, self._timeout)
        return await flow.run_async(self._client, observation.groups(self._roster, limit))

    async def leader(
        self,
        keyspace: str | None = None,
        *,
        key: str | bytes | None = None,
        shard: int | None = None,
        timeout: float = arguments.PROBE_TIMEOUT,
    ) -> str | None:
        """Find out who leads; see `quorate.Connection.leader`."""
        limit = arguments.seconds(timeout, self._timeout)
        found = observation.leader(self._roster, keyspace, key, shard, limit)
        return await flow.run_async(self._client, found)

    async def topology(self) -> Topology:
        """Ask who the members are; see `quorate.Connection.topology`."""
        return await flow.run_async(self._client, operations.topology(self._timeout))

    async def ring(self) -> Ring:
        """Compute the cluster's ring; see `quorate.Connection.ring`."""
        return Ring.of(await self.topology())

    async def nodes_for_key(self, keyspace: str, key: str | bytes) -> tuple[str, ...]:
        """List the nodes that store a key; see `quorate.Connection.nodes_for_key`."""
        return await flow.run_async(self._client, operations.nodes_for_key(keyspace, key, self._timeout))

    async def distribution(self, keyspace: str | None = None) -> Distribution:
        """Report how evenly the ring spreads keys; see `quorate.Connection.distribution`."""
        return await flow.run_async(self._client, operations.distribution(keyspace, self._timeout))

    async def status(self, *, timeout: float = arguments.PROBE_TIMEOUT) -> ClusterStatus:
        """Ask every node how it is; see `quorate.Connection.status`."""
        limit = arguments.seconds(timeout, self._timeout)
        return await flow.run_async(self._client, observation.status(self._roster, limit))

    async def health(
        self, keyspace: str | None = None, *, timeout: float = arguments.PROBE_TIMEOUT
    ) -> Health:
        """Judge whether a keyspace can serve; see `quorate.Connection.health`."""
        limit = arguments.seconds(timeout, self._timeout)
        return await flow.run_async(self._client, observation.health(self._roster, keyspace, limit))

    async def metrics(self, *, timeout: float = arguments.PROBE_TIMEOUT) -> Metrics:
        """Read the metrics of all nodes; see `quorate.Connection.metrics`."""
        limit = arguments.seconds(timeout, self._timeout)
        return await flow.run_async(self._client, observation.metrics(self._roster, limit))

    async def events(self, *, timeout: float = arguments.PROBE_TIMEOUT) -> Timeline:
        """Collect what happened on all nodes; see `quorate.Connection.events`."""
        limit = arguments.seconds(timeout, self._timeout)
        return await flow.run_async(self._client, observation.events(self._roster, limit))

    async def trace(self, trace_id: str) -> Trace:
        """Collect the spans of a trace; see `quorate.Connection.trace`."""
        client = self._client
        limit = min(arguments.PROBE_TIMEOUT, self._timeout)
        return await flow.run_async(client, observation.trace(self._roster, trace_id, client.spans, limit))

    async def close(self) -> None:
        """Close the connections; operations raise `Closed` from now on. Closing twice is no error."""
        self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} with a timeout of {self._timeout:g} s>"


class Connecting:
    """A connection to be: await it, or enter it with ``async with``."""

    def __init__(self, endpoints: list[str], timeout: float, secret: str | None) -> None:
        self._endpoints = endpoints
        self._timeout = timeout
        self._secret = secret
        self._connection: Connection | None = None

    async def _connect(self) -> Connection:
        client = await _quorate.Client.connect_async(self._endpoints, self._timeout, self._secret)
        try:
            connection = Connection(client, self._timeout)
            await flow.run_async(client, connection._roster.learn(self._timeout))
        except BaseException:
            # Nobody else knows of it.
            client.close()
            raise
        return connection

    def __await__(self) -> Generator[object, None, Connection]:
        return self._connect().__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self._connect()
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        assert self._connection is not None
        await self._connection.close()


def connect(
    endpoints: str | Iterable[str],
    *,
    timeout: float = arguments.DEFAULT_TIMEOUT,
    secret: str | None = None,
) -> Connecting:
    """Connect to a running cluster: ``await connect(...)`` or ``async with connect(...)``; see `quorate.connect`."""
    limit = arguments.seconds(timeout, arguments.DEFAULT_TIMEOUT)
    return Connecting(arguments.parse_endpoints(endpoints), limit, arguments.secret_text(secret))
