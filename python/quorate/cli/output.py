"""How commands print."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["console", "document", "show"]


@lru_cache(maxsize=1)
def console() -> Console:
    """Make the console on standard output; wide when it is not a terminal, so that tables are not folded."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def document(value: Any) -> None:
    """Print one JSON document on one line."""
    print(json.dumps(value, ensure_ascii=False))


def show(renderable: RenderableType) -> None:
    """Print for people."""
    console().print(renderable)
