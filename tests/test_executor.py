"""Calls of an event loop run in the loop's own thread, never in a native thread."""

import asyncio
import gc
import os
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

import quorate
from harness import PATIENCE
from quorate import _quorate, aio, executor


@pytest.fixture
def _never_released():
    """Keep other threads from getting the interpreter, unless this one releases it."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10 * PATIENCE)
    yield
    sys.setswitchinterval(interval)


def finish(calls):
    """Finish calls without an event loop, and without ever releasing the interpreter."""
    loop = _quorate.Executor()
    numbers = [loop.start(call) for call in calls]
    finished = {}
    deadline = time.monotonic() + PATIENCE
    while len(finished) < len(calls):
        finished.update({number: outcome for number, *outcome in loop.drain()})
        assert time.monotonic() < deadline, "a call needs the interpreter on another thread"
    return [finished[number] for number in numbers]


@pytest.mark.usefixtures("_never_released")
def test_calls_finish_while_no_other_thread_can_have_the_interpreter(shared):
    keyspace, log = (
        shared.keyspace("executor", mode="quorum", replicas=3),
        shared.keyspace("executor-log", mode="consensus", replicas=3, shards=2),
    )
    client, shards = shared._client, log._shards
    ((opened, failure),) = finish([_quorate.Client.connect_async(shared.endpoints.split(","), 5.0, None)])
    assert failure is None
    opened.close()
    number = keyspace.info.id
    outcomes = finish(
        [
            client.put_async(number, b"k", b"v", None, None, 5.0, True),
            client.put_many_async(number, [(b"k%d" % n, b"v") for n in range(200)], None, 5.0),
            shards.put_async(b"k", b"v", None, 5.0, False),
            shards.put_many_async([(b"k%d" % n, b"v", None) for n in range(200)], 5.0),
            shards.append_async("source", b"data", 5.0, False),
        ]
    )
    assert [failure for _, failure in outcomes] == [None] * len(outcomes)
    outcomes = finish(
        [
            client.get_async(number, b"k", None, 5.0, False, None),
            client.get_many_async(number, [b"k1", b"k2"], None, 5.0, None),
            client.scan_async(number, None, None, False, 100, None, 5.0),
            client.ask_async([1, 2, 3], "status", 0, 5.0),
            client.topology_async(5.0),
            shards.get_async(b"k", False, 5.0, False, None),
            shards.get_many_async([b"k1", b"k2"], False, 5.0, None),
            shards.scan_async(None, None, False, 100, False, 5.0),
            shards.entries_async([(0, 0), (1, 0)], 10, False, 5.0),
        ]
    )
    assert [failure for _, failure in outcomes] == [None] * len(outcomes)
    assert [version.value for version in outcomes[0][0].versions] == [b"v"]
    assert len(outcomes[2][0].entries) == 100
    errors = finish(
        [
            client.drop_keyspace_async("missing", 5.0),
            client.get_async(number, b"k", None, 5.0, False, 99),
            shards.put_async(b"k", b"v", 10**9, 5.0, False),
            client.get_many_async(number, [b"k" * 5000], None, 5.0, None),
        ]
    )
    assert isinstance(errors[0][1], quorate.NotFound)
    assert isinstance(errors[1][1], quorate.QuorateError)
    assert isinstance(errors[2][1], quorate.ConditionFailed)
    assert isinstance(errors[3][0][0], quorate.LimitExceeded)
    shared.drop_keyspace("executor")
    shared.drop_keyspace("executor-log")


async def test_answers_and_errors_are_made_by_the_thread_of_the_loop(shared, keyspace, monkeypatch):
    threads = set()
    make, wake = quorate.NotFound.__init__, asyncio.BaseEventLoop.call_soon_threadsafe

    def made(self, *arguments, **fields):
        threads.add(threading.get_ident())
        make(self, *arguments, **fields)

    def called(loop, *arguments, **options):
        threads.add(threading.get_ident())
        return wake(loop, *arguments, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", called)
    monkeypatch.setattr(quorate.NotFound, "__init__", made)
    async with aio.connect(shared.endpoints) as connection:
        mine = await connection.keyspace(keyspace.name)
        await asyncio.gather(*(mine.put(f"k{n}", "v") for n in range(100)))
        with pytest.raises(quorate.NotFound):
            await connection.keyspace("missing")
    assert threads == {threading.get_ident()}


def test_every_loop_has_its_own_executor(shared):
    keyspace = shared.keyspace("loops", mode="quorum", replicas=3)
    found = []

    async def work(number):
        async with aio.connect(shared.endpoints) as connection:
            mine = await connection.keyspace("loops")
            await asyncio.gather(*(mine.put(f"{number}-{n}", str(n)) for n in range(50)))
            entries = await mine.get_many([f"{number}-{n}" for n in range(50)])
            found.append([entry.text for entry in entries.values()])

    threads = [
        threading.Thread(target=lambda number=number: asyncio.run(work(number))) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # And for consecutive loops of one thread.
    asyncio.run(work(4))
    asyncio.run(work(5))
    assert found == [[str(n) for n in range(50)]] * 6
    assert keyspace.get("3-49").text == "49"
    shared.drop_keyspace("loops")


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_closed_loop_leaves_nothing_behind(shared):
    keyspace = shared.keyspace("closed", mode="quorum", replicas=3)
    client, number = shared._client, keyspace.info.id
    gc.collect()
    before = descriptors()
    loop = asyncio.new_event_loop()

    async def start():
        running = [
            asyncio.ensure_future(executor.run(client.get_async(number, b"k", None, 5.0, False, None)))
        ]
        await asyncio.sleep(0)
        return running

    running = loop.run_until_complete(start())
    assert loop in executor._executors
    made = executor._executors[loop]
    calls = made().calls
    loop.close()
    # The task waits forever; its warning is not needed.
    running[0]._log_destroy_pending = False
    kept = weakref.ref(loop)
    del loop, running
    gc.collect()
    assert made() is None
    assert kept() is None
    del calls
    assert descriptors() == before
    shared.drop_keyspace("closed")


async def test_a_cancelled_call_is_dropped_immediately(shared):
    client = shared._client
    call = asyncio.ensure_future(executor.run(client.topology_async(5.0)))
    await asyncio.sleep(0)
    mine = executor._executors[asyncio.get_running_loop()]()
    assert len(mine.futures) == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not mine.futures
    assert await client.topology_async(5.0)


async def test_a_call_is_awaited_once(shared):
    call = shared._client.topology_async(5.0)
    assert await call
    with pytest.raises(quorate.InvalidArgument, match="awaited already"):
        await call


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_child_can_neither_start_nor_disturb_calls(shared):
    client = shared._client
    call = client.topology_async(5.0)
    pending = asyncio.ensure_future(executor.run(client.topology_async(5.0)))
    await asyncio.sleep(0)
    mine = executor._executors[asyncio.get_running_loop()]()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            mine.calls.cancel(1)
            mine.calls.start(call)
        except quorate.Closed:
            mine.calls = None
            status = 7
        finally:
            os._exit(status)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert await pending
    assert await call
