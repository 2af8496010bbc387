"""The command line on consensus keyspaces."""

import json

import pytest

from shell import run


@pytest.fixture
def at(shared, tmp_path_factory):
    """Run commands on the shared cluster, as JSON."""
    name = f"cli-{tmp_path_factory.mktemp('x').name}"

    def command(*arguments, check=0, **options):
        printed = run(*arguments, "--json", endpoints=shared.endpoints, check=check, **options)
        lines = [json.loads(line) for line in printed.splitlines()]
        return lines[0] if len(lines) == 1 else lines

    made = command("keyspace", "create", name, "--mode", "consensus", "--replicas", 3, "--shards", 2)
    assert (made["mode"], made["replicas"], made["shards"]) == ("consensus", 3, 2)
    assert [len(group["members"]) for group in made["groups"]] == [3, 3]
    command.name = name
    return command


def test_writing_and_reading(at):
    first = at("put", at.name, "a", "1", "--if-absent")
    assert at("get", at.name, "a")["version"] == first["version"]
    failed = at("put", at.name, "a", "2", "--if-absent", check=1)
    assert (failed["error"], failed["current"]) == ("ConditionFailed", first["version"])
    at("put", at.name, "a", "2", "--if-version", first["version"])
    assert at("get", at.name, "a", "-c", "stale")["staleness_ms"] is not None
    found = at("get", at.name, "a", "--trace")
    assert (found["value"], found["staleness_ms"]) == ("2", 0)
    assert found["trace"]
    at("put", at.name, "b", "3")
    assert [entry["key"] for entry in at("scan", at.name)] == ["a", "b"]
    at("delete", at.name, "a", "--if-version", first["version"], check=1)
    at("delete", at.name, "a")
    assert at("get", at.name, "a", check=1)["found"] is False


def test_entries(at):
    ids = [at("append", at.name, f"line {number}", "--source", "web")["entry_id"] for number in range(3)]
    assert [entry["entry_id"] for entry in at("entries", at.name)] == ids
    assert [entry["data"] for entry in at("entries", at.name, "--source", "web", "--after", ids[0])] == [
        "line 1",
        "line 2",
    ]
    assert at("entries", at.name, "--limit", 1, "-c", "stale")["entry_id"] == ids[0]


def test_options_of_the_other_mode_are_rejected(at, shared):
    shared.keyspace("cli-quorum", mode="quorum", replicas=3)
    for words, command in [
        ("every write is agreed on by a majority", ("put", at.name, "a", "1", "-c", "QUORUM")),
        ("LINEARIZABLE or STALE", ("get", at.name, "a", "-c", "QUORUM")),
        ("--if-absent is for keyspaces of mode consensus", ("put", "cli-quorum", "a", "1", "--if-absent")),
        ("mode consensus", ("append", "cli-quorum", "x")),
        ("--shards", ("keyspace", "create", "x", "--shards", 2)),
    ]:
        refused = at(*command, check=2)
        assert refused["error"] == "InvalidArgument"
        assert words in refused["message"]


def test_text_output(at, shared):
    run("put", at.name, "a", "1", endpoints=shared.endpoints)
    assert "leader" in run("get", at.name, "a", endpoints=shared.endpoints)
    assert run("get", at.name, "a", "--raw", endpoints=shared.endpoints) == "1"
    assert "a\t'1'" in run("scan", at.name, endpoints=shared.endpoints)
    run("append", at.name, "x", "--source", "web", endpoints=shared.endpoints)
    assert "\tweb\t'x'" in run("entries", at.name, endpoints=shared.endpoints)
    assert "consensus" in run("keyspace", "list", endpoints=shared.endpoints)


def test_measuring(at, shared):
    rows = at(
        *("bench", "--mode", "consensus", "--shards", 2, "--duration", 0.3, "--warmup", 0, "--keys", 200),
        *("--concurrency", 8, "-c", "linearizable,stale", "--operations", "write,read"),
    )
    assert [(row["op"], row["level"]) for row in rows] == [
        ("load", "linearizable"),
        ("write", "linearizable"),
        ("read", "linearizable"),
        ("read", "stale"),
    ]
    assert all(row["ops_per_s"] > 0 and row["errors"] == row["misses"] == 0 for row in rows)
    refused = at("bench", "--mode", "consensus", "-c", "QUORUM", check=2)
    assert "LINEARIZABLE or STALE" in refused["message"]
