"""How results look: as rich renderables in a terminal, as HTML in a notebook, as plain text elsewhere.

A class that derives from `Rendered` says once how it is drawn, by ``__rich__``; rich is imported only when something
is drawn.
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
    """Something that is drawn by its ``__rich__`` wherever it is shown."""

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
    # In a notebook a console shows what it prints, an empty output beside each `print`, unless it is told not to.
    console = Console(file=written, width=width, color_system=None, force_jupyter=False, force_terminal=False)
    console.print(renderable)
    lines = (line.rstrip() for line in written.getvalue().splitlines())
    return "\n".join(lines).strip("\n")


def html(renderable: RenderableType, width: int = 110) -> str:
    """Draw as a piece of HTML that needs no style sheet."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, record=True, force_jupyter=False, force_terminal=True)
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format=_PAGE)


def listing(*columns: str, title: str | None = None, caption: str | None = None) -> Table:
    """Make a table of many rows, narrow enough for a terminal of 80 columns; what does not fit is folded, never cut.

    Parameters
    ----------
    *columns : str
        Headers of columns that begin at the left.
    title, caption : str, optional
        What stands above and below.

    Returns
    -------
    rich.table.Table
        To be given rows, and further columns.
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
    """Draw what the nodes were asked for, and below it which of them did not answer, however narrow the table is."""
    from rich.console import Group
    from rich.text import Text

    found = table if table.row_count else Text(f"{table.title}: nothing")
    return Group(found, Text(unanswered(missing))) if missing else found


def unanswered(missing: Sequence[str]) -> str:
    """Say which nodes did not answer."""
    return f"no answer from {', '.join(missing)}"


def number(value: float) -> str:
    """Write a number: whole ones in full, others with six digits that matter."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"


def milliseconds(seconds: float) -> str:
    """Write a duration with three digits that matter."""
    value = seconds * 1e3
    if value < 0.1:
        return f"{value * 1e3:.0f} µs"
    if value < 10:
        return f"{value:.2f} ms"
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def percent(share: float, digits: int = 1) -> str:
    """Write a share of one as a percentage."""
    return f"{100 * share:.{digits}f} %"


def size(count: int) -> str:
    """Write a number of bytes."""
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
        What is being done.
    total : int
        How many steps it has.
    show : bool, optional
        Whether a bar may appear; by default when stderr is a terminal.
    counted : bool
        Whether the steps are shown as numbers, or as a percentage because they stand for nothing.

    Yields
    ------
    callable
        To be called with the number of steps just finished.
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
    # A notebook would need a package of widgets for rich's own way to show a bar; it can show one line that is
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
