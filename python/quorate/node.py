# Generated from aio/node.py by python/generate_sync.py: change that file, then run it.
"""A node of a `Cluster`: its process ends, starts, is paused and resumed.

What blocks runs in a thread that ends before its caller does, even one that is interrupted or cancelled: see
`quorate.background`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from quorate import arguments, background, flow, readiness
from quorate.node_view import NodeView

if TYPE_CHECKING:
    from quorate._quorate import Client
    from quorate.faults_client import FaultsClient
    from quorate.processes import Processes

__all__ = ["Node"]

NOTICE_TIMEOUT = 2.0
"""Seconds that the other nodes are given to notice that one has ended."""
RESUME_TIMEOUT = 5.0
"""Seconds that a node has to answer when it has been let go on."""
STOP_TIMEOUT = 10.0
"""Seconds that a node may take to stop, when nothing else is said."""
RESTART_TIMEOUT = 30.0
"""Seconds that a node may take to be back, when nothing else is said."""


class NodeOwner(Protocol):
    """What a node needs of its cluster, so that it need not know clusters."""

    _faults_client: FaultsClient

    @property
    def _client(self) -> Client: ...

    @property
    def _processes(self) -> Processes: ...

    def _await_links(self, down: tuple[str, ...], timeout: float) -> bool: ...


class Node(NodeView):
    """One node of a `Cluster`: a process to look at and to break; got from ``cluster["n1"]``."""

    def __init__(self, cluster: NodeOwner, name: str) -> None:
        super().__init__(cluster._processes, name)
        self._cluster = cluster

    def kill(self, *, wait: bool = True) -> None:
        """End it with SIGKILL.

        Parameters
        ----------
        wait : bool
            Whether to return only when the other nodes have noticed, which takes milliseconds.
        """
        background.run(lambda: self._processes.kill(self._name))
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
        background.run(lambda: self._processes.stop(self._name, limit, given_up), given_up.set)
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
        client, faults_client = self._cluster._client, self._cluster._faults_client
        with faults_client.restarting(self._name):
            background.run(lambda: self._processes.restart(self._name, timeout, given_up), given_up.set)
            flow.run(client, faults_client.restore(self._name, timeout, fresh=True))
        if wait:
            names = {*self._processes.awake(), self._name}
            if not flow.run(client, readiness.relinked(self._processes, faults_client, names, timeout)):
                raise readiness.unlinked(self._processes, names, timeout)

    def pause(self) -> None:
        """Stop its clock with SIGSTOP: it keeps its connections and answers nothing, as a long stall does."""
        # Another thread may hold the processes for as long as a node takes to start.
        background.run(lambda: self._processes.pause(self._name))

    def resume(self) -> None:
        """Let it go on after `pause`. It learns of the faults that were made or healed meanwhile."""
        background.run(lambda: self._processes.resume(self._name))
        faults_client = self._cluster._faults_client
        flow.run(self._cluster._client, faults_client.restore(self._name, RESUME_TIMEOUT, fresh=False))
