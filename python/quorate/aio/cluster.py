"""A cluster of real processes whose operations are awaited.

What blocks runs in threads that end before the awaiting task, even one that is cancelled: see `quorate.background`.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from quorate import _quorate, arguments, background, cluster, flow, operations
from quorate.aio.connection import Connection
from quorate.board import Board
from quorate.errors import Closed, ClusterStartError, Overloaded
from quorate.fleet import Fleet
from quorate.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["Cluster", "Node"]


class Cluster(Connection):
    """A cluster to be started by ``async with`` or ``await cluster.start()``; see `quorate.Cluster` for parameters.

    A start that fails or is cancelled leaves nothing behind and may be tried again, and so may one after `close`.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        timeout: float = arguments.DEFAULT_TIMEOUT,
        start_timeout: float = 30.0,
        **options: Any,
    ) -> None:
        limit = arguments.seconds(start_timeout, 30.0)
        self._plan = Plan(nodes, start_timeout=limit, **options)
        self._timeout = arguments.seconds(timeout, arguments.DEFAULT_TIMEOUT)
        self._starting = threading.Lock()
        self._processes: Fleet | None = None
        """Those that run or are being started: whoever closes the cluster ends them."""
        self._ready: _quorate.Client | None = None
        self._reset()

    def _reset(self) -> None:
        self._roster = operations.Roster()
        self._board = Board(self._roster)

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
            if self._ready is None or self._processes is None or self._processes.closed:
                await self._start()
            return self
        finally:
            self._starting.release()

    async def _start(self) -> None:
        plan, limit = self._plan, self._plan.start_timeout
        fleet = Fleet(plan)
        # Known here before there is anything to end.
        self._processes, self._ready = fleet, None
        finalizer = weakref.finalize(self, fleet.close)
        self._reset()
        client = None
        try:
            await background.run_async(fleet.start, fleet.abandon)
            client = await _quorate.Client.connect_async(fleet.endpoints, limit, plan.secret)
            self._board.awake, self._board.idle = fleet.awake, plan.idle
            if not await flow.run_async(client, cluster.started(fleet, limit)):
                raise cluster.unlinked(fleet, fleet.names, limit)
            await background.run_async(fleet.form, fleet.abandon)
            await flow.run_async(client, self._roster.learn(limit))
            self._ready = client
        except GeneratorExit:
            # The event loop is gone: nothing can be awaited.
            finalizer()
            raise
        except BaseException:
            if client is not None:
                client.close()
            await _ended(fleet)
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
    def _fleet(self) -> Fleet:
        if self._ready is None or self._processes is None:
            raise Closed("this cluster is not started: use `async with`, or await start()")
        return self._processes

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

    def __len__(self) -> int:
        return len(self._plan.names)

    def __contains__(self, name: object) -> bool:
        return name in self._plan.names

    async def close(self) -> None:
        """End all processes and remove what is temporary. Closing twice is no error.

        A start that is under way fails with `Closed`. Cancelled, it goes on to its end before it returns.
        """
        fleet, client = self._processes, self._ready
        try:
            if client is not None:
                client.close()
        finally:
            if fleet is not None:
                await _ended(fleet)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def _await_links(self, down: tuple[str, ...], timeout: float) -> bool:
        return await flow.run_async(self._client, cluster.noticed(self._fleet, self._board, down, timeout))

    def __repr__(self) -> str:
        if self._ready is None:
            return f"<aio.Cluster of {len(self)} nodes, not started>"
        return f"<aio.Cluster {self.name!r} of {len(self)} nodes, {len(self._fleet.awake())} of them running>"


async def _ended(fleet: Fleet) -> None:
    """End the processes, whatever comes."""
    try:
        await background.run_async(fleet.close)
    except Overloaded:
        # No thread for it: rather is the event loop kept waiting.
        fleet.close()


class Node(cluster.NodeView):
    """One node of a `Cluster`; see `quorate.Node`."""

    def __init__(self, owner: Cluster, name: str) -> None:
        super().__init__(owner._fleet, name)
        self._cluster = owner

    async def kill(self, *, wait: bool = True) -> None:
        """End it with SIGKILL; see `quorate.Node.kill`."""
        await background.run_async(lambda: self._fleet.kill(self._name))
        if wait:
            await self._cluster._await_links((self._name,), cluster.NOTICE_TIMEOUT)

    async def stop(self, *, timeout: float = cluster.STOP_TIMEOUT, wait: bool = True) -> None:
        """End it cleanly with SIGTERM; see `quorate.Node.stop`.

        Cancelled, it does not wait any longer: the node goes on stopping.
        """
        limit, given_up = arguments.seconds(timeout, cluster.STOP_TIMEOUT), threading.Event()
        await background.run_async(lambda: self._fleet.stop(self._name, limit, given_up), given_up.set)
        if wait:
            await self._cluster._await_links((self._name,), cluster.NOTICE_TIMEOUT)

    async def restart(self, *, timeout: float = cluster.RESTART_TIMEOUT, wait: bool = True) -> None:
        """Start it again with the same data and the same addresses; see `quorate.Node.restart`.

        Cancelled while it starts, it does not run.
        """
        timeout, given_up = arguments.seconds(timeout, cluster.RESTART_TIMEOUT), threading.Event()
        client, board = self._cluster._client, self._cluster._board
        with board.restarting(self._name):
            await background.run_async(
                lambda: self._fleet.restart(self._name, timeout, given_up), given_up.set
            )
            await flow.run_async(client, board.restore(self._name, timeout, fresh=True))
        if wait:
            names = {*self._fleet.awake(), self._name}
            if not await flow.run_async(client, cluster.relinked(self._fleet, board, names, timeout)):
                raise cluster.unlinked(self._fleet, names, timeout)

    async def pause(self) -> None:
        """Stop its clock with SIGSTOP; see `quorate.Node.pause`."""
        # Another thread may hold the fleet for as long as a node takes to start.
        await background.run_async(lambda: self._fleet.pause(self._name))

    async def resume(self) -> None:
        """Let it go on after `pause`; see `quorate.Node.resume`."""
        await background.run_async(lambda: self._fleet.resume(self._name))
        board = self._cluster._board
        await flow.run_async(
            self._cluster._client, board.restore(self._name, cluster.RESUME_TIMEOUT, fresh=False)
        )
