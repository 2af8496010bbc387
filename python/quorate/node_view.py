"""The local view of a node of a `Cluster`, without requests to nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate import arguments
from quorate.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from quorate.processes import Processes

__all__ = ["NodeView"]


class NodeView:
    """The local view of a node."""

    def __init__(self, processes: Processes, name: str) -> None:
        self._processes = processes
        self._name = name

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def pid(self) -> int:
        """The id of its current or last process."""
        return self._processes.process(self._name).pid

    @property
    def address(self) -> str:
        """Its address for clients."""
        return str(self._processes.member(self._name)["client"])

    @property
    def peer_address(self) -> str:
        """Its address for the other nodes."""
        return str(self._processes.member(self._name)["peer"])

    @property
    def http_address(self) -> str:
        """Its address for ``/metrics``."""
        return str(self._processes.member(self._name)["http"])

    @property
    def data_dir(self) -> Path:
        """Its data directory."""
        return self._processes.data_dir(self._name)

    @property
    def running(self) -> bool:
        """Whether its process exists; a paused one does."""
        return self.exit_code is None

    @property
    def paused(self) -> bool:
        """Whether it was paused and not resumed."""
        return self._processes.process(self._name).paused

    @property
    def exit_code(self) -> int | None:
        """The exit code of its process: ``None`` while it runs, 0 after `stop`, -9 after `kill`."""
        return self._processes.process(self._name).exit_code

    def log(self, lines: int | None = None) -> str:
        """Read its log, which spans restarts.

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
            The file does not exist.
        """
        if lines is not None:
            arguments.whole_number(lines, "lines", 1, 2**31)
        path = self._processes.process(self._name).log
        try:
            text = path.read_text(errors="replace")
        except OSError as error:
            raise NotFound(
                f"the log of {self._name} is missing ({error}): it was removed from {path.parent}"
            ) from error
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def __repr__(self) -> str:
        code = self.exit_code
        state = (
            "paused"
            if self.paused
            else "running"
            if code is None
            else self._processes.process(self._name).ending()
        )
        return f"<Node {self._name}: {state}, pid {self.pid}, clients {self.address}>"
