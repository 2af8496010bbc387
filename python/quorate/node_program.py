"""The program of one node, run by ``quorate node`` and by the processes of a `Cluster`.

Imported on every start of a node, so it imports only the extension.
"""

from __future__ import annotations

import os

from quorate._quorate import run_node

__all__ = ["child"]


def child() -> int:
    """Run the node whose configuration is the first line of the standard input.

    Returns
    -------
    int
        The exit code.
    """
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            return 0
        line += chunk
    return run_node(line.decode())
