"""Executing notebooks as their readers do."""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "notebooks"
PATIENCE = 40.0
"""Seconds that all notebooks may take together, on a busy machine with two cores."""


def execute(folder, *notebooks, **environment):
    """Execute notebooks with this interpreter; returns them as they are afterwards."""
    output = folder / "executed"
    output.mkdir()
    log = folder / "log.txt"
    # A file, not a pipe: a process that was left behind would keep a pipe open, and nobody would be told of it.
    with log.open("w") as said:
        done = subprocess.run(
            [sys.executable, FOLDER / "execute.py", "--output", output, *notebooks],
            stdout=said,
            stderr=said,
            timeout=PATIENCE,
            env={**os.environ, **environment},
        )
    assert done.returncode == 0, log.read_text()
    return {path.name: json.loads(path.read_text()) for path in output.iterdir()}


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
