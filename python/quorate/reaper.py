"""Cleanup after a parent that was killed: a small shell process that outlives it.

Nodes stop when the pipe from their parent closes, whatever ended the parent. This can neither resume a paused node nor
remove the temporary directory. A reaper has a pipe of its own, over which it learns the running processes; when the
pipe closes without a farewell, it resumes them all, waits briefly, kills the remaining ones, and removes the directory.
It does not wait for zombies: their parent is gone, and the init process of some containers reaps them late.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Reaper"]

_SCRIPT = """
trap '' HUP INT TERM
pids=
while read -r verb pid; do
    case $verb in
    born) pids="$pids $pid" ;;
    gone)
        kept=
        for other in $pids; do [ "$other" = "$pid" ] || kept="$kept $other"; done
        pids=$kept
        ;;
    farewell) exit 0 ;;
    esac
done
runs() {
    kill -0 "$1" 2>/dev/null || return 1
    if read -r stat 2>/dev/null <"/proc/$1/stat"; then
        case $stat in *") Z "*) return 1 ;; esac
    fi
}
for pid in $pids; do kill -CONT "$pid" 2>/dev/null; done
patience=60
while [ $patience -gt 0 ]; do
    alive=
    for pid in $pids; do runs "$pid" && alive="$alive $pid"; done
    [ -z "$alive" ] && break
    patience=$((patience - 1))
    sleep 0.05
done
for pid in $pids; do kill -KILL "$pid" 2>/dev/null; done
[ -z "$1" ] || rm -rf -- "$1"
"""


class Reaper:
    """Cleans up if this process is killed.

    Parameters
    ----------
    directory : Path, optional
        The directory to remove then.
    """

    def __init__(self, directory: Path | None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "quorate-reaper", "" if directory is None else str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )

    def born(self, pid: int) -> None:
        """Register a process."""
        self._tell(f"born {pid}\n")

    def gone(self, pid: int) -> None:
        """Unregister a process that has ended: its pid may be reused."""
        self._tell(f"gone {pid}\n")

    def farewell(self) -> None:
        """End the reaper: everything is cleaned up."""
        self._tell("farewell\n")
        self._hang_up()
        self._process.wait()

    def disown(self) -> None:
        """In a forked child: close the pipe and forget the process."""
        self._hang_up()
        self._process.returncode = 0

    def _hang_up(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                os.write(self._process.stdin.fileno(), line.encode())
