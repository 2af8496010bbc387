"""``quorate bench``."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from harness import PATIENCE, eventually
from quorate.cli.workloads import PRESETS
from shell import default_signals, run

QUICK = ("--duration", 0.2, "--warmup", 0, "--keys", 200)


def measured(*arguments, endpoints=None, check=0):
    """The lines that a benchmark prints, without its load."""
    lines = run("bench", "--json", *arguments, endpoints=endpoints, check=check).splitlines()
    return [row for row in map(json.loads, lines) if row["op"] != "load"]


def names(cluster):
    return {info.name for info in cluster.keyspaces()}


def gone(cluster, *dropped):
    """Whether keyspaces are not there, once the node that is asked has heard of it."""
    return eventually(lambda: not names(cluster) & set(dropped))


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
    assert "reads at ALL failed, first error: 3 replica(s) required but only 2 alive" in drawn


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-c", "9"], "--consistency 9 requires 9 replicas, but each key has 3"),
        (["-c", "ONE,THREE", "--replicas", "2"], "--consistency THREE requires 3 replicas"),
        (["--value-size", "2000000"], "--value-size 2000000: a value has 1 to 1048576 bytes"),
        (["--value-size", "0"], "1 to 1048576 bytes"),
        (["--operations", "erase"], "erase"),
        (["--concurrency", "0"], "--concurrency"),
        (["--keys", "0"], "--keys"),
        (["--duration", "0"], "--duration 0: give 0.001 to 86400 seconds"),
        (["--warmup", "nan"], "--warmup nan"),
        (["--rate", "0"], "--rate 0: give operations per second"),
        (["--rate", "100,many"], "--rate many"),
        (["--arrivals", "poisson"], "--arrivals poisson: only with --rate"),
        (["--read-percent", "20"], "--read-percent 20: only with --operations mixed"),
        (["--operations", "mixed", "--read-percent", "101"], "--read-percent 101: give 0 to 100"),
        (["--operations", "append"], "--operations append: only keyspaces of --mode consensus"),
        (["--preset", "B", "--mode", "quorum"], "--operations append: only keyspaces of --mode consensus"),
        (["--preset", "A", "--shards", "2"], "--shards 2: only with --mode consensus"),
        (["--batch", "0"], "--batch"),
        (["--batch", "11", "--keys", "10"], "--batch 11: there are only --keys 10"),
        (
            ["--mode", "consensus", "--batch", "11", "--value-size", "100000"],
            "with --value-size 100000 it has room for 10",
        ),
    ],
)
@pytest.mark.parametrize("remote", [True, False], ids=["connected", "own cluster"])
def test_impossible_measurements_are_rejected(arguments, named, remote, shared):
    endpoints = shared.endpoints if remote else None
    assert named in run("bench", *arguments, endpoints=endpoints, check=2)
    assert gone(shared, "bench", "bench-consensus")


def test_an_open_loop_starts_what_was_asked_for_and_no_more(shared):
    rows = measured(*QUICK, "--rate", "100,300", "--arrivals", "even", endpoints=shared.endpoints)
    assert [(row["op"], row["rate"]) for row in rows] == [
        ("write", 100),
        ("write", 300),
        ("read", 100),
        ("read", 300),
    ]
    for row in rows:
        # Without a schedule there would be thousands.
        assert 0 < row["ops_per_s"] <= row["rate"]
        assert (row["arrivals"], row["rate_held"], row["errors"]) == ("even", True, 0)
    (row,) = measured(
        *QUICK, "--rate", 300, "--arrivals", "poisson", "--operations", "write", endpoints=shared.endpoints
    )
    assert (row["arrivals"], row["ops_per_s"] < 900) == ("poisson", True)


def test_a_rate_that_is_not_held_is_reported_and_the_wait_counts(shared):
    fast = ("--operations", "write", "--duration", 0.5, "--warmup", 0, "--concurrency", 1, "--rate", 100_000)
    (row,) = measured(*fast, endpoints=shared.endpoints)
    assert (row["rate"], row["rate_held"]) == (100_000, False)
    # One write at a time: most of 50,000 are never started, and half of them have waited for a quarter of a second.
    assert row["unstarted"] > 25_000
    assert row["ops_per_s"] < 50_000
    assert row["p50_us"] > 100_000
    drawn = " ".join(run("bench", *fast, endpoints=shared.endpoints).split())
    assert "the rate was not held for writes at QUORUM, 1 in flight: requested 100,000/s, achieved" in drawn


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_measures_its_workload(preset):
    expected = PRESETS[preset]
    rows = measured(*QUICK, "--preset", preset.lower())
    levels = (expected.consistency or "linearizable").split(",")
    if expected.mode == "consensus":
        levels = [level.lower() for level in levels]
    assert [(row["op"], row["level"]) for row in rows] == [(expected.operations, level) for level in levels]
    for row in rows:
        assert row["ops_per_s"] > 0
        assert row["errors"] == row["misses"] == 0
        assert (row["value_bytes"], row["batch"]) == (expected.value_size, expected.batch)
        assert row["read_percent"] == (expected.read_percent if row["op"] == "mixed" else None)
        assert len(row["server_cores"]) == expected.nodes


def test_explicit_options_override_the_preset():
    given = (
        "--value-size",
        10,
        "--read-percent",
        5,
        "-c",
        "ONE",
        "--replicas",
        1,
        "--nodes",
        1,
        "--batch",
        2,
    )
    (row,) = measured(*QUICK, "--preset", "D", *given, "--concurrency", 3)
    assert [row[name] for name in ("value_bytes", "read_percent", "level", "batch", "concurrency")] == [
        10,
        5,
        "ONE",
        2,
        3,
    ]
    assert len(row["server_cores"]) == 1
    # Levels are of a mode: those of the preset do not come along into another one.
    (row,) = measured(*QUICK, "--preset", "A", "--mode", "consensus", "--nodes", 3)
    assert (row["level"], row["read_percent"]) == ("linearizable", 67)


def test_the_help_lists_each_preset_on_a_line():
    lines = [line.strip() for line in run("bench", "--help", COLUMNS="80").splitlines()]
    for name, preset in PRESETS.items():
        assert lines.count(f"{name} {preset.title}: {preset}") == 1


@pytest.mark.parametrize("shards", [1, 4])
def test_batches_of_a_consensus_keyspace_are_within_a_shard(shared, shards):
    rows = measured(
        *QUICK,
        *("--mode", "consensus", "--shards", shards, "--operations", "write,read,mixed,append", "--batch", 7),
        endpoints=shared.endpoints,
    )
    # A shard refuses the keys of another one.
    assert [row["op"] for row in rows] == ["write", "read", "mixed", "append"]
    assert all(row["ops_per_s"] > 0 and row["errors"] == row["misses"] == 0 for row in rows), rows


def on_terminal(*arguments, endpoints):
    """What a command prints on standard error, which is a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "QUORATE_ENDPOINTS": endpoints, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-m", "quorate", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=follower, env=environment) as process:
        os.close(follower)
        said = b""
        # It ends with the process, which the timeout of the test ends.
        while True:
            try:
                said += (part := os.read(leader, 65536))
            except OSError:
                part = b""
            if not part:
                break
    os.close(leader)
    assert process.returncode == 0, said
    return said.decode()


