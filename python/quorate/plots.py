"""Plots for notebooks: latencies by consistency level, and the leaders of a Raft group over time.

They are drawn with matplotlib, which the extra ``quorate[notebook]`` installs.

>>> import quorate
>>> with quorate.Cluster(nodes=3) as cluster:
...     users = cluster.keyspace("users", mode="quorum", replicas=3)
...     levels = (quorate.ONE, quorate.QUORUM, quorate.ALL)
...     writes = [users.put("user-123", "Ada", consistency=level) for level in levels for _ in range(5)]
>>> axes = quorate.plots.latency_by_level(writes)
>>> axes.get_xlabel()
'latency (ms)'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Protocol

from quorate.arguments import node_number
from quorate.errors import InvalidArgument
from quorate.extras import require
from quorate.rendering import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from quorate.consensus_answers import CommitData
    from quorate.levels import Level
    from quorate.timeline import Event, Timeline

__all__ = ["Timed", "latency_by_level", "leadership"]

# Okabe and Ito: distinguishable with colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK, _PALE, _FAINT, _NO_LEADER = "#333333", "#888888", "#E4E4E4", "#F0F0F0"
_WIDTH = 8.6
_LABELLED = 0.12
"""The minimum width of a bar with a label, as a share of the plot's width."""
_SPREAD = 0.34
_GOLDEN = 0.6180339887498949
_ENDED = ""
"""The leader in the row of a node that has ended."""


class Timed(Protocol):
    """The result of a read or write in a keyspace with ``mode="quorum"``: an `Entry` or a `WriteResult`."""

    @property
    def level(self) -> Level | int:
        """The consistency level that was reached."""

    @property
    def latency(self) -> float:
        """Seconds from the call to the response."""


