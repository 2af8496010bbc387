"""Execute notebooks as their readers do."""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "notebooks"
PATIENCE = 40.0
"""Seconds that all notebooks may take together, on a busy machine with two cores."""


def execute(folder, *notebooks, **environment):
    """Execute notebooks with this interpreter; return the results."""
    output = folder / "executed"
    output.mkdir()
    log = folder / "log.txt"
    # A file, not a pipe: a leftover process would keep a pipe open.
    with log.open("w") as output_log:
        done = subprocess.run(
            [sys.executable, FOLDER / "execute.py", "--output", output, *notebooks],
            stdout=output_log,
            stderr=output_log,
            timeout=PATIENCE,
            env={**os.environ, **environment},
        )
    assert done.returncode == 0, log.read_text()
    return {path.name: json.loads(path.read_text()) for path in output.iterdir()}


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
