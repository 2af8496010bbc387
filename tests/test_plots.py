"""Plots show their data, and missing packages are named."""

import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from matplotlib import pyplot
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

import quorate
from quorate import ALL, ONE, QUORUM, Event, InvalidArgument, Timeline, plots
from quorate.extras import require
from quorate.metrics import parse

START = 1_000_000.0


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    pyplot.close("all")


@dataclass
class Answer:
    level: object
    latency: float


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_latencies_are_grouped_by_level_with_their_medians():
    answers = [Answer(level, 0.001 * factor) for factor in (1, 2, 30) for level in (ONE, QUORUM, ALL)]
    axes = plots.latency_by_level(answers)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ONE", "QUORUM", "ALL"]
    assert texts(axes) == ["median", "2.00 ms", "2.00 ms", "2.00 ms"]
    dots = [
        sorted(x for x, _ in drawn.get_offsets())
        for drawn in axes.collections
        if isinstance(drawn, PathCollection)
    ]
    assert dots == [pytest.approx([1, 2, 30])] * 3
    top, bottom = (axes.transData.transform((1, row))[1] for row in (0, 2))
    assert top > bottom, "the first level is at the top"


def test_kinds_of_operations_are_distinguished():
    axes = plots.latency_by_level(
        {"write": [Answer(ONE, 0.01), Answer(3, 0.02)], "read": iter([Answer(ONE, 0.001)])}
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ONE", "3"]
    assert texts(axes) == ["write", "10.0 ms", "20.0 ms", "read", "1.00 ms"]
    assert len({text.get_color() for text in axes.texts}) == 2


def test_latencies_are_drawn_on_given_axes():
    _, axes = pyplot.subplots()
    assert plots.latency_by_level([Answer(ONE, 0.01)], ax=axes) is axes


@pytest.mark.parametrize("results", [[], {}, {"write": []}])
def test_no_latencies_are_an_error(results):
    with pytest.raises(InvalidArgument, match="no results"):
        plots.latency_by_level(results)


def test_a_result_without_a_level_is_an_error():
    with pytest.raises(InvalidArgument, match="mode='quorum'"):
        plots.latency_by_level([0.1])


def event(after, node, name, **detail):
    moment = datetime.fromtimestamp(START + after, tz=timezone.utc)
    return Event(moment, node, name, {"group": 2, "name": "agreed", **detail}, 1, 0)


# n1 leads and is killed after a second; n2 follows it.
ELECTION = Timeline(
    (
        event(0.1, "n2", "LeaderChanged", term=1, leader="n1"),
        event(0.1, "n3", "LeaderChanged", term=1, leader="n1"),
        event(1.1, "n2", "ElectionStarted", term=2),
        event(1.2, "n3", "LeaderChanged", term=2, leader=None),
        event(1.3, "n2", "LeaderElected", term=2),
        event(1.4, "n3", "LeaderChanged", term=2, leader="n2"),
        event(1.9, "n1", "LeaderChanged", term=2, leader="n2"),
    )
)


def bars(axes, row):
    """The beginning, end and colour of each bar in this row."""
    return [
        (round(bar.get_x()), round(bar.get_x() + bar.get_width()), to_hex(bar.get_facecolor()))
        for bar in axes.patches
        if round(bar.get_y() + bar.get_height() / 2) == row and bar.get_width() > 0
    ]


def test_leaders_over_time():
    commits = [(START + 0.5, SimpleNamespace(leader="n1", latency=0.1))]
    commits.append((START + 1.0, SimpleNamespace(leader="n2", latency=0.35)))
    axes = plots.leadership(
        ELECTION,
        "agreed",
        since=START,
        until=START + 2,
        writes=commits,
        marks={"killed": START + 1},
        ended={"n1": START + 1},
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["writes", "n1", "n2", "n3"]
    (*_, first), (*_, second) = bars(axes, 0)
    assert bars(axes, 0) == [(500, 600, first), (1000, 1350, second)]
    no_leader = to_hex(plots._NO_LEADER)
    assert bars(axes, 1) == [(100, 1000, first), (1900, 2000, second)], "it was down in between"
    assert bars(axes, 2) == [(100, 1100, first), (1100, 1300, no_leader), (1300, 2000, second)]
    assert bars(axes, 3) == [(100, 1200, first), (1200, 1400, no_leader), (1400, 2000, second)]
    assert texts(axes) == ["leads", "leads", "term 2", "killed"]


def test_leadership_is_clipped_at_the_edges():
    axes = plots.leadership(ELECTION, 2, since=START + 1.15, until=START + 1.35)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["n1", "n2", "n3"]
    assert [bar[:2] for bar in bars(axes, 1)] == [(0, 150), (150, 200)]
    assert texts(axes) == ["no leader", "leads", "no leader"]
    assert axes.get_xlim() == pytest.approx((0, 200))


def test_a_group_without_events_and_invalid_times_are_errors():
    with pytest.raises(InvalidArgument, match="no events of group 'other'"):
        plots.leadership(ELECTION, "other", since=START, until=START + 1)
    with pytest.raises(InvalidArgument, match="later than the beginning"):
        plots.leadership(ELECTION, "agreed", since=START, until=START)


def test_events_since_a_moment():
    assert [event.name for event in ELECTION.where(since=START + 1.3)] == [
        "LeaderElected",
        "LeaderChanged",
        "LeaderChanged",
    ]
    assert len(ELECTION.where("LeaderChanged", node="n3", since=START + 1.3)) == 1


def test_a_missing_package_is_named(monkeypatch):
    remedy = r"needs matplotlib, which is not installed: pip install 'quorate\[notebook\]'"
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ModuleNotFoundError, match=remedy) as caught:
        plots.latency_by_level([Answer(ONE, 0.01)])
    assert caught.value.name == "matplotlib"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"metrics.to_pandas needs pandas"):
        parse("n1", "up 1").to_pandas()


def test_an_import_error_within_a_package_is_its_own(monkeypatch, tmp_path):
    (tmp_path / "half_a_package.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'nowhere_to_be_found'$"):
        require("half_a_package", "this test")


def test_metrics_become_rows(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    found = parse("n1", 'up{of="it"} 1').to_pandas()
    assert found == [{"node": "n1", "name": "up", "value": 1.0, "of": "it"}]


def test_plots_import_nothing_until_something_is_drawn():
    assert quorate.plots is plots
    assert not any(name in vars(plots) for name in ("matplotlib", "pyplot"))
