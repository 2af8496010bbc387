"""Calls run in the thread that waits for them, never in a native thread: a blocked one, or that of an event loop."""

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
    mine = _quorate.Executor()
    numbers = [mine.start(call) for call in calls]
    finished = {}
    deadline = time.monotonic() + PATIENCE
    while len(finished) < len(calls):
        finished.update({number: outcome for number, *outcome in mine.turn()})
        assert time.monotonic() < deadline, "a call needs the interpreter on another thread"
    return [finished[number] for number in numbers]


@pytest.mark.usefixtures("_never_released")
def test_calls_finish_while_no_other_thread_can_have_the_interpreter(shared):
    keyspace, log = (
        shared.keyspace("executor", mode="quorum", replicas=3),
        shared.keyspace("executor-log", mode="consensus", replicas=3, shards=2),
    )
    client, keys, shards = shared._client, keyspace._calls, log._calls
    ((opened, failure),) = finish([_quorate.Client.connect(shared.endpoints.split(","), 5.0, None)])
    assert failure is None
    opened.close()
    outcomes = finish(
        [
            keys.put(b"k", b"v", None, None, 5.0, True),
            keys.put_many([(b"k%d" % n, b"v") for n in range(200)], None, 5.0),
            shards.put(b"k", b"v", None, 5.0, False),
            shards.put_many([(b"k%d" % n, b"v", None) for n in range(200)], True, 5.0),
            shards.append("source", b"data", 5.0, False),
        ]
    )
    assert [failure for _, failure in outcomes] == [None] * len(outcomes)
    outcomes = finish(
        [
            keys.get(b"k", None, 5.0, False, None),
            keys.get_many([b"k1", b"k2"], None, 5.0, None),
            keys.scan(None, None, False, 100, None, 5.0),
            client.ask([1, 2, 3], "status", 0, 5.0),
            client.topology(5.0),
            shards.get(b"k", False, 5.0, False, None),
            shards.get_many([b"k1", b"k2"], False, 5.0, None),
            shards.scan(None, None, False, 100, False, 5.0),
            shards.entries([(0, 0), (1, 0)], 10, False, 5.0),
        ]
    )
    assert [failure for _, failure in outcomes] == [None] * len(outcomes)
    assert outcomes[0][0].values == [b"v"]
    assert len(outcomes[2][0].entries) == 100
    errors = finish(
        [
            client.drop_keyspace("missing", 5.0),
            keys.get(b"k", None, 5.0, False, 99),
            shards.put(b"k", b"v", 10**9, 5.0, False),
            keys.get_many([b"k" * 5000], None, 5.0, None),
        ]
    )
    assert isinstance(errors[0][1], quorate.NotFound)
    assert isinstance(errors[1][1], quorate.QuorateError)
    assert isinstance(errors[2][1], quorate.ConditionFailed)
    assert isinstance(errors[3][0][0], quorate.LimitExceeded)
    shared.drop_keyspace("executor")
    shared.drop_keyspace("executor-log")


def native_threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_client_has_no_thread(shared):
    with quorate.connect(shared.endpoints) as connection:
        keyspace = connection.keyspace("threadless", mode="quorum", replicas=3)
        before = native_threads()
        keyspace.put_many({f"k{n}": "v" for n in range(100)})
        assert keyspace.get("k1").text == "v"
        assert native_threads() == before
    assert native_threads() == before
    shared.drop_keyspace("threadless")


def test_threads_share_a_connection_and_take_turns_at_driving(shared):
    keyspace = shared.keyspace("turns", mode="quorum", replicas=3)
    found = {}

    def work(number):
        for n in range(50):
            keyspace.put(f"{number}-{n}", str(n))
        found[number] = [keyspace.get(f"{number}-{n}").text for n in range(50)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert list(found.values()) == [[str(n) for n in range(50)]] * 8
    shared.drop_keyspace("turns")


async def test_a_blocked_thread_and_an_event_loop_share_a_connection(shared):
    keyspace = shared.keyspace("shared-drive", mode="quorum", replicas=3)
    awaited = aio.Keyspace(shared, keyspace.info)
    done = threading.Event()

    def work():
        for n in range(200):
            keyspace.put(f"blocked-{n}", "v")
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    count = 0
    while not done.is_set():
        await asyncio.gather(*(awaited.put(f"awaited-{n}", "v") for n in range(20)))
        count += 1
    await asyncio.to_thread(thread.join, PATIENCE)
    assert count > 0
    assert len(await awaited.get_many([f"blocked-{n}" for n in range(200)])) == 200
    shared.drop_keyspace("shared-drive")


def test_an_idle_connection_works_after_its_node_has_closed_it():
    with quorate.Cluster(2) as cluster:
        keyspace = cluster.keyspace("idle", mode="quorum", replicas=2)
        keyspace.put("k", "v")
        # The client does nothing while its connections end.
        for node in cluster.nodes:
            cluster._processes.stop(node.name, PATIENCE, threading.Event())
            cluster._processes.restart(node.name, PATIENCE, threading.Event())
        assert keyspace.get("k", consistency=quorate.ONE, timeout=PATIENCE).text == "v"


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


async def awaited(call):
    return await call


def test_a_closed_loop_leaves_nothing_behind(shared):
    keyspace = shared.keyspace("closed", mode="quorum", replicas=3)
    gc.collect()
    before = descriptors()
    loop = asyncio.new_event_loop()

    async def start():
        running = [asyncio.ensure_future(awaited(keyspace._calls.get(b"k", None, 5.0, False, None)))]
        await asyncio.sleep(0)
        return running

    running = loop.run_until_complete(start())
    made = executor._executors[id(loop)][1]
    assert made()
    loop.close()
    # The task waits forever; its warning is not needed.
    running[0]._log_destroy_pending = False
    kept = weakref.ref(loop)
    del loop, running
    gc.collect()
    assert made() is None
    assert kept() is None
    assert descriptors() == before
    shared.drop_keyspace("closed")


async def test_a_cancelled_call_does_not_disturb_others(shared):
    client = shared._client
    call = asyncio.ensure_future(awaited(client.topology(5.0)))
    await asyncio.sleep(0)
    mine = executor.executor_of(asyncio.get_running_loop())
    assert len(mine.futures) == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not mine.futures
    assert await client.topology(5.0)


async def test_a_cancelled_batch_sends_no_more(shared):
    keyspace = shared.keyspace("cancelled", mode="quorum", replicas=3)
    mine = aio.Keyspace(shared, keyspace.info)
    items = {f"k{n:05}": "v" for n in range(20_000)}
    task = asyncio.ensure_future(mine.put_many(items))
    while not keyspace.get("k00000").found:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (await mine.get("k19999")).found
    shared.drop_keyspace("cancelled")


async def test_a_call_is_awaited_once(shared):
    call = shared._client.topology(5.0)
    assert await call
    with pytest.raises(quorate.InvalidArgument, match="was already executed"):
        await call
    with pytest.raises(quorate.InvalidArgument, match="was already executed"):
        call.wait()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_child_can_neither_start_nor_disturb_calls(shared):
    client = shared._client
    call = client.topology(5.0)
    pending = asyncio.ensure_future(awaited(client.topology(5.0)))
    await asyncio.sleep(0)
    mine = executor.executor_of(asyncio.get_running_loop())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            call.wait()
        except quorate.Closed:
            try:
                mine.turn()
            except quorate.Closed:
                status = 7
        finally:
            os._exit(status)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert await pending
    assert await call
