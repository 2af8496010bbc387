"""A cluster of real processes whose operations are awaited.

What blocks runs in threads that end before the awaiting task, even one that is cancelled: see `quorate.background`.
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
    """A cluster whose operations are awaited: every node is a process of its own, with its own durable storage.

    ``async with`` or ``await cluster.start()`` starts it: then all nodes see each other and one of them leads. A start
    that fails or is cancelled leaves nothing behind and may be repeated, and so may one after `close`. The cluster ends
    with the ``async with`` block, with `close`, with the interpreter, with the garbage collector or when this process
    is killed: no process is left, and no file unless ``data_dir`` was given.

    Parameters
    ----------
    nodes : int
        How many; they are called ``n1``, ``n2``, …
    data_dir : path, optional
        Where to keep data and logs, for one program at a time. Started again with the same directory, the cluster has
        its data again; its settings are fixed once it has been ready. By default a temporary directory that is removed
        at the end.
    name : str, optional
        The cluster's name; nodes and data directories of other names are refused.
    vnodes : int
        Tokens per node on the ring.
    hash : str
        How keys become tokens: ``murmur3``, ``md5`` or ``xxh3``.
    raft_timing : str
        How soon a Raft group elects another leader when it hears nothing from the last: ``default`` (after 150 to 300
        ms), ``conservative`` (300 to 600 ms, for slow or busy machines) or ``aggressive`` (100 to 200 ms).
    racks, datacenters : mapping, optional
        Where nodes stand, by name; copies are spread over them.
    host : str
        The address to listen on.
    port : int, optional
        Take ten ports per node from here on (n1: ``port``, n2: ``port + 10``, …); any free ports by default.
    timeout : float
        Seconds that an operation may take when it names no timeout.
    start_timeout : float
        Seconds within which the cluster must be ready.
    log_level : str
        ``off``, ``error``, ``warn``, ``info``, ``debug`` or ``trace``, or directives such as
        ``info,quorate_node=debug``.
    secret : str, optional
        What peers and clients must know.
    insecure : bool
        Accept a ``host`` beyond loopback without a secret.
    settings : mapping, optional
        Further settings of the node program, for example ``{"heartbeat_ms": 50}``.

    Raises
    ------
    ClusterStartError
        A node does not start; the message says which and why. `DataDirectoryError` and `AddressInUse` are kinds of it.
    InvalidArgument
        A parameter makes no sense.

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
        """Those that run or are being started: whoever closes the cluster ends them."""
        self._ready: _quorate.Client | None = None
        self._reset()

    def _reset(self) -> None:
        self._member_cache = operations.MemberCache()
        self._faults_client = FaultsClient(self._member_cache)

    async def start(self) -> Self:
        """Start the processes; returns when all nodes see each other and a leader. Started already, it does nothing.

        Cancelled, it ends what it has started before it returns, which takes as long as the nodes take to stop.

        Raises
        ------
        ClusterStartError
            A node does not start, or another task is starting this cluster.
        Closed
            The cluster was closed meanwhile.
        """
        if not self._starting.acquire(blocking=False):
            raise ClusterStartError("this cluster is being started already: await that, or make another one")
        try:
            if self._ready is None or self._launched is None or self._launched.closed:
                await self._start()
            return self
        finally:
            self._starting.release()

    async def _start(self) -> None:
        plan, limit = self._plan, self._plan.start_timeout
        processes = Processes(plan)
        # Known here before there is anything to end.
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
            # The event loop is gone: nothing can be awaited.
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
        """Where clients reach the nodes, as `connect` takes it."""
        return ",".join(self._processes.endpoints)

    @property
    def directory(self) -> Path:
        """Where data and logs are."""
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
        """End all processes and remove what is temporary. Closing twice is no error.

        A start that is under way fails with `Closed`. Cancelled, it goes on to its end before it returns.
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
    """End the processes, whatever comes."""
    try:
        await background.run_async(processes.close)
    except Overloaded:
        # No thread for it: rather is the event loop kept waiting.
        processes.close()
