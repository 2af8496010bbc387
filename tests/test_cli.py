"""The command line, as a user's shell runs it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import quorate
from harness import eventually, processes
from quorate import rendering
from shell import default_signals, run


@pytest.fixture
def at(shared):
    """Run a command on the shared cluster; with ``json=True`` return the printed documents."""

    def on(*arguments, as_json=False, **options):
        extra = ("--json",) if as_json else ()
        printed = run(*arguments, *extra, endpoints=shared.endpoints, **options)
        return [json.loads(line) for line in printed.splitlines()] if as_json else printed

    return on


def test_a_keyspace_from_creation_to_scan(at):
    (made,) = at(
        "keyspace", "create", "shell", "--replicas", 3, "--read", "ONE", "--write", "ALL", as_json=True
    )
    assert (made["name"], made["replicas"], made["read"], made["write"]) == ("shell", 3, "ONE", "ALL")
    (listed,) = at("keyspace", "list", as_json=True)
    assert made in listed
    assert "shell" in at("keyspace", "list")
    (written,) = at("put", "shell", "a", "first", "-c", "ALL", as_json=True)
    assert written["level"] == "ALL"
    assert sorted(written["replicas"]) == ["n1", "n2", "n3"]
    assert at("put", "shell", "b", "-", stdin="from standard input")
    (entry,) = at("get", "shell", "a", as_json=True)
    assert (entry["value"], entry["found"], entry["version"]) == ("first", True, written["version"])
    assert at("get", "shell", "b", "--raw") == "from standard input"
    assert "first" in at("get", "shell", "a")
    for value in ("left", "right"):
        at("put", "shell", "a", value, "--context", entry["context"])
    (entry,) = at("get", "shell", "a", "-c", "ALL", as_json=True)
    assert {sibling["value"] for sibling in entry["siblings"]} == {"left", "right"}
    (merged,) = at("put", "shell", "a", "both", "--context", entry["context"], as_json=True)
    assert merged["version"] != entry["version"]
    scanned = at("scan", "shell", as_json=True)
    assert [(found["key"], found["value"]) for found in scanned] == [
        ("a", "both"),
        ("b", "from standard input"),
    ]
    assert len(at("scan", "shell", "--limit", 1, as_json=True)) == 1
    assert at("scan", "shell", "--prefix", "b") == "b\t'from standard input'\n"
    at("delete", "shell", "a")
    (gone,) = at("get", "shell", "a", as_json=True, check=1)
    assert gone["found"] is False


def test_observation_commands(at):
    at("keyspace", "create", "seen", "--replicas", 2)
    (status,) = at("status", as_json=True)
    assert (status["status"], status["healthy_nodes"], len(status["nodes"])) == ("healthy", 3, 3)
    assert "3 of 3 nodes up" in at("status")
    (topology,) = at("topology", as_json=True)
    assert [member["name"] for member in topology["members"]] == ["n1", "n2", "n3"]
    assert topology["version"] == 1
    assert {member["control"] for member in topology["members"]} == {"voter"}
    (ring,) = at("ring", as_json=True)
    assert ring["primary"]["score"] > 95
    assert len(at("ring", "--tokens").splitlines()) == 450
    (distribution,) = at("distribution", "seen", as_json=True)
    assert distribution["replicas"] == 2
    (nodes,) = at("nodes-for-key", "seen", "a", as_json=True)
    assert len(nodes) == 2
    assert at("nodes-for-key", "seen", "a").split() == nodes
    assert {event["node"] for event in at("events", "--name", "NodeStarted", as_json=True)} == {
        "n1",
        "n2",
        "n3",
    }
    assert "NodeStarted" in at("events")
    assert at("metrics", as_json=True)
    assert "quorate_" in at("metrics")
    (written,) = at("put", "seen", "a", "1", "--trace", as_json=True)
    assert written["trace"]["trace_id"] == written["trace_id"]
    (trace,) = at("trace", written["trace_id"], as_json=True)
    assert {span["span_id"] for span in trace["spans"]} < {
        span["span_id"] for span in written["trace"]["spans"]
    }
    assert "━" in at("get", "seen", "a", "--trace")


def test_the_ring_needs_no_cluster():
    report = json.loads(run("ring", "--nodes", 5, "--vnodes", 100, "--hash", "xxh3", "--json"))
    assert len(report["nodes"]) == 5
    assert report["vnodes"] == 100


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["put", "missing", "a", "1"], "NotFound"),
        (["metrics", "quorate_operation"], "NotFound"),
        (["trace", "1" * 32], "NotFound"),
        (["keyspace", "create", "four", "--replicas", "4"], None),
    ],
)
def test_failing_operations(at, arguments, named):
    if named is None:
        (error,) = at(*arguments, as_json=True, check=2)
        assert error["error"] == "InvalidArgument"
        return
    (error,) = at(*arguments, as_json=True, check=1)
    assert error["error"] == named
    assert error["message"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["pput", "a"], "invalid choice"),
        (["put", "a"], "required"),
        (["get", "a", "b", "--consistency", "MOST"], "consistency"),
        (["get", "a", "b", "--timeout", "soon"], "timeout"),
        (["get", "a", "b", "--endpoints", "a:b"], "address"),
        (["keyspace", "create"], "keyspace create NAME"),
        (["put", "a", "b", "c", "--context", "!"], "--context"),
        (["ring", "--nodes", "0"], "--nodes 0"),
        (["ring", "--vnodes", "3"], "--nodes"),
        (["up", "--nodes", "0"], "--nodes 0"),
        (["node"], "--data"),
        (["node", "--data", "/tmp/x", "--members", "n1"], "n1=HOST"),
        (["node", "--data", "/tmp/x", "--peer-listen", "127.0.0.1:0"], "port 0"),
        (["demo", "/nowhere"], "/nowhere"),
        (["status", "--config", "/nowhere.toml"], "no such file"),
        (["scan", "a", "--limit", "-1"], "--limit -1"),
        (["get", "a", "b", "--raw", "--json"], "--raw prints only the value"),
        (["get", "a", "b", "--timeout", "1e-9"], "--timeout 1e-09"),
        (["keyspace", "create", "a", "--replicas", "0"], "--replicas 0"),
        (["keyspace", "create", "a", "--read", "MOST"], "--read 'MOST': use ONE"),
        (["events", "--name", "Bogus"], "--name 'Bogus': there are NodeStarted"),
        (["node", "--data", "/tmp/x", "--log-level", "x"], "--log-level 'x': use off, error"),
        (["up", "--nodes", "3", "--port", "65530"], "--port 65530"),
        (["up", "--nodes", "1", "--vnodes", "0"], "--vnodes 0"),
        (["node", "--data", "/tmp/x", "--vnodes", "-1"], "--vnodes -1: give a number from 1"),
        (["node", "--data", "/tmp/x", "--map-size-bytes", "-1"], "--map-size-bytes -1: give a number from"),
        (["get", "a", "b", "--timeout", "1e6"], "--timeout 1000000.0: give at most 86400 seconds"),
    ],
)
def test_wrong_usage(arguments, named, shared):
    assert named in run(*arguments, endpoints=shared.endpoints, check=2)


def test_errors_name_flags_and_commands(at):
    (error,) = at("put", "missing", "a", "1", as_json=True, check=1)
    assert "create it with `quorate keyspace create missing`" in error["message"]
    at("keyspace", "create", "torn", "--read", "ONE")
    complaint = at("keyspace", "create", "torn", "--replicas", "1", check=1)
    flags = "--mode quorum --replicas 3 --read ONE --write QUORUM --read-repair async"
    assert f"({flags}): use these" in complaint
    at("keyspace", "create", "torn", *flags.split())
    (seen,) = at("put", "torn", "a", "1", as_json=True)
    for value in ("2", "3"):
        at("put", "torn", "a", value, "--context", seen["context"])
    complaint = at("get", "torn", "a", "-c", "ALL", "--raw", check=1)
    assert "2 concurrent values: see them with --json, then put the merged value with --context" in complaint


def test_bytes_that_are_not_text_round_trip(at, shared):
    at("keyspace", "create", "bytes")
    at("put", "bytes", b"k\xff", b"v\xfe", as_json=True)
    keyspace = shared.keyspace("bytes")
    assert keyspace.get(b"k\xff").value == b"v\xfe"
    (entry,) = at("scan", "bytes", as_json=True, PYTHONIOENCODING="utf-8:strict")
    assert entry["key"] == "k\udcff"
    for encoding in ("utf-8:strict", "ascii:strict"):
        command = [sys.executable, "-m", "quorate", "scan", "bytes"]
        environment = {**os.environ, "QUORATE_ENDPOINTS": shared.endpoints, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"k\xff" if "utf" in encoding else b"k\\udcff")


def test_a_misspelled_variable_is_reported(shared):
    command = [sys.executable, "-m", "quorate", "keyspace", "list"]
    environment = {**os.environ, "QUORATE_ENDPOINTS": shared.endpoints, "QUORATE_TIMOUT": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert done.stderr == (
        "quorate: warning: QUORATE_TIMOUT is set but is not a setting: did you mean QUORATE_TIMEOUT?\n"
    )


def test_wrong_usage_is_json_too(shared):
    error = json.loads(run("get", "a", "--json", endpoints=shared.endpoints, check=2))
    assert error["error"] == "InvalidArgument"
    assert "required: key; see `quorate get --help`" in error["message"]


@pytest.mark.parametrize("columns", [80, 100])
def test_nothing_is_cut_off_in_a_terminal(shared, columns):
    from rich.console import Console

    keyspace = shared.keyspace("a-keyspace-with-a-long-name", mode="quorum", replicas=3)
    entry = keyspace.get("a", trace=True)
    reports = [
        shared.topology(),
        shared.status(),
        shared.events(),
        shared.metrics(),
        shared.ring().distribution(),
    ]
    for report in (*reports, entry.trace()):
        console = Console(width=columns, color_system=None)
        with console.capture() as capture:
            console.print(report)
        lines = capture.get().splitlines()
        assert all(len(line) <= columns for line in lines)
        assert "…" not in capture.get()
    for number in range(1, 4):
        assert shared[f"n{number}"].address in rendering.text(shared.status(), width=columns)


def test_unresponsive_nodes_are_named_on_stderr(cluster):
    cluster["n2"].kill()
    for command in ("events", "metrics"):
        arguments = [sys.executable, "-m", "quorate", command, "--json", "-e", cluster.endpoints]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 0
        assert done.stderr == "quorate: warning: no answer from n2\n"
        assert {json.loads(line)["node"] for line in done.stdout.splitlines()} == {"n1", "n3"}


def test_no_node_is_listening():
    error = json.loads(run("status", "--json", "--timeout", 0.5, endpoints="127.0.0.1:1", check=1))
    assert error["error"] == "ConnectionLost"


def test_a_reader_that_closes_the_pipe(at, shared):
    keyspace = shared.keyspace("long", mode="quorum", replicas=3)
    keyspace.put_many({f"k{number:05d}": "x" * 100 for number in range(3000)})
    command = f"{sys.executable} -m quorate scan long | head -1"
    environment = {**os.environ, "QUORATE_ENDPOINTS": shared.endpoints}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("k00000")
    assert done.stderr == ""


@pytest.fixture
def background():
    """Start commands that run until they are stopped."""
    started = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "quorate", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            preexec_fn=default_signals,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_runs_until_a_signal(background, number):
    before = set(processes())
    process = background("up", "--nodes", 3, "--port", 0, "--json")
    ready = json.loads(process.stdout.readline())
    assert [node["name"] for node in ready["nodes"]] == ["n1", "n2", "n3"]
    run("keyspace", "create", "a", endpoints=ready["endpoints"])
    run("put", "a", "k", "v", endpoints=ready["endpoints"])
    victim = ready["nodes"][2]
    os.kill(victim["pid"], signal.SIGKILL)
    assert re.search("n3 ended with exit code -9", process.stderr.readline())
    run("put", "a", "k", "w", endpoints=ready["endpoints"])
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert set(processes()) <= before
    assert not os.path.exists(ready["directory"])  # noqa: PTH110


def test_up_prints_a_table_of_addresses(background, tmp_path):
    process = background("up", "--nodes", 1, "--port", 0, "--data", tmp_path)
    lines = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    assert any("QUORATE_ENDPOINTS=127.0.0.1:" in line for line in lines)
    assert (tmp_path / "n1").is_dir()


def free_ports(count):
    """Find unused ports. Another process may take them before the test does."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def test_nodes_started_one_by_one(background, tmp_path):
    ports = [free_ports(3) for _ in range(3)]
    members = ",".join(
        f"n{number}=127.0.0.1:{client}:{peer}:{http}" for number, (client, peer, http) in enumerate(ports, 1)
    )
    nodes = []
    for number, (client, peer, http) in enumerate(ports, 1):
        nodes.append(
            background(
                *("node", "--id", f"n{number}", "--cluster", "operated", "--members", members),
                *("--listen", f"127.0.0.1:{client}", "--peer-listen", f"127.0.0.1:{peer}"),
                *("--http-listen", f"127.0.0.1:{http}"),
                QUORATE_DATA=str(tmp_path / f"n{number}"),
            )
        )
    for node in nodes:
        assert json.loads(node.stdout.readline())["ready"] is False
        assert json.loads(node.stdout.readline())["ready"] is True
    with quorate.connect(f"127.0.0.1:{ports[0][0]}") as connection:
        eventually(lambda: connection.status().connected)
        keyspace = connection.keyspace("a", mode="quorum", replicas=3)
        keyspace.put("a", "1", consistency="ALL")
        nodes[2].send_signal(signal.SIGTERM)
        assert nodes[2].wait(20) == 0
        assert keyspace.get("a").text == "1"


