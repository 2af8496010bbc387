"""A cluster of real processes whose operations are awaited."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from quorate import _quorate, arguments, cluster, flow, operations
from quorate.aio.connection import Connection
from quorate.board import Board
from quorate.errors import Closed
from quorate.fleet import Fleet, Plan

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["Cluster", "Node"]


class Cluster(Connection):
    """A cluster to be started by ``async with`` or ``await cluster.start()``; see `quorate.Cluster` for parameters."""

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
        self._roster = operations.Roster()
        self._board = Board(self._roster)
        self._started: Fleet | None = None

    async def start(self) -> Self:
        """Start the processes; returns when all nodes see each other and a leader.

        Raises
        ------
        ClusterStartError
            A node does not start.
        """
        limit = self._plan.start_timeout
        fleet = await asyncio.to_thread(Fleet, self._plan)
        self._started = fleet
        self._board.awake, self._board.idle = fleet.awake, self._plan.idle
        self._finalizer = weakref.finalize(self, fleet.close)
        try:
            self._client = await _quorate.Client.connect_async(fleet.endpoints, limit, self._plan.secret)
            if not await flow.run_async(self._client, cluster.started(fleet, limit)):
                raise cluster.unlinked(fleet, fleet.names, limit)
            await flow.run_async(self._client, self._roster.learn(limit))
        except BaseException:
            self._finalizer()
            raise
        return self

    @property
    def _fleet(self) -> Fleet:
        if self._started is None:
            raise Closed("this cluster is not started: use `async with`, or await start()")
        return self._started

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
        """End all processes and remove what is temporary. Closing twice is no error."""
        if self._started is not None:
            await super().close()
            await asyncio.to_thread(self._finalizer)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def _await_links(self, down: tuple[str, ...], timeout: float) -> bool:
        return await flow.run_async(self._client, cluster.noticed(self._fleet, self._board, down, timeout))

    def __repr__(self) -> str:
        if self._started is None:
            return f"<aio.Cluster of {len(self)} nodes, not started>"
        return f"<aio.Cluster {self.name!r} of {len(self)} nodes, {len(self._fleet.awake())} of them running>"


class Node(cluster.NodeView):
    """One node of a `Cluster`; see `quorate.Node`."""

    def __init__(self, owner: Cluster, name: str) -> None:
        super().__init__(owner._fleet, name)
        self._cluster = owner

    async def kill(self, *, wait: bool = True) -> None:
        """End it with SIGKILL; see `quorate.Node.kill`."""
        await asyncio.to_thread(self._fleet.kill, self._name)
        if wait:
            await self._cluster._await_links((self._name,), cluster.NOTICE_TIMEOUT)

    async def stop(self, *, timeout: float = cluster.STOP_TIMEOUT, wait: bool = True) -> None:
        """End it cleanly with SIGTERM; see `quorate.Node.stop`."""
        await asyncio.to_thread(
            self._fleet.stop, self._name, arguments.seconds(timeout, cluster.STOP_TIMEOUT)
        )
        if wait:
            await self._cluster._await_links((self._name,), cluster.NOTICE_TIMEOUT)

    async def restart(self, *, timeout: float = cluster.RESTART_TIMEOUT, wait: bool = True) -> None:
        """Start it again with the same data and the same addresses; see `quorate.Node.restart`."""
        timeout = arguments.seconds(timeout, cluster.RESTART_TIMEOUT)
        client, board = self._cluster._client, self._cluster._board
        board.starting(self._name)
        await asyncio.to_thread(self._fleet.restart, self._name, timeout)
        await flow.run_async(client, board.restore(self._name, timeout, fresh=True))
        if wait:
            names = {*self._fleet.awake(), self._name}
            if not await flow.run_async(client, cluster.relinked(self._fleet, board, names, timeout)):
                raise cluster.unlinked(self._fleet, names, timeout)

    async def pause(self) -> None:
        """Stop its clock with SIGSTOP; see `quorate.Node.pause`."""
        # Another thread may hold the fleet for as long as a node takes to start.
        await asyncio.to_thread(self._fleet.pause, self._name)

    async def resume(self) -> None:
        """Let it go on after `pause`; see `quorate.Node.resume`."""
        await asyncio.to_thread(self._fleet.resume, self._name)
        board = self._cluster._board
        await flow.run_async(
            self._cluster._client, board.restore(self._name, cluster.RESUME_TIMEOUT, fresh=False)
        )
