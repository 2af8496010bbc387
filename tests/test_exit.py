"""A program ends with its own exit code and without output, in the middle of any client operation.

The interpreter ends while threads of the extension run. A thread that touched it would end the process with a signal,
but not in every run, so each program runs a number of times. `test_executor` shows that no such thread needs the
interpreter at all.
"""

import subprocess
import sys

import pytest

RUNS = 8

HEAD = """
import asyncio, sys, threading, time, quorate
from quorate import aio

class SlowEnd:
    def __del__(self, sleep=time.sleep):
        # The interpreter is already ending. Release it briefly, so that responses arrive.
        sleep(0.02)

slow_end = SlowEnd()

def connected(use):
    async def main():
        async with aio.connect(sys.argv[1]) as client:
            await use(await client.keyspace("exit"))
    return main()

def seen(task):
    # Closing the client fails the operations in flight; asyncio prints an error that was not retrieved.
    return task.cancelled() or task.exception()

def puts(keyspace, count):
    tasks = [asyncio.ensure_future(keyspace.put(f"k{n}", "v")) for n in range(count)]
    for task in tasks:
        task.add_done_callback(seen)
    return tasks
"""

PROGRAMS = {
    "one call": """
asyncio.run(connected(lambda keyspace: keyspace.put("k", "v")))
""",
    "everything is awaited": """
async def use(keyspace):
    await asyncio.gather(*puts(keyspace, 32))
asyncio.run(connected(use))
""",
    "a call times out": """
async def use(keyspace):
    try:
        await asyncio.wait_for(keyspace.put("k", "v"), 0.0003)
    except (TimeoutError, asyncio.TimeoutError):
        pass
asyncio.run(connected(use))
""",
    "calls are cancelled": """
async def use(keyspace):
    tasks = puts(keyspace, 200)
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
asyncio.run(connected(use))
""",
    "exits while calls are in flight": """
async def use(keyspace):
    await puts(keyspace, 200)[0]
    raise SystemExit(3)
asyncio.run(connected(use))
""",
    "the loop is closed while calls are in flight": """
loop = asyncio.new_event_loop()
async def main():
    client = await aio.connect(sys.argv[1])
    tasks = puts(await client.keyspace("exit"), 200)
    await asyncio.sleep(0)
    return tasks
tasks = loop.run_until_complete(main())
loop.close()
for task in tasks:
    task._log_destroy_pending = False
""",
    "the loop of a daemon thread is busy": """
busy = threading.Event()
async def use(keyspace):
    while True:
        await asyncio.gather(*puts(keyspace, 16))
        busy.set()
threading.Thread(target=lambda: asyncio.run(connected(use)), daemon=True).start()
busy.wait()
""",
    "a daemon thread is in a blocking call": """
busy = threading.Event()
client = quorate.connect(sys.argv[1])
keyspace = client.keyspace("exit")
def use():
    while True:
        keyspace.put("k", "v")
        busy.set()
threading.Thread(target=use, daemon=True).start()
busy.wait()
""",
    "a daemon thread's calls fail": """
busy = threading.Event()
client = quorate.connect(sys.argv[1])
def use():
    while True:
        try:
            client.keyspace("missing")
        except quorate.NotFound:
            busy.set()
threading.Thread(target=use, daemon=True).start()
busy.wait()
""",
}


@pytest.fixture(scope="module")
def endpoints(shared):
    shared.keyspace("exit", mode="quorum", replicas=3)
    yield shared.endpoints
    shared.drop_keyspace("exit")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_with_its_own_exit_code(endpoints, name):
    command = [sys.executable, "-c", HEAD + PROGRAMS[name], endpoints]
    expected = 3 if "SystemExit(3)" in PROGRAMS[name] else 0
    outcomes = []
    for _ in range(RUNS // 2):
        # Two at a time: preempted threads make the error likely.
        pair = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        for process in pair:
            try:
                _, complaint = process.communicate(timeout=20)
            finally:
                process.kill()
            outcomes.append((process.returncode, complaint.strip()))
    assert outcomes == [(expected, "")] * RUNS
