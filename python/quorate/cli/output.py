"""Output of commands."""

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
    """Create the console on standard output; wide if it is not a terminal, so that tables are not folded."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    # In a notebook too, commands print to standard output, like the rest of their output.
    return Console(width=width, highlight=False, force_jupyter=False)


def forgive() -> None:
    """Let standard output accept any key: bytes that are not UTF-8 unchanged, or escaped if it is not UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        speaks_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if speaks_utf8 else "backslashreplace")


def document(value: Any) -> None:
    """Print one JSON document on one line."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A key that is not UTF-8: its bytes are escaped, as in Python keys.
        text = json.dumps(value)
    print(text)


def show(renderable: RenderableType) -> None:
    """Print for human readers."""
    console().print(renderable)
