"""Traces: the spans of one operation, from the client to the disks of its replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quorate.rendering import Rendered, listing, milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from rich.console import RenderableType

__all__ = ["Span", "Trace"]

_BAR = 40
_AFTER = "┅"
# Spans have whole microseconds, and start and end are separate clock readings.
_CLOCK_GRAIN = 2e-6
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red", "bright_cyan", "bright_green")


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work in a trace.

    Attributes
    ----------
    name : str
        The work, for example ``quorum.write``.
    node : str
        The process: ``n1``, or ``client``.
    start : datetime
        The start, by the wall clock of that process.
    duration : float
        Seconds.
    span_id, parent_id : str
        16 hexadecimal digits; ``parent_id`` is ``None`` for the root.
    attributes : dict
        Named by OpenTelemetry's semantic conventions where they apply.
    error : str or None
        The error's name, if it failed.
    """

    name: str
    node: str
    start: datetime
    duration: float
    span_id: str
    parent_id: str | None
    attributes: dict[str, str]
    error: str | None

    @property
    def begin(self) -> float:
        """The start, in seconds since the Unix epoch."""
        return self.start.timestamp()

    @property
    def end(self) -> float:
        """The end, in seconds since the Unix epoch."""
        return self.begin + self.duration


@dataclass(frozen=True, slots=True, repr=False)
class Trace(Rendered):
    """The spans of one operation, drawn as a waterfall.

    Attributes
    ----------
    trace_id : str
        32 hexadecimal digits, as W3C trace context and OpenTelemetry write them.
    spans : tuple of Span
        Parents before their children, siblings by start.
    """

    trace_id: str
    spans: tuple[Span, ...]

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def latency(self) -> float:
        """Seconds from the request to its response: the root span; 0 if unknown."""
        root = self._root
        return 0.0 if root is None else root.duration

    @property
    def late(self) -> tuple[Span, ...]:
        """The spans that ended after the response: replicas that were not waited for, and repairs."""
        root = self._root
        return (
            () if root is None else tuple(span for span in self.spans if span.end > root.end + _CLOCK_GRAIN)
        )

    @property
    def _root(self) -> Span | None:
        return next((span for span in self.spans if span.parent_id is None), None)

    @property
    def duration(self) -> float:
        """Seconds from the first start to the last end, which may be long after the response; see `late`."""
        if not self.spans:
            return 0.0
        return max(span.end for span in self.spans) - min(span.begin for span in self.spans)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The processes that took part, in the order of their first span."""
        return tuple(dict.fromkeys(span.node for span in self.spans))

    def to_dict(self) -> dict[str, Any]:
        """Describe the trace as plain data, as ``--json`` prints it."""
        late = {span.span_id for span in self.late}
        return {
            "trace_id": self.trace_id,
            "latency": self.latency,
            "duration": self.duration,
            "spans": [
                {
                    "name": span.name,
                    "node": span.node,
                    "start": span.start.isoformat(),
                    "duration": span.duration,
                    "span_id": span.span_id,
                    "parent_id": span.parent_id,
                    "attributes": span.attributes,
                    "error": span.error,
                    "late": span.span_id in late,
                }
                for span in self.spans
            ],
        }

    def __rich__(self) -> RenderableType:
        from rich.markup import escape
        from rich.text import Text

        late = {span.span_id for span in self.late}
        root = self._root
        caption = (
            f"{_AFTER} after the answer: {len(late)} span(s), the last ended at {milliseconds(self.duration)}"
        )
        table = listing(
            *("span", "where"),
            title=f"trace {self.trace_id} · answered after {milliseconds(self.latency)}",
            caption=caption if late else None,
        )
        table.add_column("timeline", min_width=_BAR, no_wrap=True)
        table.add_column("took", justify="right", no_wrap=True)
        colours = {node: _COLOURS[i % len(_COLOURS)] for i, node in enumerate(self.nodes)}
        depths = _depths(self.spans)
        origin = min((span.begin for span in self.spans), default=0.0)
        whole = max(self.duration, 1e-9)
        answered = _BAR if root is None else round((root.end - origin) / whole * _BAR)
        for span in self.spans:
            left = min(int((span.begin - origin) / whole * _BAR), _BAR - 1)
            right = left + max(1, min(round(span.duration / whole * _BAR), _BAR - left))
            # A late span has at least one mark after the response, despite rounding.
            turn = max(left, min(right - 1, answered)) if span.span_id in late else right
            name = "  " * depths[span.span_id] + escape(span.name)
            colour = colours[span.node]
            table.add_row(
                f"{name} [bold red]{escape(span.error)}[/]" if span.error else name,
                f"[{colour}]{span.node}[/]",
                Text(" " * left + "━" * (turn - left) + _AFTER * (right - turn), style=colour),
                milliseconds(span.duration),
            )
        return table


def _depths(spans: Iterable[Span]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for span in spans:
        depths[span.span_id] = depths.get(span.parent_id, -1) + 1 if span.parent_id is not None else 0
    return depths


def arrange(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Sort parents before their children and siblings by start; drop duplicates."""
    by_id = {span.span_id: span for span in spans}
    children: dict[str | None, list[Span]] = {}
    for span in sorted(by_id.values(), key=lambda span: (span.begin, span.span_id)):
        parent = span.parent_id if span.parent_id in by_id else None
        children.setdefault(parent, []).append(span)
    ordered: list[Span] = []
    waiting = children.get(None, [])[::-1]
    while waiting:
        span = waiting.pop()
        ordered.append(span)
        waiting.extend(children.get(span.span_id, [])[::-1])
    return tuple(ordered)


def complete(spans: Iterable[Span]) -> bool:
    """Whether every span's parent and a root are present."""
    spans = list(spans)
    known = {span.span_id for span in spans}
    return bool(spans) and all(span.parent_id is None or span.parent_id in known for span in spans)
