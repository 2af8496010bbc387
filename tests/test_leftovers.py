"""A program with a cluster leaves no process and no file, however it ends."""

import os
import secrets
import signal
import subprocess
import sys
import time

import pytest

from harness import eventually, processes

PROGRAM = """
import sys, signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
import quorate
cluster = quorate.Cluster(nodes=2)
{body}
"""
READY = "print('ready', flush=True); signal.pause()"


@pytest.fixture
def program(tmp_path):
    """Start a program with a cluster in its own temporary directory; return it and its leftovers."""
    mark = f"TEST_PROGRAM_OF_QUORATE={secrets.token_hex(8)}"
    started = []

    def start(body):
        name, _, value = mark.partition("=")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(body=body)],
            env={**os.environ, "TMPDIR": str(tmp_path), name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    def left():
        return processes(mark), sorted(path.name for path in tmp_path.iterdir())

    yield start, left
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("cluster.close()", 0),
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise RuntimeError('mine')", 1),
        ("cluster['n1'].kill()", 0),
        ("cluster['n1'].pause()", 0),
    ],
)
def test_a_program_that_exits(program, body, status):
    start, left = program
    process = start(body)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == status, complaints
    assert left() == ({}, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_program_ended_by_a_signal(program, number):
    start, left = program
    process = start(READY)
    assert process.stdout.readline() == "ready\n"
    running, files = left()
    assert len(running) == 4, "the program, two nodes and the reaper"
    assert len(files) == 1
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    eventually(lambda: left() == ({}, []))


def test_a_killed_program_with_a_paused_node(program):
    start, left = program
    process = start(f"cluster['n2'].pause(); {READY}")
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    # When it is resumed it stops immediately, without a timeout.
    eventually(lambda: left() == ({}, []), patience=2.5)


def test_a_killed_program_with_a_forked_child(program):
    start, left = program
    process = start(f"""
import os, time
child = os.fork()
if child == 0:
    os.close(1)
    os.close(2)
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
{READY}
""")
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()
    try:
        eventually(lambda: (list(left()[0]), left()[1]) == ([child], []))
    finally:
        os.kill(child, signal.SIGKILL)


def test_an_interrupt_during_the_start(program):
    start, left = program
    process = start("")
    eventually(lambda: len(left()[0]) >= 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    eventually(lambda: left() == ({}, []))


def test_an_interrupt_during_an_operation(program):
    start, left = program
    process = start("""
keyspace = cluster.keyspace('a', mode='quorum', replicas=2)
for node in cluster:
    node.pause()
print('ready', flush=True)
keyspace.get('a', timeout=50)
""")
    assert process.stdout.readline() == "ready\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in complaints
    assert time.monotonic() - begun < 15
    assert left() == ({}, [])


def test_a_failed_start(program):
    start, left = program
    process = start("cluster.close(); quorate.Cluster(nodes=3, settings={'idle_ms': 10})")
    _, complaints = process.communicate(timeout=30)
    assert "ClusterStartError" in complaints
    assert left() == ({}, [])
