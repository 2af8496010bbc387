"""A cluster of real processes, with awaitable operations.

Blocking work runs in threads that end before the awaiting task, even if it is cancelled: see `quorate.background`.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from quorate import _quorate, arguments, background, flow, operations, readiness
from quorate.aio.connection import Connection
from quorate.aio.node import Node
from quorate.errors import Closed, ClusterStartError, Overloaded
from quorate.faults_client import FaultsClient
from quorate.plan import Plan
from quorate.processes import Processes

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from typing_extensions import Self

__all__ = ["Cluster", "Node"]


class Cluster(Connection):
    """A cluster with awaitable operations: every node is a process of its own, with its own durable storage.

    ``async with`` or ``await cluster.start()`` starts it; it is ready when all nodes see each other and one of them
    leads. A start that fails or is cancelled leaves nothing behind and may be repeated, also after `close`. The cluster
    stops at the end of the ``async with`` block, on `close`, when it is garbage-collected, and when this process exits
    or is killed: no process is left, and no file unless ``data_dir`` was given.

    Parameters
    ----------
    nodes : int
        Number of nodes; they are named ``n1``, ``n2``, …
    data_dir : path, optional
        Directory for data and logs, used by one program at a time. A cluster that is started again with the same
        directory keeps its data; its settings are fixed once it has been ready. Default: a temporary directory that is
        removed on close.
    name : str, optional
        The cluster's name; nodes and data directories of other clusters are rejected.
    vnodes : int
        Tokens per node on the ring.
    hash : str
        Hash function from keys to tokens: ``murmur3``, ``md5`` or ``xxh3``.
    raft_timing : str
        Election timeout of Raft groups: ``default`` (150 to 300 ms), ``conservative`` (300 to 600 ms, for slow or busy
        machines) or ``aggressive`` (100 to 200 ms).
    racks, datacenters : mapping, optional
        Locations of nodes, by node name; copies are spread over them.
    host : str
        The address to listen on.
    port : int, optional
        First port; each node has ten (n1: ``port``, n2: ``port + 10``, …). Default: any free ports.
    timeout : float
        Default timeout of an operation, in seconds.
    start_timeout : float
        Seconds until the cluster must be ready.
    log_level : str
        ``off``, ``error``, ``warn``, ``info``, ``debug`` or ``trace``, or directives such as
        ``info,quorate_node=debug``.
    secret : str, optional
        Secret that peers and clients must present.
    insecure : bool
        Accept a ``host`` beyond loopback without a secret.
    settings : mapping, optional
        Further settings of the node program, for example ``{"heartbeat_ms": 50}``.

    Raises
    ------
    ClusterStartError
        A node fails to start; the message names it and the reason. `DataDirectoryError` and `AddressInUse` are
        subclasses.
    InvalidArgument
        A parameter is invalid.

    Examples
    --------
    >>> import quorate
    >>> async with quorate.aio.Cluster(nodes=3) as cluster:
    ...     notes = await cluster.keyspace("notes", mode="quorum", replicas=3)
    ...     result = await notes.put("a", "first light")
    ...     await cluster["n3"].kill()
    ...     (await notes.get("a")).text
    'first light'
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        name: str | None = None,
        vnodes: int = 150,
        hash: str = "murmur3",  # noqa: A002 - the setting's name everywhere
        raft_timing: str = "default",
        racks: Mapping[str, str] | None = None,
        datacenters: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        timeout: float = arguments.DEFAULT_TIMEOUT,
        start_timeout: float = 30.0,
        log_level: str = "info",
        secret: str | None = None,
        insecure: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._plan = Plan(
            nodes,
            data_dir=data_dir,
            name=name,
            vnodes=vnodes,
            hash=hash,
            raft_timing=raft_timing,
            racks=racks,
            datacenters=datacenters,
            host=host,
            port=port,
            start_timeout=arguments.seconds(start_timeout, 30.0),
            log_level=log_level,
            secret=secret,
            insecure=insecure,
            settings=settings,
        )
        self._timeout = arguments.seconds(timeout, arguments.DEFAULT_TIMEOUT)
        self._starting = threading.Lock()
        self._launched: Processes | None = None
        """Processes that run or are starting; closing the cluster ends them."""
        self._ready: _quorate.Client | None = None
        self._reset()

    def _reset(self) -> None:
        self._member_cache = operations.MemberCache()
        self._faults_client = FaultsClient(self._member_cache)

    async def start(self) -> Self:
        """Start the processes; returns when all nodes see each other and a leader. No effect if already started.

        If cancelled, it stops the started nodes before it returns.

        Raises
        ------
        ClusterStartError
            A node fails to start, or another task is starting this cluster.
        Closed
            The cluster was closed during the start.
        """
        if not self._starting.acquire(blocking=False):
            raise ClusterStartError(
                "this cluster is already being started: await that, or create another one"
            )
        try:
            if self._ready is None or self._launched is None or self._launched.closed:
                await self._start()
            return self
        finally:
            self._starting.release()

    async def _start(self) -> None:
        plan, limit = self._plan, self._plan.start_timeout
        processes = Processes(plan)
        # Registered before the first process exists.
        self._launched, self._ready = processes, None
        finalizer = weakref.finalize(self, processes.close)
        self._reset()
        client = None
        try:
            await background.run_async(processes.start, processes.abandon)
            client = await _quorate.Client.connect(processes.endpoints, limit, plan.secret)
            self._faults_client.awake, self._faults_client.idle = processes.awake, plan.idle
            if not await flow.run_async(client, readiness.started(processes, limit)):
                raise readiness.unlinked(processes, processes.names, limit)
            await background.run_async(processes.form, processes.abandon)
            await flow.run_async(client, self._member_cache.learn(limit))
            self._ready = client
        except GeneratorExit:
            # The event loop is closed: nothing can be awaited.
            finalizer()
            raise
        except BaseException:
            if client is not None:
                client.close()
            await _ended(processes)
            finalizer.detach()
            raise

    @property
    def _client(self) -> _quorate.Client:
        if self._ready is None:
            raise Closed("this cluster is not started: use `async with`, or await start()")
        return self._ready

    @_client.setter
    def _client(self, client: _quorate.Client) -> None:
        self._ready = client

    @property
    def _processes(self) -> Processes:
        if self._ready is None or self._launched is None:
            raise Closed("this cluster is not started: use `async with`, or await start()")
        return self._launched

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self._processes.name

    @property
    def endpoints(self) -> str:
        """Client addresses of the nodes, in the form that `connect` accepts."""
        return ",".join(self._processes.endpoints)

    @property
    def directory(self) -> Path:
        """Directory of data and logs."""
        return self._processes.directory

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, running or not."""
        return tuple(Node(self, name) for name in self._processes.names)

    def __getitem__(self, name: str) -> Node:
        self._processes.process(name)
        return Node(self, name)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self._plan.names)

    def __contains__(self, name: object) -> bool:
        return name in self._plan.names

    async def close(self) -> None:
        """Stop all processes and remove temporary files. Closing twice is no error.

        A pending start fails with `Closed`; a cancelled `close` still completes before it returns.
        """
        processes, client = self._launched, self._ready
        try:
            if client is not None:
                client.close()
        finally:
            if processes is not None:
                await _ended(processes)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def _await_links(self, down: tuple[str, ...], timeout: float) -> bool:
        return await flow.run_async(
            self._client, readiness.noticed(self._processes, self._faults_client, down, timeout)
        )

    def __repr__(self) -> str:
        if self._ready is None:
            return f"<aio.Cluster of {len(self)} nodes, not started>"
        return f"<aio.Cluster {self.name!r} of {len(self)} nodes, {len(self._processes.awake())} of them running>"


async def _ended(processes: Processes) -> None:
    """Stop the processes in any case."""
    try:
        await background.run_async(processes.close)
    except Overloaded:
        # Not in a thread: blocking the event loop is the lesser evil.
        processes.close()
