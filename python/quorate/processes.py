"""The processes of a cluster on this machine: started and stopped in parallel, without leftovers.

`Processes` manages processes, ports and directories, and does not depend on clients: `quorate.Cluster` and
`quorate.aio.Cluster` are built on it. It belongs to the process that started it. A forked child releases it, so that
neither the child's exit nor its garbage collector stops the parent's nodes, and so that the child does not hold the
pipes whose closing signals the nodes that the parent is gone.

Methods that start and stop processes are called through `quorate.background`: no interruption strikes between the
creation of a process and its registration here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quorate.arguments import node_number
from quorate.background import SLICE, Patience
from quorate.data_directory import DataDirectory, Mark
from quorate.errors import AddressInUse, Closed, ClusterStartError, DataDirectoryError, NotFound, StopTimeout
from quorate.process import NodeProcess
from quorate.reaper import Reaper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from quorate.plan import Plan

__all__ = ["Processes"]

_STOP_PATIENCE = 5.0
_REBIND_PATIENCE = 3.0
_REBIND_PAUSE = 0.05
# Seconds for the nodes of a killed program to end: they take at most five.
_LOCK_PATIENCE = 6.0
# Seconds for all nodes to store that the cluster is formed.
_FORM_PATIENCE = 30.0

_instances: weakref.WeakSet[Processes] = weakref.WeakSet()


class Processes:
    """The running processes of a plan, started once: `start`, then `form` when the cluster is ready, then `close`.

    Parameters
    ----------
    plan : Plan
        What to start.
    """

    directory: Path
    """Directory of data and logs, once it is started."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._abandoned = threading.Event()
        self._processes: dict[str, NodeProcess] = {}
        self._members: list[dict[str, Any]] = []
        self._closed = False
        self._data: DataDirectory | None = None
        self._temporary: Path | None = None
        self._mark = Mark(True, plan.name or f"local-{secrets.token_hex(4)}", plan.shape)
        self._reaper: Reaper | None = None

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self._mark.name

    # Starting ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the processes; returns when all of them are ready.

        Raises
        ------
        ClusterStartError
            A node failed to start. `close` stops the others.
        Closed
            It was abandoned or closed during the start.
        """
        with self._mine():
            _instances.add(self)
            patience = Patience(self._plan.start_timeout, self._abandoned)
            self._settle()
            try:
                self._reaper = Reaper(self._temporary)
            except OSError as error:
                raise ClusterStartError(
                    f"the shell that cleans up if this program is killed does not start ({error}): it needs"
                    " /bin/sh, a process and some open files"
                ) from error
            for name in self._plan.names:
                patience.left()
                self._spawn(name, self._plan.listen(name), None)
            for name in self._plan.names:
                self._members.append(self._member(name, self._processes[name].bound(patience)))
            for process in self._processes.values():
                process.start(self._members)
            for process in self._processes.values():
                process.serving(patience)

    def _settle(self) -> None:
        """Prepare the directory, and determine whether it holds a cluster."""
        plan = self._plan
        if plan.data_dir is None:
            self.directory = self._temporary = _temporary_directory()
        else:
            self.directory = plan.data_dir
            self._data = DataDirectory(plan.data_dir)
            self._mark = self._data.claim(plan.name, self._mark.name, plan.shape)

    def form(self) -> None:
        """Record that the cluster is ready, and let the nodes accept keyspaces: from now on its data is kept.

        Raises
        ------
        ClusterStartError
            The record cannot be written, or a node has ended.
        """
        with self._mine():
            if self._data is None or self._mark.formed:
                return
            self._data.form(self._mark)
            self._mark = self._mark._replace(formed=True)
            patience = Patience(_FORM_PATIENCE, self._abandoned)
            for process in self._processes.values():
                process.form()
            for process in self._processes.values():
                process.formed(patience)

    def abandon(self) -> None:
        """Cancel a start or another pending operation. Does not block; `close` does the rest."""
        self._abandoned.set()

    def _spawn(
        self, name: str, listen: Mapping[str, str], members: list[dict[str, Any]] | None
    ) -> NodeProcess:
        plan = self._plan
        config = {
            "cluster": self.name,
            "node_id": node_number(name),
            "data_dir": str(self.data_dir(name)),
            "listen": listen,
            "members": members,
            "vnodes": plan.shape.vnodes,
            "hash": plan.shape.hash,
            "raft_timing": plan.raft_timing,
            "parent_pipe": True,
            "forming": not self._mark.formed,
            # This program holds the directory: another process in a node's directory is about to exit.
            "lock_timeout_ms": int(_LOCK_PATIENCE * 1000),
            "log": {"level": plan.log_level},
            "secret": plan.secret,
            "insecure": plan.insecure,
            # Clusters that a program starts are for experiments.
            "allow_faults": True,
            **plan.settings,
        }
        process = NodeProcess(name, config, self.directory / f"{name}.log")
        self._processes[name] = process
        if self._reaper is not None:
            self._reaper.born(process.pid)
        return process

    def _member(self, name: str, bound: Mapping[str, str]) -> dict[str, Any]:
        return {
            "id": node_number(name),
            **{what: bound[what] for what in ("peer", "client", "http")},
            "rack": self._plan.racks.get(name, "default"),
            "datacenter": self._plan.datacenters.get(name, "default"),
        }

    # Queries ----------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The names of all nodes, running or not."""
        return list(self._plan.names)

    @property
    def endpoints(self) -> list[str]:
        """The nodes' addresses for clients."""
        return [member["client"] for member in self._members]

    def data_dir(self, name: str) -> Path:
        """Return a node's data directory."""
        return self.directory / name

    def member(self, name: str) -> dict[str, Any]:
        """Return a node's addresses."""
        self.process(name)
        return self._members[self._plan.names.index(name)]

    def process(self, name: str) -> NodeProcess:
        """Return the current or last process of a node.

        Raises
        ------
        NotFound
            If the node does not exist.
        """
        try:
            return self._processes[name]
        except (KeyError, TypeError):
            names = ", ".join(self._plan.names)
            raise NotFound(f"no node {name!r}: this cluster has {names}") from None

    def fallen(self, names: Iterable[str]) -> NodeProcess | None:
        """Find a node among these that has ended."""
        processes = (self._processes[name] for name in names)
        return next((process for process in processes if process.exit_code is not None), None)

    def awake(self) -> list[str]:
        """List the nodes that run and are not paused."""
        return [
            name
            for name, process in self._processes.items()
            if process.exit_code is None and not process.paused
        ]

    # Operations on nodes ----------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Kill a node with SIGKILL."""
        with self._mine():
            process = self.process(name)
            process.destroy()
            self._ended(process)

    def stop(self, name: str, timeout: float, given_up: threading.Event) -> None:
        """Stop a node cleanly with SIGTERM.

        Raises
        ------
        StopTimeout
            If it still runs after ``timeout`` seconds.
        Closed
            If it was cancelled; the node continues to stop.
        """
        with self._mine(given_up):
            process = self.process(name)
            process.signal(signal.SIGTERM)
            self._resume(process)
            if not process.ended(Patience(timeout, self._abandoned, given_up)):
                raise StopTimeout(
                    f"{name} still runs {timeout:g} s after SIGTERM: wait for it, or use kill()"
                )
            process.hang_up()
            self._ended(process)

    def pause(self, name: str) -> None:
        """Pause a node with SIGSTOP: it keeps its connections and does not respond."""
        with self._mine():
            process = self._running(name)
            process.signal(signal.SIGSTOP)
            process.paused = True

    def resume(self, name: str) -> None:
        """Resume a paused node."""
        with self._mine():
            self._resume(self._running(name))

    def restart(self, name: str, timeout: float, given_up: threading.Event) -> None:
        """Restart a node with the same data and the same addresses; a running node is stopped first.

        Raises
        ------
        AddressInUse
            If another process uses one of its ports.
        ClusterStartError
            If it fails to start.
        Closed
            If it was cancelled; the node does not run, or continues to stop.
        """
        with self._mine(given_up):
            process = self.process(name)
            if process.exit_code is None:
                if process.paused:
                    self.kill(name)
                else:
                    self.stop(name, _STOP_PATIENCE, given_up)
            else:
                process.hang_up()
                self._ended(process)
            member = self.member(name)
            listen = {what: member[what] for what in ("peer", "client", "http")}
            patience = Patience(timeout, self._abandoned, given_up)
            rebind_until = time.monotonic() + min(timeout, _REBIND_PATIENCE)
            while True:
                patience.left()
                process = self._spawn(name, listen, self._members)
                try:
                    process.bound(patience)
                    process.serving(patience)
                except BaseException as error:
                    process.destroy()
                    self._ended(process)
                    if isinstance(error, AddressInUse) and time.monotonic() < rebind_until:
                        time.sleep(_REBIND_PAUSE)
                        continue
                    raise
                return

    def _running(self, name: str) -> NodeProcess:
        process = self.process(name)
        if process.exit_code is not None:
            raise Closed(f"{name} does not run (it {process.ending()}): restart() it first")
        return process

    @staticmethod
    def _resume(process: NodeProcess) -> None:
        process.signal(signal.SIGCONT)
        process.paused = False

    def _ended(self, process: NodeProcess) -> None:
        if self._reaper is not None:
            self._reaper.gone(process.pid)

    @contextlib.contextmanager
    def _mine(self, *given_up: threading.Event) -> Iterator[None]:
        """Take exclusive access. Another operation may hold it for as long as a node takes to start."""
        if self._owner != os.getpid():
            raise Closed(
                f"this cluster belongs to process {self._owner}; this one was forked from it: connect to"
                f" {','.join(self.endpoints)} instead"
            )
        while not self._lock.acquire(timeout=SLICE):
            self._check_wanted(given_up)
        try:
            self._check_wanted(given_up)
            yield
        finally:
            self._lock.release()

    def _check_wanted(self, given_up: Iterable[threading.Event]) -> None:
        if self._abandoned.is_set():
            raise Closed("this cluster is closed: start another one")
        if any(event.is_set() for event in given_up):
            raise Closed("this operation was cancelled before it began: repeat it")

    # Ending -----------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it is closed or closing."""
        return self._abandoned.is_set()

    def close(self) -> None:
        """Stop all processes and remove temporary files. Closing twice is no error: both return when it is done."""
        if self._owner != os.getpid():
            return
        self.abandon()
        with self._lock:
            if self._closed:
                return
            with contextlib.ExitStack() as ending:
                # From the last to the first, each even if another one fails.
                ending.callback(_instances.discard, self)
                if self._data is not None:
                    ending.callback(self._data.release)
                if self._reaper is not None:
                    ending.callback(self._reaper.farewell)
                if self._temporary is not None:
                    ending.callback(shutil.rmtree, self._temporary, ignore_errors=True)
                for process in self._processes.values():
                    ending.callback(process.destroy)
                self._stop_all()
            self._closed = True

    def _stop_all(self) -> None:
        for process in self._processes.values():
            process.signal(signal.SIGTERM)
            self._resume(process)
        deadline = time.monotonic() + _STOP_PATIENCE
        for process in self._processes.values():
            process.wait(max(0.0, deadline - time.monotonic()))

    def _let_go(self) -> None:
        """In a forked child: close the copies of the pipes, and never touch the processes."""
        for process in self._processes.values():
            process.disown()
        if self._reaper is not None:
            self._reaper.disown()
        self._lock = threading.RLock()


def _temporary_directory() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="quorate-"))
    except OSError as error:
        raise DataDirectoryError(
            f"no temporary directory can be created ({error}): set TMPDIR, or give a data_dir"
        ) from error


def _after_fork() -> None:
    for processes in list(_instances):
        processes._let_go()


os.register_at_fork(after_in_child=_after_fork)
