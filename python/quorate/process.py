"""One node as an operating-system process: start it, wait until it is ready, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quorate.errors import AddressInUse, ClusterStartError, DataDirectoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quorate.background import Patience

__all__ = ["NodeProcess"]

_BOOT = "import sys; sys.path.append(sys.argv[1]); from quorate.node_program import child; sys.exit(child())"
_LOG_TAIL = 4000
# Seconds to wait for a node's exit after it has reported why it cannot start.
_LAST_WORDS = 2.0

# Signals that kill a process that reads a mapped file whose pages are damaged or missing.
_MAP_FAULTS = (signal.SIGSEGV, signal.SIGBUS)

# Exceptions by the node program's names of errors; all others are a plain ClusterStartError.
_KINDS: dict[str, type[ClusterStartError]] = {
    "AddressInUse": AddressInUse,
    "DirectoryInUse": DataDirectoryError,
    "ForeignCluster": DataDirectoryError,
    "ForeignNode": DataDirectoryError,
    "Truncated": DataDirectoryError,
    "Corrupt": DataDirectoryError,
    "DataMissing": DataDirectoryError,
    "AlreadyFormed": DataDirectoryError,
    "FormatTooOld": DataDirectoryError,
    "FormatTooNew": DataDirectoryError,
    "ForeignLayout": DataDirectoryError,
    "OldGeneration": DataDirectoryError,
}


def _package_root() -> str:
    return str(Path(__file__).resolve().parent.parent)


class NodeProcess:
    """A running node program.

    The interpreter is started isolated (``-I -S``): the node needs only the standard library and this package, and
    neither the working directory nor the user's environment can interfere. The configuration is sent over the standard
    input, which stays open: its end signals the node that the parent is gone.

    Parameters
    ----------
    name : str
        The node.
    config : mapping
        Its configuration, see the node's documentation.
    log : Path
        The file that its output is appended to.
    """

    def __init__(self, name: str, config: Mapping[str, Any], log: Path) -> None:
        self.name = name
        self.log = log
        self.data_dir = config.get("data_dir")
        self.paused = False
        self._forming = bool(config.get("forming"))
        self._lines = b""
        if not sys.executable:
            raise ClusterStartError(
                f"{name} does not start: this program does not know its Python interpreter (sys.executable is empty)",
                node=name,
            )
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _BOOT,
            _package_root(),
            "node",
            name,
            str(config["cluster"]),
        ]
        try:
            with log.open("ab") as sink:
                self._log_start = sink.tell()
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=sink,
                    bufsize=0,
                    start_new_session=True,
                )
        except OSError as error:
            raise ClusterStartError(f"{name} does not start: {error}", node=name) from error
        try:
            self._send(config)
        except BaseException:
            self.destroy()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code; ``None`` while it runs, negative for a signal."""
        return self._process.poll()

    def ending(self) -> str:
        """Describe how it ended, with the probable cause."""
        return describe_end(self.exit_code, self.data_dir, self.log)

    def bound(self, patience: Patience) -> dict[str, str]:
        """Wait until it listens; returns its addresses by purpose."""
        found: dict[str, str] = self._report(patience)["bound"]
        return found

    def start(self, members: list[dict[str, Any]]) -> None:
        """Send it the list of members."""
        self._send(members)

    def serving(self, patience: Patience) -> None:
        """Wait until it is ready."""
        while not self._report(patience).get("ready"):
            pass
        if not self._forming:
            self._stop_listening()

    def form(self) -> None:
        """Notify it that the cluster is formed."""
        self._send({"formed": True})

    def formed(self, patience: Patience) -> None:
        """Wait until it has stored that durably."""
        while not self._report(patience).get("formed"):
            pass
        self._stop_listening()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def wait(self, timeout: float | None) -> bool:
        """Wait for its exit; returns whether it exited in time."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ended(self, patience: Patience) -> bool:
        """Wait for its exit; returns whether it exited in time."""
        while not self.wait(patience.slice()):
            if patience.left() <= 0:
                return False
        return True

    def hang_up(self) -> None:
        """Close the pipes: a node that still runs stops."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def disown(self) -> None:
        """In a forked child: close the pipes and forget the process."""
        self.hang_up()
        self._process.returncode = 0

    def destroy(self) -> None:
        """Kill it and wait for its exit."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        self.hang_up()

    def log_tail(self) -> str:
        """Read the end of its output since its start."""
        with contextlib.suppress(OSError), self.log.open("rb") as source:
            end = source.seek(0, os.SEEK_END)
            source.seek(max(self._log_start, end - _LOG_TAIL))
            return source.read().decode(errors="replace").strip()
        return ""

    def _stop_listening(self) -> None:
        """Close its standard output: no more reports are expected."""
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        # A node that has ended reports the reason on its standard output, where the error is raised.
        with contextlib.suppress(BrokenPipeError):
            data = memoryview(json.dumps(message).encode() + b"\n")
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]

    def _report(self, patience: Patience) -> dict[str, Any]:
        """Read the next line of its standard output."""
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(source, select.POLLIN)
        while b"\n" not in self._lines:
            if not poll.poll(patience.slice() * 1000):
                if patience.left() <= 0:
                    raise self._failure("it did not report that it is ready in time")
                continue
            chunk = os.read(source, 65536)
            if not chunk:
                self._process.wait()
                raise self._failure(f"it {self.ending()}")
            self._lines += chunk
        line, _, self._lines = self._lines.partition(b"\n")
        try:
            report: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._failure(f"it printed {line[:80]!r} instead of a report") from None
        if "error" in report:
            self.wait(_LAST_WORDS)
            raise start_failure(self.name, report["error"], report["message"], self.log_tail())
        return report

    def fall(self) -> ClusterStartError:
        """Create the error for a node that started and then ended."""
        return self._failure(f"it {self.ending()} soon after its start")

    def _failure(self, reason: str) -> ClusterStartError:
        tail = self.log_tail()
        last = f"; the end of {self.log}:\n{tail}" if tail else f" (its log {self.log} is empty)"
        return ClusterStartError(f"{self.name} does not start: {reason}{last}", node=self.name, log=tail)


def describe_end(code: int | None, data_dir: object, log: Path) -> str:
    """Describe the exit code of a node."""
    if code is None or -code not in _MAP_FAULTS:
        return f"ended with exit code {code}"
    return (
        f"ended by {signal.Signals(-code).name}: probably a damaged data file in {data_dir}; start the node under a"
        f" new id with an empty directory, or put a copy of the whole directory in its place, if the node has not run"
        f" since the copy was made; the log is {log}"
    )


def start_failure(node: str, error: str, message: str, log: str) -> ClusterStartError:
    """Create the exception for an error that a node reported before it ended."""
    kind = _KINDS.get(error, ClusterStartError)
    return kind(f"{node} does not start: {message}", node=node, log=log)
