"""The tables of ``quorate bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quorate.cli.output import show
from quorate.rendering import listing, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

__all__ = ["named", "show_rows"]


def named(row: Mapping[str, Any]) -> str:
    """Name what a run does, as in ``reads at QUORUM``."""
    what = {"read": "reads", "mixed": "operations", "append": "appends"}.get(row["op"], "writes")
    return f"{what} at {row['level']}" if row["level"] else what


def show_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the table, and below it remarks on some of its rows."""
    if title:
        show(title)
    show(_table(rows))
    for note in _notes(rows):
        show(note)


def _notes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    from rich.markup import escape

    for row in rows:
        if row["errors"]:
            yield f"[red]{row['errors']:,} {named(row)} failed[/], first error: {escape(row['first_error'])}"
        if row["misses"]:
            yield f"[yellow]{row['misses']:,} {named(row)} found nothing[/]: leave out --no-load"
        if row["rate_held"] is False:
            yield (
                f"[yellow]the rate was not held[/] for {named(row)}, {row['concurrency']} in flight: requested"
                f" {number(row['rate'])}/s, achieved {_rate(row['ops_per_s'])}/s; {row['unstarted']:,} had not started"
                " at the end and count with their wait: lower --rate, or raise --concurrency"
            )


def _table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    paced = any(row["rate"] is not None for row in rows)
    batched = any(row["batch"] > 1 for row in rows)
    table = listing("operation", "level")
    names = ["in flight", "rate", "ops/s", "keys/s", "p50 ms", "p99 ms", "p99.9 ms", "misses", "errors"]
    # Columns with the same default in all rows are left out: all of them do not fit into 80 characters.
    idle = {
        "rate": not paced,
        "keys/s": not batched,
        "misses": not any(row["misses"] for row in rows),
        "errors": not any(row["errors"] for row in rows),
    }
    shown = [name for name in names if not idle.get(name)]
    for name in shown:
        header = name.replace(" ", "\n") if paced and batched else name
        table.add_column(header, justify="right", overflow="fold")
    for row in rows:
        cells = _cells(row)
        table.add_row(row["op"], row["level"] or "", *(cells[name] for name in shown))
    return table


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Format the cells of a row."""
    measured = max(row["ops_per_s"], row["unstarted"]) > 0
    colour = "bold yellow" if row["rate_held"] is False else "bold"
    quantiles = {"p50 ms": "p50_us", "p99 ms": "p99_us", "p99.9 ms": "p999_us"}
    return {
        "in flight": str(row["concurrency"]),
        "rate": "" if row["rate"] is None else number(row["rate"]),
        "ops/s": f"[{colour}]{_rate(row['ops_per_s'])}[/]",
        "keys/s": _rate(row["ops_per_s"] * row["batch"]),
        **{name: _milliseconds(row[field]) if measured else "" for name, field in quantiles.items()},
        "misses": f"[yellow]{row['misses']:,}[/]" if row["misses"] else "0",
        "errors": f"[red]{row['errors']:,}[/]" if row["errors"] else "0",
    }


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _milliseconds(micros: int) -> str:
    return f"{micros / 1e3:.2f}" if micros < 100_000 else f"{micros / 1e3:.1f}"