def test_a_node_reports_why_it_cannot_start(background, tmp_path):
    peer, http = free_ports(2)
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        port = thief.getsockname()[1]
        process = background(
            *("node", "--data", tmp_path, "--listen", f"127.0.0.1:{port}"),
            *("--peer-listen", f"127.0.0.1:{peer}", "--http-listen", f"127.0.0.1:{http}"),
        )
        printed, complaints = process.communicate(timeout=20)
    assert process.returncode == 1
    assert json.loads(printed.splitlines()[-1])["error"] == "AddressInUse"
    assert str(port) in complaints


@pytest.mark.timeout(120)
def test_the_demo_is_correct_and_fast(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {number}\n" for number in range(1, 901)))
    begun = time.monotonic()
    report = json.loads(run("demo", text, "--json"))
    assert time.monotonic() - begun < 30
    assert (report["lines"], report["loaded"]) == (900, 900)
    assert [row["level"] for row in report["load"]] == ["ONE", "QUORUM", "ALL"]
    assert all(row[what]["operations"] == 300 for row in report["load"] for what in ("write", "read"))
    levels = {row["level"]: row for row in report["failure"]["levels"]}
    assert levels["ONE"]["write"] == levels["ONE"]["read"] == "ok"
    assert levels["QUORUM"]["write"] == levels["QUORUM"]["read"] == "ok"
    assert levels["ALL"]["write"].startswith("Unavailable: 3 required, 2 alive")
    assert levels["ALL"]["read"].startswith("Unavailable")
    before, after = report["recovery"]["stale_lines"]
    assert before == report["failure"]["revised"] > 0
    assert after == 0
    assert report["recovery"]["all"]["write"] == "ok"
    assert report["verification"] == {"acknowledged": 900, "lost": 0, "wrong": 0}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("content", "lines"),
    [(b"one", 1), (b"1\n2\n", 2), (b"1\n2\n3", 3), (b"\0\xff" * 20_000, 3)],
    ids=["1 line", "2 lines", "3 lines", "binary"],
)
def test_the_demo_accepts_any_file(tmp_path, content, lines):
    file = tmp_path / "[short].txt"
    file.write_bytes(content)
    report = json.loads(run("demo", file, "--json"))
    assert (report["lines"], report["loaded"]) == (lines, lines)
    before, after = report["recovery"]["stale_lines"]
    assert before == report["failure"]["revised"] > 0
    assert after == 0
    assert report["failure"]["levels"][2]["write"].startswith("Unavailable")
    assert report["verification"] == {"acknowledged": lines, "lost": 0, "wrong": 0}


def test_the_demo_rejects_an_empty_file(tmp_path):
    file = tmp_path / "empty.txt"
    file.touch()
    assert "is empty: name a text with at least one line" in run("demo", file, check=2)


@pytest.mark.timeout(120)
def test_the_demo_prints_tables():
    drawn = run("demo")
    for what in (
        "1 start",
        "2 load",
        "3 kill",
        "4 restart",
        "5 verify",
        "6 ring",
        "✗ Unavailable",
        "✓ available",
    ):
        assert what in drawn, what
    assert "no acknowledged write was lost" in drawn
