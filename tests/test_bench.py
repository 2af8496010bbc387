"""``quorate bench``."""

import json

import pytest

from shell import run


def test_every_combination_is_measured(shared):
    lines = run(
        *("bench", "--json", "--duration", 0.3, "--warmup", 0, "--keys", 200, "--concurrency", "1,8"),
        *("-c", "ONE,QUORUM"),
        endpoints=shared.endpoints,
    ).splitlines()
    load, *rows = [json.loads(line) for line in lines]
    assert (load["op"], load["concurrency"], load["errors"]) == ("load", 8, 0)
    assert [(row["op"], row["concurrency"], row["level"]) for row in rows] == [
        (op, concurrency, level)
        for level in ("ONE", "QUORUM")
        for op in ("write", "read")
        for concurrency in (1, 8)
    ]
    for row in rows:
        assert row["ops_per_s"] > 0
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["p999_us"]
        assert row["errors"] == row["misses"] == 0
        assert row["value_bytes"] == 100


def test_it_starts_its_own_cluster():
    drawn = run("bench", "--nodes", 1, "--operations", "write", "--duration", 0.2, "--warmup", 0)
    assert "ops/s" in drawn
    assert "QUORUM" in drawn


def test_misses_and_errors_are_shown(cluster):
    short = ("bench", "--no-load", "--operations", "read", "--duration", 0.2, "--warmup", 0)
    drawn = run(*short, "--keyspace", "empty", endpoints=cluster.endpoints)
    assert "misses" in drawn
    assert "reads at QUORUM found nothing: leave out --no-load" in drawn
    cluster["n2"].kill()
    drawn = run(*short, "--keyspace", "empty", "-c", "ALL", endpoints=cluster.endpoints, check=1)
    assert "reads at ALL failed, the first one: 3 replica(s) required but only 2 alive" in drawn


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-c", "9"], "--consistency 9: 9 replicas are asked for, but each key has 3"),
        (["-c", "ONE,THREE", "--replicas", "2"], "--consistency THREE: 3 replicas are asked for"),
        (["--value-size", "2000000"], "--value-size 2000000: a value has 1 to 1048576 bytes"),
        (["--value-size", "0"], "1 to 1048576 bytes"),
        (["--operations", "erase"], "erase"),
        (["--concurrency", "0"], "--concurrency"),
        (["--keys", "0"], "--keys"),
        (["--duration", "0"], "--duration 0: give 0.001 to 86400 seconds"),
        (["--warmup", "nan"], "--warmup nan"),
    ],
)
@pytest.mark.parametrize("remote", [True, False], ids=["connected", "own cluster"])
def test_impossible_measurements_are_rejected(arguments, named, remote, shared):
    endpoints = shared.endpoints if remote else None
    assert named in run("bench", *arguments, endpoints=endpoints, check=2)
