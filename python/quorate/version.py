"""The version of these Python files, and a check that the extension was built with them.

An extension of another build fails late and obscurely, with a missing method or a result of another shape. It is
therefore rejected on import.
"""

from __future__ import annotations

import os
import zlib

__all__ = ["VERSION", "check"]

VERSION = "0.1.0"
"""The version, the same as in ``Cargo.toml``."""

_REMEDY = (
    "reinstall with `pip install --force-reinstall quorate`, or, in a clone of the repository,"
    " `pip install --force-reinstall .`"
)


def check() -> None:
    """Compare these files with the extension.

    Raises
    ------
    ImportError
        If the extension is missing, or of another build.
    """
    try:
        from quorate import _quorate
    except ImportError as error:
        raise ImportError(f"the extension quorate._quorate cannot be loaded ({error}): {_REMEDY}") from error
    built = getattr(_quorate, "__version__", "unknown")
    if built != VERSION:
        raise ImportError(
            f"the Python files are of quorate {VERSION}, the extension is of version {built}: {_REMEDY}"
        )
    # Every node imports this when it starts: no pathlib here.
    stub = os.path.join(os.path.dirname(__file__), "_quorate.pyi")  # noqa: PTH118, PTH120
    with open(stub, "rb") as source:  # noqa: PTH123
        expected = zlib.crc32(source.read())
    if getattr(_quorate, "INTERFACE", None) != expected:
        raise ImportError(
            f"the Python files and the extension {_quorate.__file__} are of different builds of quorate {VERSION}:"
            f" {_REMEDY}"
        )
