# Generated from aio/node.py by python/generate_sync.py: change that file, then run it.
"""A node of a `Cluster`: stop, kill, restart, pause and resume its process.

Blocking work runs in a thread that ends before its caller, even if that is interrupted or cancelled: see
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
"""Seconds to wait for the other nodes to detect that a node has ended."""
RESUME_TIMEOUT = 5.0
"""Seconds to wait for the response of a node that was resumed."""
STOP_TIMEOUT = 10.0
"""Default timeout of a stop, in seconds."""
RESTART_TIMEOUT = 30.0
"""Default timeout of a restart, in seconds."""


class NodeOwner(Protocol):
    """The part of a cluster that a node depends on."""

    _faults_client: FaultsClient

    @property
    def _client(self) -> Client: ...

    @property
    def _processes(self) -> Processes: ...

    def _await_links(self, down: tuple[str, ...], timeout: float) -> bool: ...


class Node(NodeView):
    """One node of a `Cluster`, returned by ``cluster["n1"]``: controls its process."""

    def __init__(self, cluster: NodeOwner, name: str) -> None:
        super().__init__(cluster._processes, name)
        self._cluster = cluster

    def kill(self, *, wait: bool = True) -> None:
        """Kill it with SIGKILL.

        Parameters
        ----------
        wait : bool
            Return only when the other nodes have detected it, which takes milliseconds.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster["n3"].kill()
        ...     cluster["n3"].exit_code
        -9
        """
        background.run(lambda: self._processes.kill(self._name))
        if wait:
            self._cluster._await_links((self._name,), NOTICE_TIMEOUT)

    def stop(self, *, timeout: float = STOP_TIMEOUT, wait: bool = True) -> None:
        """Stop it cleanly with SIGTERM.

        Parameters
        ----------
        timeout : float
            Timeout in seconds.
        wait : bool
            Return only when the other nodes have detected it.

        Raises
        ------
        StopTimeout
            It still runs after the timeout; it continues to stop.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster["n3"].stop()
        ...     cluster["n3"].exit_code
        0
        """
        limit, given_up = arguments.seconds(timeout, STOP_TIMEOUT), threading.Event()
        background.run(lambda: self._processes.stop(self._name, limit, given_up), given_up.set)
        if wait:
            self._cluster._await_links((self._name,), NOTICE_TIMEOUT)

    def restart(self, *, timeout: float = RESTART_TIMEOUT, wait: bool = True) -> None:
        """Restart it with the same data and the same addresses; a running node is stopped first.

        Active faults are applied to it shortly after its start.

        Parameters
        ----------
        timeout : float
            Timeout in seconds.
        wait : bool
            Return only when it and the other running nodes see each other again, except across partitions.

        Raises
        ------
        AddressInUse
            Another process uses one of its ports.
        ClusterStartError
            It fails to start; the message says why.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster["n3"].kill()
        ...     cluster["n3"].restart()
        ...     cluster["n3"].running
        True
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
        """Pause it with SIGSTOP: it keeps its connections and does not respond, like a long stall.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster["n3"].pause()
        ...     cluster["n3"].running, cluster["n3"].paused
        (True, True)
        """
        # Another thread may hold the lock for as long as a node takes to start.
        background.run(lambda: self._processes.pause(self._name))

    def resume(self) -> None:
        """Resume it after `pause`, and update its faults to those that are active now.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster["n3"].pause()
        ...     cluster["n3"].resume()
        ...     cluster["n3"].paused
        False
        """
        background.run(lambda: self._processes.resume(self._name))
        faults_client = self._cluster._faults_client
        flow.run(self._cluster._client, faults_client.restore(self._name, RESUME_TIMEOUT, fresh=False))
