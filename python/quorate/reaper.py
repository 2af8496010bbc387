"""The last resort against leftovers: a small shell process that outlives a parent that was killed.

Nodes stop when the pipe from their parent closes, whatever ended the parent. Two things that cannot do: wake a node
that was paused, and remove the temporary directory. A reaper holds a pipe of its own and is told which processes run;
when the pipe closes without a farewell, it wakes them all, waits a little, kills what is left, and removes the
directory. A process that has ended but that nobody has waited for (a zombie: their parent is gone, and some containers'
first process takes its time) is not waited for here either.
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
    """Cleans up after this process, should it be killed.

    Parameters
    ----------
    directory : Path, optional
        What to remove then.
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
        """Watch over a process."""
        self._tell(f"born {pid}\n")

    def gone(self, pid: int) -> None:
        """Forget a process that has ended: its number may be given to another."""
        self._tell(f"gone {pid}\n")

    def farewell(self) -> None:
        """Everything is cleaned up: end."""
        self._tell("farewell\n")
        self._hang_up()
        self._process.wait()

    def disown(self) -> None:
        """In a forked child: close the pipe and forget that there is a process to wait for."""
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
