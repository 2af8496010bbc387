"""How commands print."""

from __future__ import annotations

import io
import json
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["console", "document", "forgive", "show"]


@lru_cache(maxsize=1)
def console() -> Console:
    """Make the console on standard output; wide when it is not a terminal, so that tables are not folded."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    # What commands print goes to standard output in a notebook too, where the rest of their output goes.
    return Console(width=width, highlight=False, force_jupyter=False)


def forgive() -> None:
    """Let standard output take any key: bytes that are not text as they are, or escaped where it speaks no UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        speaks_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if speaks_utf8 else "backslashreplace")


def document(value: Any) -> None:
    """Print one JSON document on one line."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A key that is not text: its bytes stand as escapes, as Python's own keys have them.
        text = json.dumps(value)
    print(text)


def show(renderable: RenderableType) -> None:
    """Print for people."""
    console().print(renderable)
