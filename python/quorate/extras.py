"""Optional packages for notebooks: imported on first use, and named if they are missing."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["require"]


def require(module: str, purpose: str) -> Any:
    """Import a module of the extra ``quorate[notebook]``.

    Parameters
    ----------
    module : str
        Its full name, for example ``matplotlib.pyplot``.
    purpose : str
        The feature that needs it, for example ``metrics.to_pandas``.

    Returns
    -------
    module
        The module.

    Raises
    ------
    ModuleNotFoundError
        The package is not installed; the message says how to install it.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A missing dependency of an installed package is another error, with another remedy.
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ModuleNotFoundError(
            f"{purpose} needs {package}, which is not installed: pip install 'quorate[notebook]'",
            name=package,
        ) from error
