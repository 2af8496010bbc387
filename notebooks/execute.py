"""Execute the notebooks and write their outputs into them: ``python notebooks/execute.py``.

They run with the interpreter that runs this program, and with default settings: no Jupyter configuration of the user
is read, and no history, profile or connection file is left behind.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CELL_TIMEOUT = 30
"""Seconds that a cell may take."""


def execute(path: Path, output: Path) -> None:
    """Execute one notebook in the folder that it is in.

    Parameters
    ----------
    path : Path
        The notebook.
    output : Path
        Where to write it, with its outputs, if no cell has failed.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell has failed.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    # Without kernel folders, "python3" is this interpreter, even if other kernels are installed.
    specs = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    client = NotebookClient(
        notebook,
        AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs),
        timeout=CELL_TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(cleanup_kc=True)
    # The kernel has added its version, which does not belong to the notebook.
    notebook.metadata.language_info = {"name": "python"}
    output.write_text(nbformat.writes(notebook) + "\n")


def main() -> None:
    """Execute the given notebooks, or all in this folder."""
    parser = argparse.ArgumentParser(description="execute notebooks and write their outputs into them")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all in this folder by default")
    parser.add_argument("--output", type=Path, help="write them into this folder instead of overwriting them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            os.environ[name] = str(Path(scratch, name.lower()))
        # The debugger of the kernel warns about interpreters whose standard library is frozen.
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
        os.environ.pop("MPLBACKEND", None)
        for path in arguments.notebooks or sorted(HERE.glob("*.ipynb")):
            folder = arguments.output or path.parent
            execute(path, folder / path.name)
            print(path.name, file=sys.stderr)


if __name__ == "__main__":
    main()
