"""Parsing of the reports of nodes: metrics, traces, levels, addresses."""

from datetime import datetime, timedelta, timezone

import pytest

from quorate import ALL, ONE, QUORUM, InvalidArgument, arguments
from quorate.answers import key_text
from quorate.arguments import key_bytes
from quorate.levels import from_wire, to_wire
from quorate.metrics import parse
from quorate.trace import Span, Trace, arrange, complete

TEXT = """\
# HELP quorate_operations Operations.
# TYPE quorate_operations counter
quorate_operations_total{op="put",consistency="QUORUM",outcome="ok"} 12
quorate_operations_total{op="get",consistency="ONE",outcome="Unavailable"} 1
quorate_seconds_bucket{le="0.001"} 3
quorate_seconds_bucket{le="+Inf"} 4
quorate_peers 2 1700000000000
odd{reason="a \\"quoted\\" word, and = more"} 1.5e-3
# EOF
"""


def test_prometheus_text_is_parsed():
    metrics = parse("n1", TEXT)
    assert metrics.value("quorate_operations_total") == 13
    assert metrics.value("quorate_operations_total", op="put") == 12
    assert metrics.value("quorate_operations_total", op="scan") == 0
    assert metrics.value("quorate_peers", node="n1") == 2
    assert metrics.value("quorate_peers", node="n2") == 0
    assert metrics.where("odd").samples[0].labels == {"reason": 'a "quoted" word, and = more'}
    assert metrics.where("odd").samples[0].value == 0.0015
    assert metrics.names == ("odd", "quorate_operations_total", "quorate_peers", "quorate_seconds_bucket")
    assert "quorate_peers" in str(metrics)
    assert "le=" not in str(metrics)


def span(span_id, parent_id, begin_ms, name="work", node="n1"):
    start = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=begin_ms)
    return Span(name, node, start, 0.001, span_id, parent_id, {}, None)


def test_spans_are_arranged_as_a_tree():
    spans = [span("d", "b", 9), span("c", "a", 2), span("b", "a", 1), span("a", None, 0, node="client")]
    arranged = arrange([*spans, span("d", "b", 9)])
    assert [each.span_id for each in arranged] == ["a", "b", "d", "c"]
    assert complete(arranged)
    assert not complete(arranged[1:])
    trace = Trace("0" * 32, arranged)
    assert trace.nodes == ("client", "n1")
    assert trace.duration == pytest.approx(0.010)
    drawn = str(trace).splitlines()
    assert [line.split()[0] for line in drawn if "work" in line] == ["work"] * 4
    assert "    work" in str(trace)
    assert "━" in str(trace)


def test_work_of_a_trace_after_the_response_is_marked():
    work = [span("a", None, 0, node="client"), span("b", "a", 0.5), span("c", "a", 4)]
    trace = Trace("0" * 32, arrange(work))
    assert trace.latency == pytest.approx(0.001)
    assert [each.span_id for each in trace.late] == ["b", "c"]
    drawn = str(trace)
    assert "answered after 1.00 ms" in drawn
    assert "┅ after the answer: 2 span(s), the last ended at 5.00 ms" in drawn
    (before, some, later) = (line for line in drawn.splitlines() if "work" in line)
    assert ("━" in before, "┅" in before) == (True, False)
    assert ("━" in some, "┅" in some) == (True, True)
    assert ("━" in later, "┅" in later) == (False, True)
    assert [each["late"] for each in trace.to_dict()["spans"]] == [False, True, True]
    assert "after the answer" not in str(Trace("0" * 32, arrange(work[:1])))


def test_levels_by_name_and_by_number():
    assert [level.required(5) for level in (ONE, QUORUM, ALL)] == [1, 3, 5]
    assert [to_wire(level) for level in (None, ONE, "all", 2, "3")] == [None, "ONE", "ALL", "2", "3"]
    assert from_wire("QUORUM") is QUORUM
    assert from_wire("2") == 2


@pytest.mark.parametrize("wrong", ["most", 0, -1, 256, True, 1.5, "", "-1"])
def test_invalid_levels_are_rejected(wrong):
    with pytest.raises(InvalidArgument, match="use ONE, TWO, THREE, QUORUM, ALL"):
        to_wire(wrong)


def test_addresses_are_parsed():
    assert arguments.parse_endpoints(" a:1, b ,[::1]:3,") == ["a:1", "b:7400", "[::1]:3"]
    assert arguments.parse_endpoints(["a:1"]) == ["a:1"]


@pytest.mark.parametrize("wrong", ["", ",", ":1", "a:0", "a:70000", "a:b", "a:"])
def test_invalid_addresses_are_rejected(wrong):
    with pytest.raises(InvalidArgument, match=r"port|at least one"):
        arguments.parse_endpoints(wrong)


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), "1", True])
def test_invalid_timeouts_are_rejected(wrong):
    with pytest.raises(InvalidArgument, match="positive number of seconds"):
        arguments.seconds(wrong, 5.0)


def test_keys_that_are_not_text_round_trip():
    for key in (b"", b"plain", "grün".encode(), b"\xff\x00\xfe", bytes(range(256))):
        assert key_bytes(key_text(key)) == key


def test_the_end_of_a_prefix():
    assert arguments.prefix_end(b"ab") == b"ac"
    assert arguments.prefix_end(b"a\xff\xff") == b"b"
    assert arguments.prefix_end(b"\xff") is None
    assert arguments.scan_range(None, None, "") == (b"", None)
    with pytest.raises(InvalidArgument, match="not both"):
        arguments.scan_range("a", None, "b")
