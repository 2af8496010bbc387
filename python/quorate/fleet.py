"""The processes of a cluster on this machine, together: started in parallel, ended in parallel, nothing left behind.

A fleet knows processes, ports and directories, and nothing of clients: `quorate.Cluster` and `quorate.aio.Cluster`
both stand on it. It belongs to the process that made it. A forked child lets go of it, so that neither the child's
end nor its garbage collector stops the parent's nodes, and so that the child does not hold the pipes whose closing
tells the nodes that the parent is gone.
"""

from __future__ import annotations

import contextlib
import json
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

from quorate.arguments import log_filter, mapping, node_number, secret_text, switch, text, timing
from quorate.errors import AddressInUse, Closed, DataDirectoryError, InvalidArgument, NotFound, StopTimeout
from quorate.faults import IDLE
from quorate.process import NodeProcess
from quorate.reaper import Reaper
from quorate.ring import MAX_NODES, Ring
from quorate.tuning import tuned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Fleet", "Plan"]

_STOP_PATIENCE = 5.0
_REBIND_PATIENCE = 3.0
_REBIND_PAUSE = 0.05
_MARK = "cluster.json"

_fleets: weakref.WeakSet[Fleet] = weakref.WeakSet()


class Plan:
    """What a cluster is to be: checked before anything is started.

    Parameters are those of `quorate.Cluster`.
    """

    def __init__(
        self,
        nodes: int,
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
        start_timeout: float = 30.0,
        log_level: str = "info",
        secret: str | None = None,
        insecure: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(nodes, int) or isinstance(nodes, bool) or not 0 < nodes <= MAX_NODES:
            raise InvalidArgument(f"nodes={nodes!r}: a cluster has a whole number of nodes, at least one")
        highest = 65536 - 10 * nodes
        if port is not None and (
            not isinstance(port, int) or isinstance(port, bool) or not 0 < port <= highest
        ):
            raise InvalidArgument(
                f"port={port!r}: {nodes} node(s) need ten ports each from there, below 65536"
            )
        self.settings = tuned(settings)
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self.racks = mapping(racks, "racks")
        self.datacenters = mapping(datacenters, "datacenters")
        # A ring that cannot be is an error here, not of every node.
        Ring(self.names, vnodes=vnodes, hash=hash, racks=self.racks, datacenters=self.datacenters)
        self.data_dir = None if data_dir is None else _directory(data_dir)
        self.name = None if name is None else text(name, "name")
        self.vnodes = vnodes
        self.hash = hash
        self.raft_timing = timing(raft_timing)
        self.host = text(host, "host")
        self.port = port
        self.start_timeout = start_timeout
        self.log_level = log_filter(log_level)
        self.secret = secret_text(secret)
        self.insecure = switch(insecure, "insecure")

    @property
    def idle(self) -> float:
        """Seconds of silence after which a link counts as broken."""
        milliseconds = self.settings.get("idle_ms")
        return IDLE if milliseconds is None else float(milliseconds) / 1e3

    def listen(self, name: str) -> dict[str, str]:
        """Tell where a node is to listen."""
        if self.port is None:
            return dict.fromkeys(("client", "peer", "http"), f"{self.host}:0")
        first = self.port + 10 * (node_number(name) - 1)
        return {what: f"{self.host}:{first + i}" for i, what in enumerate(("client", "peer", "http"))}


def _directory(given: str | os.PathLike[str]) -> Path:
    """Read what was given as a data directory."""
    try:
        path = os.fspath(given)
        if isinstance(path, str) and path and "\0" not in path:
            return Path(path).absolute()
    except TypeError:
        pass
    raise InvalidArgument(f"data_dir={given!r}: give the path of a directory")


class Fleet:
    """The running processes of a plan.

    Parameters
    ----------
    plan : Plan
        What to start.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._processes: dict[str, NodeProcess] = {}
        self._members: list[dict[str, Any]] = []
        self._closed = False
        self._temporary = plan.data_dir is None
        self.directory = _temporary_directory() if plan.data_dir is None else plan.data_dir
        self._reaper: Reaper | None = None
        try:
            self._reaper = Reaper(self.directory if self._temporary else None)
            _fleets.add(self)
            self.name = self._settle()
            self._start_all()
        except BaseException:
            self.close()
            raise

    # Starting ---------------------------------------------------------------------------------------------------------

    def _settle(self) -> str:
        """Find or write the mark that says whose directory this is; returns the cluster's name."""
        plan = self._plan
        mark = self.directory / _MARK
        wanted = {"nodes": len(plan.names), "vnodes": plan.vnodes, "hash": plan.hash}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not mark.exists():
                name = plan.name or f"local-{secrets.token_hex(4)}"
                mark.write_text(json.dumps({"cluster": name, **wanted}) + "\n")
                return name
            found = json.loads(mark.read_text())
            name = str(found.pop("cluster"))
        except OSError as error:
            raise DataDirectoryError(
                f"data_dir={str(self.directory)!r} cannot be used ({error.strerror}: {error.filename}): give a"
                " directory that can be written to, or leave data_dir out"
            ) from error
        except (ValueError, KeyError, AttributeError) as error:
            raise DataDirectoryError(
                f"{mark} is not what Quorate writes there ({error}): restore it, or use another data_dir"
            ) from error
        if plan.name not in (None, name):
            raise DataDirectoryError(
                f"data_dir={str(self.directory)!r} belongs to cluster {name!r}, not to {plan.name!r}: leave name out,"
                " or use another data_dir"
            )
        if found != wanted:
            differing = ", ".join(
                f"{key}={found.get(key)!r} (not {value!r})"
                for key, value in wanted.items()
                if found.get(key) != value
            )
            raise DataDirectoryError(
                f"data_dir={str(self.directory)!r} holds a cluster with {differing}: start it with that, or use"
                " another data_dir"
            )
        return name

    def _start_all(self) -> None:
        deadline = time.monotonic() + self._plan.start_timeout
        for name in self._plan.names:
            self._spawn(name, self._plan.listen(name), None)
        for name in self._plan.names:
            self._members.append(self._member(name, self._processes[name].bound(deadline)))
        for process in self._processes.values():
            process.start(self._members)
        for process in self._processes.values():
            process.serving(deadline)

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
            "vnodes": plan.vnodes,
            "hash": plan.hash,
            "raft_timing": plan.raft_timing,
            "parent_pipe": True,
            "log": {"level": plan.log_level},
            "secret": plan.secret,
            "insecure": plan.insecure,
            # A cluster that a program starts is one to experiment with.
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

    # What is there ----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The names of all nodes, running or not."""
        return list(self._plan.names)

    @property
    def endpoints(self) -> list[str]:
        """Where clients reach the nodes."""
        return [member["client"] for member in self._members]

    def data_dir(self, name: str) -> Path:
        """Tell where a node keeps its data."""
        return self.directory / name

    def member(self, name: str) -> dict[str, Any]:
        """Tell a node's addresses."""
        self.process(name)
        return self._members[self._plan.names.index(name)]

    def process(self, name: str) -> NodeProcess:
        """Find the process of a node, the last one if it has ended.

        Raises
        ------
        NotFound
            When there is no such node.
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

    # Doing things to nodes --------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """End a node with SIGKILL, as a power cut of its process would."""
        with self._mine():
            process = self.process(name)
            process.destroy()
            self._ended(process)

    def stop(self, name: str, timeout: float) -> None:
        """End a node cleanly with SIGTERM.

        Raises
        ------
        StopTimeout
            When it still runs after ``timeout`` seconds.
        """
        with self._mine():
            process = self.process(name)
            process.signal(signal.SIGTERM)
            self._resume(process)
            if not process.wait(timeout):
                raise StopTimeout(
                    f"{name} still runs {timeout:g} s after SIGTERM: wait for it, or use kill()"
                )
            process.hang_up()
            self._ended(process)

    def pause(self, name: str) -> None:
        """Stop a node's clock with SIGSTOP: it keeps its connections and answers nothing."""
        with self._mine():
            process = self._running(name)
            process.signal(signal.SIGSTOP)
            process.paused = True

    def resume(self, name: str) -> None:
        """Let a paused node go on."""
        with self._mine():
            self._resume(self._running(name))

    def restart(self, name: str, timeout: float) -> None:
        """Start a node again with the same data and the same addresses, ending it first if it runs.

        Raises
        ------
        AddressInUse
            When somebody has taken one of its ports meanwhile.
        ClusterStartError
            When it does not start.
        """
        with self._mine():
            process = self.process(name)
            if process.exit_code is None:
                if process.paused:
                    self.kill(name)
                else:
                    self.stop(name, _STOP_PATIENCE)
            else:
                process.hang_up()
                self._ended(process)
            member = self.member(name)
            listen = {what: member[what] for what in ("peer", "client", "http")}
            deadline = time.monotonic() + timeout
            rebind_until = min(deadline, time.monotonic() + _REBIND_PATIENCE)
            while True:
                process = self._spawn(name, listen, self._members)
                try:
                    process.bound(deadline)
                    process.serving(deadline)
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
    def _mine(self) -> Iterator[None]:
        if self._owner != os.getpid():
            raise Closed(
                f"this cluster belongs to process {self._owner}; this one was forked from it: connect to"
                f" {','.join(self.endpoints)} instead"
            )
        with self._lock:
            if self._closed:
                raise Closed("this cluster is closed: start another one")
            yield

    # Ending -----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all processes and remove what is temporary. Closing twice is no error."""
        if self._owner != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._stop_all()
            finally:
                for process in self._processes.values():
                    process.destroy()
                if self._temporary:
                    shutil.rmtree(self.directory, ignore_errors=True)
                if self._reaper is not None:
                    self._reaper.farewell()
                _fleets.discard(self)

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
            f"no temporary directory can be made ({error}): set TMPDIR to one, or give a data_dir"
        ) from error


def _after_fork() -> None:
    for fleet in list(_fleets):
        fleet._let_go()


os.register_at_fork(after_in_child=_after_fork)
