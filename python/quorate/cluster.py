"""A cluster of real processes on this machine, to use and to break."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from quorate import _quorate, arguments, background, flow, readiness
from quorate.connection import Connection
from quorate.node import Node
from quorate.plan import Plan
from quorate.processes import Processes

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Cluster", "Node"]


class Cluster(Connection):
    """Start a cluster: every node is a process of its own, with its own durable storage.

    It is ready when the constructor returns: all nodes see each other and one of them leads. It stops at the end of the
    ``with`` block, on `close`, when it is garbage-collected, and when this process exits or is killed: no process is
    left, and no file unless ``data_dir`` was given.

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
    >>> with quorate.Cluster(nodes=3) as cluster:
    ...     notes = cluster.keyspace("notes", mode="quorum", replicas=3)
    ...     result = notes.put("a", "first light")
    ...     cluster["n3"].kill()
    ...     notes.get("a").text
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
        limit = arguments.seconds(timeout, arguments.DEFAULT_TIMEOUT)
        plan = Plan(
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
        self._processes = processes = Processes(plan)
        # Registered before the first process exists.
        weakref.finalize(self, processes.close)
        client = None
        try:
            background.run(processes.start, processes.abandon)
            client = _quorate.Client.connect(processes.endpoints, plan.start_timeout, secret).wait()
            super().__init__(client, limit)
            self._faults_client.awake, self._faults_client.idle = processes.awake, plan.idle
            if not flow.run(client, readiness.started(processes, plan.start_timeout)):
                raise readiness.unlinked(processes, processes.names, plan.start_timeout)
            background.run(processes.form, processes.abandon)
            flow.run(client, self._member_cache.learn(limit))
        except BaseException:
            if client is not None:
                client.close()
            background.run(processes.close)
            raise

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
        return len(self._processes.names)

    def __contains__(self, name: object) -> bool:
        return name in self._processes.names

    def close(self) -> None:
        """Stop all processes and remove temporary files. Closing twice is no error."""
        try:
            super().close()
        finally:
            background.run(self._processes.close)

    def _await_links(self, down: tuple[str, ...], timeout: float) -> bool:
        return flow.run(self._client, readiness.noticed(self._processes, self._faults_client, down, timeout))

    def __repr__(self) -> str:
        return f"<Cluster {self.name!r} of {len(self)} nodes, {len(self._processes.awake())} of them running>"