def latency_by_level(
    results: Iterable[Timed] | Mapping[str, Iterable[Timed]], *, ax: Axes | None = None
) -> Axes:
    """Plot the latencies of operations by consistency level: each as a dot, and the medians as numbers.

    Parameters
    ----------
    results : iterable of Entry or WriteResult, or mapping of str to such
        Results of reads and writes; a mapping compares several kinds by name, as in
        ``{"write": writes, "read": reads}``. Levels are in order of first appearance.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        Latencies in milliseconds to the right, on a logarithmic scale; one row per level.

    Raises
    ------
    InvalidArgument
        There are no results, or one of them has no consistency level.
    ModuleNotFoundError
        matplotlib is not installed.

    Examples
    --------
    >>> import quorate
    >>> with quorate.Cluster(nodes=3) as cluster:
    ...     users = cluster.keyspace("users", mode="quorum", replicas=3)
    ...     writes = [users.put("user-123", "Ada") for _ in range(5)]
    ...     reads = [users.get("user-123") for _ in range(5)]
    >>> axes = quorate.plots.latency_by_level({"write": writes, "read": reads})
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['QUORUM']
    """
    kinds = results if isinstance(results, Mapping) else {"": results}
    found = {name: _by_level(some) for name, some in kinds.items()}
    levels = list(dict.fromkeys(level for some in found.values() for level in some))
    if not levels:
        raise InvalidArgument("no results to draw: pass the results of reads and writes")
    ax = _axes(ax, 0.9 + 0.55 * len(levels))
    lane = 0.8 / len(found)
    for place, (name, by_level) in enumerate(found.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        column = 1.02 + 0.12 * place
        ax.text(column, 1.02, name or "median", color=colour, transform=ax.transAxes, weight="bold")
        for row, level in enumerate(levels):
            taken = [1e3 * seconds for seconds in by_level.get(level, ())]
            if not taken:
                continue
            y = row + lane * (place - (len(found) - 1) / 2)
            spread = [y + _SPREAD * lane * (2 * (i * _GOLDEN % 1) - 1) for i in range(len(taken))]
            ax.scatter(taken, spread, s=16, color=colour, alpha=0.35, linewidths=0)
            middle = median(taken)
            ax.vlines(middle, y - lane / 2, y + lane / 2, color=colour, linewidth=2.5)
            shown = milliseconds(middle / 1e3)
            ax.text(column, row, shown, color=colour, transform=ax.get_yaxis_transform(), va="center")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(lambda _value, _position: "")
    ax.set_xlabel("latency (ms)")
    ax.set_yticks(range(len(levels)), levels)
    ax.set_ylim(len(levels) - 0.4, -0.6)
    return ax


def _by_level(results: Iterable[Timed]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for result in results:
        try:
            level, seconds = str(result.level), result.latency
        except AttributeError:
            raise InvalidArgument(
                f"{result!r:.60} has no consistency level: pass results of put and get in a keyspace with"
                " mode='quorum'"
            ) from None
        found.setdefault(level, []).append(seconds)
    return found


def leadership(
    timeline: Timeline,
    group: int | str,
    *,
    since: float,
    until: float,
    writes: Iterable[tuple[float, CommitData]] = (),
    marks: Mapping[str, float] | None = None,
    ended: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the leader that each member of a Raft group knew over time, and the elections that it started.

    A bar has the colour of the leader that the row's node knows, and is light grey if it knows none. A vertical stroke
    is an election that the row's node started, with its term.

    Parameters
    ----------
    timeline : Timeline
        The result of ``cluster.events()``.
    group : int or str
        The group, as in `Timeline.where`.
    since, until : float
        Start and end of the plot, in seconds since the Unix epoch, as returned by ``time.time()``.
    writes : iterable of pairs
        Writes to the group: the start of each, in seconds since the Unix epoch, and its result. They are drawn above
        the members, each in the colour of the leader that executed it.
    marks : mapping of str to float, optional
        Times to mark, by label, in seconds since the Unix epoch.
    ended : mapping of str to float, optional
        Nodes that ended, with the time. Their own events are lost; their leadership is known from the other nodes.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        Milliseconds after ``since`` to the right; one row per member.

    Raises
    ------
    InvalidArgument
        The timeline has no events of this group, or the times are invalid.
    ModuleNotFoundError
        matplotlib is not installed.

    Examples
    --------
    >>> import time
    >>> import quorate
    >>> with quorate.Cluster(nodes=3) as cluster:
    ...     begun = time.time()
    ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=3)
    ...     writes = [(time.time(), accounts.put("ada", str(number))) for number in range(10)]
    ...     events = cluster.events()
    >>> axes = quorate.plots.leadership(events, "accounts", since=begun, until=time.time(), writes=writes)
    >>> axes.get_yticklabels()[0].get_text()
    'writes'
    """
    ended = ended or {}
    events = timeline.where(group=group).events
    if not events:
        raise InvalidArgument(f"no events of group {group!r} in this timeline")
    if not since < until:
        raise InvalidArgument(
            f"since={since!r} and until={until!r}: the end must be later than the beginning"
        )
    nodes = sorted({event.node for event in events} | set(ended), key=node_number)
    colours = {node: _COLOURS[place % len(_COLOURS)] for place, node in enumerate(nodes)}
    written = list(writes)
    rows = (["writes"] if written else []) + nodes
    ax = _axes(ax, 0.9 + 0.45 * len(rows))
    scale = _Scale(since, until)
    for begun, commit in written:
        left, width = scale.bar(begun, begun + commit.latency)
        colour = colours.get(commit.leader, _INK)
        ax.barh(0, width, 0.3, left, color=colour, edgecolor="white", linewidth=0.4)
    for row, node in enumerate(nodes, len(rows) - len(nodes)):
        for begin, end, leader in _beliefs(node, events, until, ended.get(node)):
            left, width = scale.bar(begin, end)
            ax.barh(row, width, 0.6, left, color=colours.get(leader or "", _NO_LEADER))
            if width > _LABELLED * scale.whole and leader in (node, None):
                said, ink = ("leads", "white") if leader else ("no leader", _PALE)
                ax.text(left + width / 2, row, said, color=ink, ha="center", va="center", fontsize=9)
        for moment, term in _elections(node, events, since, until):
            x = scale.place(moment)
            ax.vlines(x, row - 0.3, row + 0.3, color=_INK, linewidth=1.5)
            ax.text(x, row - 0.32, f"term {term}", color=_INK, ha="center", va="bottom", fontsize=8)
    for said, moment in (marks or {}).items():
        x = scale.place(moment)
        ax.axvline(x, color=_INK, linestyle=":", linewidth=1)
        ax.text(x, 1.01, said, transform=ax.get_xaxis_transform(), color=_INK, ha="center")
    ax.set_xlabel("milliseconds")
    ax.set_xlim(0, scale.whole)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return ax


class _Scale:
    """Milliseconds since the start of a plot, clamped to its range."""

    def __init__(self, since: float, until: float) -> None:
        self._since = since
        self.whole = 1e3 * (until - since)

    def place(self, moment: float) -> float:
        return min(max(1e3 * (moment - self._since), 0.0), self.whole)

    def bar(self, begin: float, end: float) -> tuple[float, float]:
        left = self.place(begin)
        return left, self.place(end) - left


def _elections(node: str, events: Iterable[Event], since: float, until: float) -> list[tuple[float, int]]:
    """Find the times and terms of elections that a node started."""
    called = ((event.time.timestamp(), event) for event in events if event.node == node)
    return [
        (moment, event.detail["term"])
        for moment, event in called
        if event.name == "ElectionStarted" and since <= moment <= until
    ]


def _beliefs(
    node: str, events: Sequence[Event], until: float, ended: float | None
) -> list[tuple[float, float, str | None]]:
    """Find the leaders that a node knew, each with start and end."""
    changes: list[tuple[float, str | None]] = []
    for event in events:
        moment = event.time.timestamp()
        if event.node != node:
            # A follower of a node that has ended knew it as the leader from its own messages.
            if ended is not None and moment < ended and event.detail.get("leader") == node:
                changes.append((moment, node))
        elif event.name == "LeaderElected":
            changes.append((moment, node))
        elif event.name == "LeaderChanged":
            changes.append((moment, event.detail["leader"]))
        elif event.name in ("ElectionStarted", "QuorumLost"):
            changes.append((moment, None))
    if ended is not None:
        changes.append((ended, _ENDED))
    changes.sort(key=itemgetter(0))
    ends = [moment for moment, _ in changes[1:]] + [until]
    spans = zip(changes, ends, strict=False)
    return [(begin, end, leader) for (begin, leader), end in spans if leader != _ENDED]


def _axes(ax: Axes | None, height: float) -> Axes:
    """Prepare the given axes or new ones, without superfluous lines."""
    if ax is None:
        pyplot = require("matplotlib.pyplot", "quorate.plots")
        ax = pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")[1]
    assert ax is not None
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=_FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    return ax
