"""Rendering of results: with rich in a terminal, as HTML in a notebook, as plain text elsewhere.

A class that derives from `Rendered` defines its rendering once, in ``__rich__``; rich is imported on first use.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

__all__ = [
    "Rendered",
    "html",
    "listing",
    "milliseconds",
    "number",
    "of_nodes",
    "percent",
    "size",
    "text",
    "tracker",
    "unanswered",
]

_PAGE = '<pre style="white-space:pre;overflow-x:auto;line-height:normal;font-family:monospace">{code}</pre>'


class Rendered:
    """Base class of objects that render with their ``__rich__`` method."""

    __slots__ = ()

    def __rich__(self) -> RenderableType:
        raise NotImplementedError

    def __str__(self) -> str:
        return text(self.__rich__())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html(self.__rich__())


def text(renderable: RenderableType, width: int = 110) -> str:
    """Draw as plain text, without colours."""
    import io

    from rich.console import Console

    written = io.StringIO()
    # In a notebook a console also displays its output, as an empty cell beside each `print`, unless disabled.
    console = Console(file=written, width=width, color_system=None, force_jupyter=False, force_terminal=False)
    console.print(renderable)
    lines = (line.rstrip() for line in written.getvalue().splitlines())
    return "\n".join(lines).strip("\n")


def html(renderable: RenderableType, width: int = 110) -> str:
    """Draw as an HTML fragment with inline styles."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, record=True, force_jupyter=False, force_terminal=True)
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format=_PAGE)


def listing(*columns: str, title: str | None = None, caption: str | None = None) -> Table:
    """Create a table of many rows, narrow enough for a terminal of 80 columns; cells are folded, never cut.

    Parameters
    ----------
    *columns : str
        Headers of left-aligned columns.
    title, caption : str, optional
        Text above and below the table.

    Returns
    -------
    rich.table.Table
        The table, without rows.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def of_nodes(table: Table, missing: Sequence[str]) -> RenderableType:
    """Draw a table, and below it the nodes that did not respond, however narrow the table is."""
    from rich.console import Group
    from rich.text import Text

    found = table if table.row_count else Text(f"{table.title}: nothing")
    return Group(found, Text(unanswered(missing))) if missing else found


def unanswered(missing: Sequence[str]) -> str:
    """Describe which nodes did not respond."""
    return f"no answer from {', '.join(missing)}"


def number(value: float) -> str:
    """Format a number: integers in full, others with six significant digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"


def milliseconds(seconds: float) -> str:
    """Format a duration with three significant digits."""
    value = seconds * 1e3
    if value < 0.1:
        return f"{value * 1e3:.0f} µs"
    if value < 10:
        return f"{value:.2f} ms"
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def percent(share: float, digits: int = 1) -> str:
    """Format a ratio as a percentage."""
    return f"{100 * share:.{digits}f} %"


def size(count: int) -> str:
    """Format a number of bytes."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@contextmanager
def tracker(
    description: str, total: int, *, show: bool | None = None, counted: bool = True
) -> Iterator[Callable[[int], None]]:
    """Count progress; a bar appears on stderr once the work has taken a second.

    Parameters
    ----------
    description : str
        The label of the bar.
    total : int
        The number of steps.
    show : bool, optional
        Whether to show a bar; by default if stderr is a terminal.
    counted : bool
        Whether to show numbers of steps; otherwise a percentage.

    Yields
    ------
    callable
        Call it with the number of steps just finished.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda _steps: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn() if counted else TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    # Rich's own bar needs a package of widgets in a notebook, which also can show one line that is
    # written again and again as well, but cannot remove it at the end.
    notebook = Console(stderr=True, force_jupyter=None).is_jupyter
    console = Console(stderr=True, force_jupyter=False, force_terminal=True if notebook else None)
    redirect = not notebook
    progress = Progress(
        *columns,
        console=console,
        transient=not notebook,
        redirect_stdout=redirect,
        redirect_stderr=redirect,
    )
    task = progress.add_task(description, total=total)
    begun = time.monotonic()
    visible = False

    def advance(steps: int) -> None:
        nonlocal visible
        progress.advance(task, steps)
        if not visible and time.monotonic() - begun > 1:
            visible = True
            progress.start()

    try:
        yield advance
    finally:
        if visible:
            progress.stop()
