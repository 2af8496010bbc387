"""Robustness: garbage on every port, no threads, damaged files."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import quorate
from harness import eventually
from quorate import ALL, QUORUM, process


def garbage():
    """Yield bytes that no peer sends."""
    yield b""
    yield b"\0" * 64
    yield b"\xff" * 4096
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"QRTc" + b"\xff" * 64
    yield b"QRTc\x00\x00\x00\x04\xff\xff\xff\xff"
    yield (2**31 - 1).to_bytes(4, "big") + b"x" * 100
    yield secrets.token_bytes(65536)


def resident(pid):
    """The resident memory of a process, in bytes."""
    with open(f"/proc/{pid}/statm") as source:  # noqa: PTH123
        return int(source.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_garbage_on_every_port_is_harmless(cluster):
    keyspace = cluster.keyspace("a", mode="quorum", replicas=3)
    keyspace.put("a", "1", consistency=ALL)
    pids = [node.pid for node in cluster]
    before = sum(map(resident, pids))
    for node in cluster:
        for address in (node.address, node.peer_address, node.http_address):
            host, port = address.rsplit(":", 1)
            for piece in garbage():
                with socket.create_connection((host, int(port)), timeout=5) as line:
                    try:
                        line.sendall(piece)
                        line.shutdown(socket.SHUT_WR)
                        while line.recv(65536):
                            pass
                    except OSError:
                        continue
    assert keyspace.get("a", consistency=ALL).text == "1"
    assert keyspace.put("a", "2", consistency=ALL).replicas
    assert [node.pid for node in cluster] == pids
    assert cluster.status().connected
    assert sum(map(resident, pids)) - before < 64 << 20


def test_silent_connections_do_not_block_others(cluster):
    host, port = cluster["n1"].address.rsplit(":", 1)
    silent = [socket.create_connection((host, int(port)), timeout=5) for _ in range(100)]
    try:
        with quorate.connect(cluster["n1"].address) as connection:
            assert connection.status().connected
    finally:
        for line in silent:
            line.close()


def data_files(directory):
    found = sorted(directory.rglob("data.mdb"))
    assert len(found) == 2, "the journal and the state"
    return found


def run_without_threads(*arguments):
    # A stack that is too large for the memory fails like a thread beyond `ulimit -u`, but for root too.
    environment = {**os.environ, "RUST_MIN_STACK": str(1 << 47)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_client_without_a_thread_raises(cluster):
    program = "import sys, quorate; quorate.connect(sys.argv[1])"
    ended = run_without_threads("-c", program, cluster.endpoints)
    assert ended.returncode == 1
    assert "panicked" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("quorate.errors.Overloaded: no thread for the client: ")


def test_a_node_without_a_thread_reports_it(tmp_path):
    ports = ("--listen", "127.0.0.1:1", "--peer-listen", "127.0.0.1:2", "--http-listen", "127.0.0.1:3")
    ended = run_without_threads("-m", "quorate", "node", "--data", tmp_path, *ports)
    assert ended.returncode == 1
    assert "panicked" not in ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["message"].startswith("start a thread: ")


def test_a_truncated_data_file_is_named(cluster):
    keyspace = cluster.keyspace("a", mode="quorum", replicas=3)
    keyspace.put_many({f"k{number}": "x" * 1000 for number in range(200)}, consistency=ALL)
    cluster["n2"].kill()
    for path in data_files(cluster["n2"].data_dir):
        whole = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(len(whole) // 64)
        with pytest.raises(quorate.DataDirectoryError, match="n2 does not start") as caught:
            cluster["n2"].restart()
        assert str(path.parent) in str(caught.value)
        assert cluster["n2"].exit_code == 1
        path.write_bytes(whole)
    assert len(keyspace.get_many([f"k{number}" for number in range(200)])) == 200
    cluster["n2"].restart()
    assert keyspace.get("k7", consistency=ALL).found


def test_a_node_with_an_emptied_directory_reports_it_immediately(cluster):
    node = cluster["n2"]
    node.kill()
    shutil.rmtree(node.data_dir)
    begun = time.monotonic()
    with pytest.raises(
        quorate.ClusterStartError, match=r"(?s)n2 does not start.*directory was lost or replaced"
    ):
        node.restart(timeout=30)
    assert time.monotonic() - begun < 10
    assert node.exit_code is not None


def test_a_crash_by_a_damaged_mapping_is_explained(tmp_path):
    words = process.describe_end(-signal.SIGSEGV, "data/n1", tmp_path / "n1.log")
    assert words.startswith(
        "ended by SIGSEGV: probably a damaged data file in data/n1; start the node under a new id"
    )
    assert process.describe_end(70, "data/n1", tmp_path / "n1.log") == "ended with exit code 70"


def test_a_flipped_byte_is_detected_and_never_returned(cluster):
    keyspace = cluster.keyspace("a", mode="quorum", replicas=3)
    value = b"SENTINEL" * 100
    keyspace.put("a", value, consistency=ALL)
    cluster["n3"].stop()
    flipped = 0
    for path in data_files(cluster["n3"].data_dir):
        content = path.read_bytes()
        if b"SENTINEL" in content:
            flipped += 1
            path.write_bytes(content.replace(b"SENTINEL", b"SENTINEM"))
    assert flipped
    try:
        cluster["n3"].restart()
    except quorate.DataDirectoryError:
        pass
    else:
        with pytest.raises(quorate.QuorateError) as caught:
            keyspace.get("a", consistency=ALL, timeout=2.0)
        assert not isinstance(caught.value, quorate.InvalidArgument)
    assert keyspace.get("a", consistency=QUORUM).value == value


def test_a_full_store_rejects_writes_and_serves_reads():
    with quorate.Cluster(nodes=3, settings={"map_size_bytes": 16 << 20}) as cluster:
        keyspace = cluster.keyspace("a", mode="quorum", replicas=3)
        acknowledged = {}

        def full():
            key, value = f"k{len(acknowledged)}", secrets.token_bytes(1 << 20)
            try:
                keyspace.put(key, value, timeout=2.0)
            except quorate.OutcomeUnknown:
                # Some replicas had space for it, others did not.
                return None
            except quorate.StorageFull as error:
                return error
            acknowledged[key] = value
            return None

        error = eventually(full)
        assert "full" in str(error)
        assert len(acknowledged) > 5
        assert cluster.events().where("StorageFull")
        full = next(node for node in cluster.status() if node.full)
        assert " ".join(full.full.split()) in " ".join(str(cluster.status()).split())
        assert f"disk full: {full.name}" in str(cluster.health())
        for _ in range(2):
            entries = keyspace.get_many(acknowledged, consistency=ALL)
            assert all(acknowledged[key] in entry.siblings for key, entry in entries.items())
            cluster["n1"].restart()


class Writer(threading.Thread):
    """Writes until it is stopped, and records acknowledged writes."""

    def __init__(self, keyspace, number):
        super().__init__()
        self.keyspace = keyspace
        self.number = number
        self.done = threading.Event()
        self.acknowledged = {}
        self.unexpected = []

    def run(self):
        wave = 0
        while not self.done.is_set():
            wave += 1
            lines = {f"w{self.number}-{wave}-{number}": f"{wave}.{number}" for number in range(32)}
            try:
                written = self.keyspace.put_many(lines, consistency=QUORUM, timeout=2.0)
            except quorate.PartialFailure as failure:
                written = failure.succeeded
                expected = (
                    quorate.OutcomeUnknown,
                    quorate.Unavailable,
                    quorate.ConnectionLost,
                    quorate.Closed,
                )
                self.unexpected += [e for e in failure.failed.values() if not isinstance(e, expected)]
            self.acknowledged.update((key, lines[key]) for key in written)


@pytest.mark.timeout(120)
def test_every_acknowledged_write_survives_twenty_kills_under_load(cluster):
    keyspace = cluster.keyspace("a", mode="quorum", replicas=3)
    writers = [Writer(keyspace, number) for number in range(2)]
    for writer in writers:
        writer.start()
    try:
        for turn in range(20):
            counts = [len(writer.acknowledged) for writer in writers]
            eventually(
                lambda counts=counts: all(
                    len(w.acknowledged) > c for w, c in zip(writers, counts, strict=True)
                )
            )
            victim = cluster[f"n{turn % 3 + 1}"]
            victim.kill(wait=False)
            victim.restart()
    finally:
        for writer in writers:
            writer.done.set()
            writer.join()
    assert [writer.unexpected for writer in writers] == [[], []]
    acknowledged = {**writers[0].acknowledged, **writers[1].acknowledged}
    assert len(acknowledged) > 20 * 2 * 32
    entries = keyspace.get_many(acknowledged, consistency=QUORUM)
    assert {key: entry.text for key, entry in entries.items()} == acknowledged