def test_progress_is_shown_on_a_terminal_and_only_there(shared):
    longer = ("bench", "--operations", "write", "--duration", 1.5, "--warmup", 0, "--concurrency", 2)
    shown = on_terminal(*longer, endpoints=shared.endpoints)
    assert "1 of 1: writes at QUORUM, 2 in flight" in shown
    shares = [int(share) for share in re.findall(r"(\d+)%", shown)]
    assert shares == sorted(shares)
    assert shares[-1] >= 60
    assert on_terminal(*longer, "--json", endpoints=shared.endpoints) == ""
    # What takes less than a second needs none.
    assert on_terminal("bench", "--operations", "write", *QUICK, endpoints=shared.endpoints) == ""
    command = [sys.executable, "-m", "quorate", *map(str, longer), "-e", shared.endpoints]
    assert subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stderr == b""


def test_the_keyspace_that_was_created_is_dropped(shared):
    for mode in ("quorum", "consensus"):
        named = f"created-{mode}"
        run("bench", *QUICK, "--mode", mode, "--keyspace", named, endpoints=shared.endpoints)
        assert gone(shared, named)
    run("bench", *QUICK, "--keep", "--keyspace", "kept", endpoints=shared.endpoints)
    assert shared.drop_keyspace("kept").replicas == 3
    assert "only with --endpoints" in run("bench", "--keep", "--nodes", 1, check=2)


def test_a_keyspace_that_existed_before_is_not_dropped(shared):
    mine = shared.keyspace("mine", mode="quorum", replicas=3)
    mine.put("treasure", "gold")
    run("bench", *QUICK, "--keyspace", "mine", endpoints=shared.endpoints)
    mine.delete("k00000001")
    interrupt(shared, "mine", signal.SIGINT)
    # Nor one whose settings are others.
    run("bench", *QUICK, "--keyspace", "mine", "--mode", "consensus", endpoints=shared.endpoints, check=1)
    assert mine.get("treasure").text == "gold"
    shared.drop_keyspace("mine")


def interrupt(cluster, keyspace, number, *, ends=(130,), again=False):
    """Begin to measure, and send a signal when it is under way, or one after the other until it ends."""
    arguments = ("--duration", "600", "--keys", "10", "--operations", "write", "--keyspace", keyspace)
    command = [sys.executable, "-m", "quorate", "bench", "-e", cluster.endpoints, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=default_signals, **pipes) as process:
        try:
            eventually(lambda: keyspace in names(cluster))
            opened = cluster.keyspace(keyspace)
            # A key that it writes: it is measuring.
            eventually(lambda: opened.get("k00000001").found)
            process.send_signal(number)
            if again:
                eventually(lambda: process.send_signal(number) or process.poll() is not None, pause=0.001)
            said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode in ends, said
    assert again or "Traceback" not in said[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_an_interrupted_benchmark_drops_its_keyspace(shared, number):
    named = f"interrupted-{number.name}"
    interrupt(shared, named, number)
    assert gone(shared, named)


def test_a_benchmark_that_is_interrupted_again_and_again_drops_its_keyspace(shared):
    # The last signal may strike when everything is done.
    interrupt(shared, "insistent", signal.SIGINT, ends=(130, -signal.SIGINT), again=True)
    assert gone(shared, "insistent")


def test_a_failed_benchmark_drops_its_keyspace(cluster):
    run("bench", *QUICK, "-c", "9", "--keyspace", "refused", endpoints=cluster.endpoints, check=2)
    assert gone(cluster, "refused")
    cluster["n3"].kill()
    failing = ("--operations", "write", "-c", "ALL", "--keyspace", "failed")
    (row,) = measured(*QUICK, *failing, endpoints=cluster.endpoints, check=1)
    assert row["errors"] > 0
    assert gone(cluster, "failed")
