"""A cluster of real processes on this machine, to use and to break."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from quorate import _quorate, arguments, background, flow, observation
from quorate.connection import Connection
from quorate.errors import ClusterStartError, NotFound
from quorate.fleet import Fleet
from quorate.plan import Plan

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from quorate.board import Board

__all__ = ["Cluster", "Node"]

NOTICE_TIMEOUT = 2.0
"""Seconds that the other nodes are given to notice that one has ended."""
RESUME_TIMEOUT = 5.0
"""Seconds that a node has to answer when it has been let go on."""
STOP_TIMEOUT = 10.0
"""Seconds that a node may take to stop, when nothing else is said."""
RESTART_TIMEOUT = 30.0
"""Seconds that a node may take to be back, when nothing else is said."""


class Cluster(Connection):
    """Start a cluster: every node is a process of its own, with its own durable storage.

    It is ready when the constructor returns: all nodes see each other and one of them leads. It ends with the ``with``
    block, with `close`, with the interpreter, with the garbage collector or when this process is killed: no process is
    left, and no file unless ``data_dir`` was given.

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
        self._fleet = fleet = Fleet(plan)
        # Known here before there is anything to end.
        weakref.finalize(self, fleet.close)
        client = None
        try:
            background.run(fleet.start, fleet.abandon)
            client = _quorate.Client.connect(fleet.endpoints, plan.start_timeout, secret)
            super().__init__(client, limit)
            self._board.awake, self._board.idle = fleet.awake, plan.idle
            if not flow.run(client, started(fleet, plan.start_timeout)):
                raise unlinked(fleet, fleet.names, plan.start_timeout)
            background.run(fleet.form, fleet.abandon)
            flow.run(client, self._roster.learn(limit))
        except BaseException:
            if client is not None:
                client.close()
            background.run(fleet.close)
            raise

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self._fleet.name

    @property
    def endpoints(self) -> str:
        """Where clients reach the nodes, as `connect` takes it."""
        return ",".join(self._fleet.endpoints)

    @property
    def directory(self) -> Path:
        """Where data and logs are."""
        return self._fleet.directory

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, running or not."""
        return tuple(Node(self, name) for name in self._fleet.names)

    def __getitem__(self, name: str) -> Node:
        self._fleet.process(name)
        return Node(self, name)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self._fleet.names)

    def __contains__(self, name: object) -> bool:
        return name in self._fleet.names

    def close(self) -> None:
        """End all processes and remove what is temporary. Closing twice is no error."""
        try:
            super().close()
        finally:
            background.run(self._fleet.close)

    def _await_links(self, down: tuple[str, ...], timeout: float) -> bool:
        return flow.run(self._client, noticed(self._fleet, self._board, down, timeout))

    def __repr__(self) -> str:
        return f"<Cluster {self.name!r} of {len(self)} nodes, {len(self._fleet.awake())} of them running>"


class NodeView:
    """What there is to see of a node."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self._name = name

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def pid(self) -> int:
        """The id of its process, the last one if it has ended."""
        return self._fleet.process(self._name).pid

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return str(self._fleet.member(self._name)["client"])

    @property
    def peer_address(self) -> str:
        """Where the other nodes reach it."""
        return str(self._fleet.member(self._name)["peer"])

    @property
    def http_address(self) -> str:
        """Where it serves ``/metrics``."""
        return str(self._fleet.member(self._name)["http"])

    @property
    def data_dir(self) -> Path:
        """Where its data is."""
        return self._fleet.data_dir(self._name)

    @property
    def running(self) -> bool:
        """Whether its process exists; a paused one does."""
        return self.exit_code is None

    @property
    def paused(self) -> bool:
        """Whether it was paused and not resumed."""
        return self._fleet.process(self._name).paused

    @property
    def exit_code(self) -> int | None:
        """How its process ended: ``None`` while it runs, 0 after `stop`, -9 after `kill`."""
        return self._fleet.process(self._name).exit_code

    def log(self, lines: int | None = None) -> str:
        """Read its log, which goes on through restarts.

        Parameters
        ----------
        lines : int, optional
            Only this many from the end.

        Returns
        -------
        str
            The text.

        Raises
        ------
        NotFound
            The file is gone.
        """
        if lines is not None:
            arguments.whole_number(lines, "lines", 1, 2**31)
        path = self._fleet.process(self._name).log
        try:
            text = path.read_text(errors="replace")
        except OSError as error:
            raise NotFound(
                f"the log of {self._name} is gone ({error}): somebody has removed {path.parent}, where its data was"
            ) from error
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def __repr__(self) -> str:
        code = self.exit_code
        state = (
            "paused"
            if self.paused
            else "running"
            if code is None
            else self._fleet.process(self._name).ending()
        )
        return f"<Node {self._name}: {state}, pid {self.pid}, clients {self.address}>"


class Node(NodeView):
    """One node of a `Cluster`: a process to look at and to break; got from ``cluster["n1"]``."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster._fleet, name)
        self._cluster = cluster

    def kill(self, *, wait: bool = True) -> None:
        """End it with SIGKILL.

        Parameters
        ----------
        wait : bool
            Whether to return only when the other nodes have noticed, which takes milliseconds.
        """
        background.run(lambda: self._fleet.kill(self._name))
        if wait:
            self._cluster._await_links((self._name,), NOTICE_TIMEOUT)

    def stop(self, *, timeout: float = STOP_TIMEOUT, wait: bool = True) -> None:
        """End it cleanly with SIGTERM.

        Parameters
        ----------
        timeout : float
            Seconds that it may take.
        wait : bool
            Whether to return only when the other nodes have noticed.

        Raises
        ------
        StopTimeout
            It still runs then; it goes on stopping.
        """
        limit, given_up = arguments.seconds(timeout, STOP_TIMEOUT), threading.Event()
        background.run(lambda: self._fleet.stop(self._name, limit, given_up), given_up.set)
        if wait:
            self._cluster._await_links((self._name,), NOTICE_TIMEOUT)

    def restart(self, *, timeout: float = RESTART_TIMEOUT, wait: bool = True) -> None:
        """Start it again with the same data and the same addresses, ending it first if it runs.

        Faults that are in force are in force there too, from a moment after its start.

        Parameters
        ----------
        timeout : float
            Seconds that it may take.
        wait : bool
            Whether to return only when it and the other running nodes see each other again, as far as faults let them.

        Raises
        ------
        AddressInUse
            Somebody has taken one of its ports meanwhile.
        ClusterStartError
            It does not start; the message says why.
        """
        timeout, given_up = arguments.seconds(timeout, RESTART_TIMEOUT), threading.Event()
        client, board = self._cluster._client, self._cluster._board
        with board.restarting(self._name):
            background.run(lambda: self._fleet.restart(self._name, timeout, given_up), given_up.set)
            flow.run(client, board.restore(self._name, timeout, fresh=True))
        if wait:
            names = {*self._fleet.awake(), self._name}
            if not flow.run(client, relinked(self._fleet, board, names, timeout)):
                raise unlinked(self._fleet, names, timeout)

    def pause(self) -> None:
        """Stop its clock with SIGSTOP: it keeps its connections and answers nothing, as a long stall does."""
        self._fleet.pause(self._name)

    def resume(self) -> None:
        """Let it go on after `pause`. It learns of the faults that were made or healed meanwhile."""
        self._fleet.resume(self._name)
        board = self._cluster._board
        flow.run(self._cluster._client, board.restore(self._name, RESUME_TIMEOUT, fresh=False))


def started(fleet: Fleet, timeout: float) -> flow.Flow[bool]:
    """Wait until all nodes see each other and agree on who leads the control plane, in vain if one of them ends."""
    names, deadline = fleet.names, time.monotonic() + timeout
    if not (yield from linked(fleet, names, timeout)):
        return False
    left = max(0.0, deadline - time.monotonic())
    return (yield from observation.led(names, left, lambda: fleet.fallen(names)))


def linked(fleet: Fleet, names: Collection[str], timeout: float) -> flow.Flow[bool]:
    """Wait until these nodes see each other, in vain if one of them ends."""
    return observation.links(names, (), timeout, lambda: fleet.fallen(names))


def relinked(fleet: Fleet, board: Board, names: Collection[str], timeout: float) -> flow.Flow[bool]:
    """Wait until these nodes see each other as far as faults let them, in vain if one of them ends."""
    severed = yield from board.severed(timeout)
    return (yield from observation.links(names, (), timeout, lambda: fleet.fallen(names), severed))


def noticed(fleet: Fleet, board: Board, down: Collection[str], timeout: float) -> flow.Flow[bool]:
    """Wait until the nodes that run see none of those that do not, but each other as far as faults let them."""
    severed = yield from board.severed(timeout)
    return (yield from observation.links(fleet.awake(), down, timeout, severed=severed))


def unlinked(fleet: Fleet, names: Iterable[str], timeout: float) -> ClusterStartError:
    """Make the error for nodes that do not see each other, have no leader, or have ended instead."""
    fallen = fleet.fallen(names)
    if fallen is not None:
        return fallen.fall()
    return ClusterStartError(
        f"the nodes {', '.join(fleet.awake())} run but do not all see each other and a leader after {timeout:g} s:"
        f" look at the logs in {fleet.directory}",
        node=", ".join(fleet.awake()),
    )
