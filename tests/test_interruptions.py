"""The start or end of a cluster may be cancelled or interrupted at any moment: nothing is left behind."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import quorate
from harness import eventually, processes
from quorate import aio, background, cluster, fleet, process

# Work in the background -----------------------------------------------------------------------------------------------


def test_work_returns_and_raises():
    assert background.run(lambda: threading.get_ident()) != threading.get_ident()
    with pytest.raises(KeyError, match="mine"):
        background.run(lambda: {}["mine"])


def test_work_runs_in_this_thread_if_none_can_be_started(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(background._thread, "start_new_thread", refuse)
    assert background.run(threading.get_ident) == threading.get_ident()
    with pytest.raises(quorate.Overloaded, match="ulimit"):
        asyncio.run(background.run_async(threading.get_ident))


@pytest.fixture(autouse=True)
def interruptible():
    """Handle SIGINT as an interactive program does: the tests may have been started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("times", [1, 3])
def test_interrupted_work_ends_before_its_caller(times):
    given_up, events = threading.Event(), []

    def work():
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            assert given_up.wait(20)
            given_up.clear()
        events.append("work has ended")

    with pytest.raises(KeyboardInterrupt):
        background.run(work, given_up.set)
    assert events == ["work has ended"]


async def test_cancelled_work_ends_before_its_caller():
    given_up, events = threading.Event(), []

    def work():
        assert given_up.wait(20)
        time.sleep(0)
        events.append("work has ended")

    async def caller():
        try:
            await background.run_async(work, given_up.set)
        finally:
            events.append("caller continues")

    task = asyncio.ensure_future(caller())
    await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["work has ended", "caller continues"]


def test_work_ends_after_the_event_loop_is_closed():
    given_up, ended = threading.Event(), threading.Event()

    def work():
        given_up.wait(20)
        ended.set()

    caller = background.run_async(work, given_up.set)
    loop = asyncio.new_event_loop()
    task = loop.create_task(caller)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    caller.close()
    assert ended.is_set()
    with contextlib.suppress(asyncio.CancelledError):
        task._log_destroy_pending = False


# Clusters of simulated processes, interrupted at every step -----------------------------------------------------------


class World:
    """A replacement for processes; calls back at each step of starting and ending them."""

    def __init__(self):
        self.running = set()
        self.steps = 0
        self.at = None
        self.then = lambda: None

    def step(self):
        self.steps += 1
        if self.steps == self.at:
            self.then()

    def start(self, what):
        self.step()
        self.running.add(what)
        try:
            self.step()
        except BaseException:
            self.running.discard(what)
            raise

    def end(self, what):
        self.step()
        self.running.discard(what)

    def process(self):
        world = self

        class Process:
            def __init__(self, name, config, _log):
                self.name, self.config = name, config
                self.pid, self.paused = 0, False
                world.start(self)

            exit_code = property(lambda self: None if self in world.running else 0)

            def bound(self, patience):
                world.step()
                patience.left()
                return dict.fromkeys(("peer", "client", "http"), "127.0.0.1:1")

            def start(self, _members):
                world.step()

            def serving(self, patience):
                world.step()
                patience.left()

            def form(self):
                world.step()

            def formed(self, patience):
                world.step()
                patience.left()

            def signal(self, _number):
                world.step()

            def wait(self, _timeout):
                world.end(self)
                return True

            def ended(self, _patience):
                world.end(self)
                return True

            def hang_up(self):
                world.step()

            destroy = hang_up

        return Process

    def reaper(self):
        world = self

        class Reaper:
            def __init__(self, _directory):
                world.start(self)

            def born(self, _pid):
                pass

            gone = born

            def farewell(self):
                world.end(self)

        return Reaper

    def client(self):
        world = self

        class Client:
            def __init__(self, *_):
                world.running.add(id(self))

            connect = classmethod(lambda cls, *_: cls())

            @classmethod
            async def connect_async(cls, *_):
                await asyncio.sleep(0)
                return cls()

            def close(self):
                world.running.discard(id(self))

            def topology(self, *_):
                raise quorate.ConnectionLost("a pretended node")

            async def topology_async(self, *_):
                await asyncio.sleep(0)
                raise quorate.ConnectionLost("a pretended node")

            # Dropped, it closes.
            __del__ = close

        return Client


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Clusters of simulated processes, with temporary directories in their own folder."""
    world = World()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(fleet, "NodeProcess", world.process())
    monkeypatch.setattr(fleet, "Reaper", world.reaper())
    extension = SimpleNamespace(Client=world.client())
    for module in (cluster, aio.cluster):
        monkeypatch.setattr(module, "_quorate", extension)
    monkeypatch.setattr(cluster, "started", lambda _fleet, _timeout: at_once())
    return world


def at_once():
    """Succeed without a call."""
    return True
    yield


def nothing_is_left(world, tmp_path):
    """Whether all processes, clients, temporary directories, locks and threads are gone."""
    gc.collect()
    assert not world.running
    assert not list((tmp_path / "temporary").iterdir())
    eventually(lambda: threading.active_count() == 1)
    for directory in tmp_path.glob("data*"):
        fleet.DataDirectory(directory).release()
    return True


@pytest.mark.parametrize(("kept", "times"), [(False, 1), (True, 2)])
def test_an_asynchronous_start_is_cancelled_at_every_step(world, tmp_path, kept, times):

    async def at(step):
        """Cancel at a step; return whether it was reached."""
        directory = tmp_path / f"data{step}" if kept else None
        loop = asyncio.get_running_loop()
        was_cancelled = threading.Event()

        def cancel():
            for _ in range(times):
                task.cancel()
            was_cancelled.set()

        def then():
            loop.call_soon_threadsafe(cancel)
            was_cancelled.wait(20)

        world.steps, world.at, world.then = 0, step, then
        subject = aio.Cluster(2, data_dir=directory)
        task = asyncio.ensure_future(subject.start())
        try:
            await task
        except asyncio.CancelledError:
            assert was_cancelled.is_set()
        else:
            # The last steps belong to the requested end.
            world.at = None
            await subject.close()
            return False
        assert nothing_is_left(world, tmp_path)
        # It can be started again.
        world.at = None
        assert "not started" in repr(subject)
        with pytest.raises(quorate.Closed, match="not started"):
            await subject.status()
        async with subject:
            assert len(world.running) == 4, "two nodes, the reaper, a client"
        assert nothing_is_left(world, tmp_path)
        return True

    step = 1
    while asyncio.run(at(step)):
        step += 1
    assert step == (17 if kept else 13)
    assert nothing_is_left(world, tmp_path)


def fails():
    """Fail to start."""
    raise quorate.ClusterStartError("a pretended failure")


@pytest.mark.parametrize(
    "start", [quorate.Cluster, lambda **given: asyncio.run(aio.Cluster(**given).start())]
)
def test_a_start_that_fails_at_any_step_leaves_nothing(world, tmp_path, start):
    world.then = fails
    for step in range(1, 17):
        world.steps, world.at = 0, step
        # The caught exception keeps the objects alive, so the garbage collector does not clean up.
        with pytest.raises(quorate.ClusterStartError, match="pretended") as caught:
            start(nodes=2, data_dir=tmp_path / f"data{step}")
        assert nothing_is_left(world, tmp_path), caught


def test_an_asynchronous_end_is_cancelled_at_every_step(world, tmp_path):
    async def at(step):
        loop = asyncio.get_running_loop()
        was_cancelled = threading.Event()
        subject = aio.Cluster(2)
        await subject.start()

        def then():
            loop.call_soon_threadsafe(lambda: (task.cancel(), was_cancelled.set()))
            was_cancelled.wait(20)

        world.steps, world.at, world.then = 0, step, then
        task = asyncio.ensure_future(subject.close())
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert nothing_is_left(world, tmp_path)
        return was_cancelled.is_set()

    step = 1
    while asyncio.run(at(step)):
        step += 1
    assert step > 8


def test_a_closed_start_and_a_second_one(world, tmp_path):
    async def main():
        subject = aio.Cluster(2)
        loop = asyncio.get_running_loop()
        closing = []

        def then():
            reached.set()
            loop.call_soon_threadsafe(lambda: closing.append(asyncio.ensure_future(subject.close())))
            eventually(lambda: subject._processes.closed)

        reached = threading.Event()
        world.at, world.then = 4, then
        first = asyncio.ensure_future(subject.start())
        await asyncio.sleep(0)
        with pytest.raises(quorate.ClusterStartError, match="already"):
            await subject.start()
        with pytest.raises(quorate.Closed):
            await first
        await closing[0]
        assert nothing_is_left(world, tmp_path)
        world.at = None
        assert await subject.start() is subject
        assert await subject.start() is subject, "it is already running"
        assert len(world.running) == 4
        await subject.close()
        await subject.close()

    asyncio.run(main())
    assert nothing_is_left(world, tmp_path)


def test_the_event_loop_is_closed_during_a_start(world, tmp_path):
    subject = aio.Cluster(2)
    starting = subject.start()
    loop = asyncio.new_event_loop()
    task = loop.create_task(starting)
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False
    loop.close()
    starting.close()
    del task
    assert nothing_is_left(world, tmp_path)


class Interrupter:
    """Interrupts this thread as Ctrl-C does, after a number of executed lines of Quorate."""

    FOLDER = str(Path(quorate.__file__).parent)
    # These expect interruptions: their work ends without help.
    ELSEWHERE = ("arguments.py", "plan.py", "ring.py", "tuning.py", "errors.py")

    def __init__(self, lines):
        self.lines = lines

    def __enter__(self):
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(None)

    def trace(self, frame, event, _argument):
        name = frame.f_code.co_filename
        if not name.startswith(self.FOLDER) or name.endswith(self.ELSEWHERE):
            return None
        if event == "line":
            self.lines -= 1
            if self.lines == 0:
                raise KeyboardInterrupt
        return self.trace


def test_a_start_is_interrupted_at_every_line(world, tmp_path):
    lines = interrupted = 0
    while True:
        lines += 1
        with contextlib.suppress(KeyboardInterrupt):
            with Interrupter(lines):
                subject = quorate.Cluster(2, data_dir=tmp_path / "data")
            subject.close()
            break
        interrupted += 1
        assert nothing_is_left(world, tmp_path)
    assert interrupted > 30
    assert nothing_is_left(world, tmp_path)


def test_an_end_is_interrupted_at_every_line(world, tmp_path):
    lines = interrupted = 0
    while True:
        lines += 1
        subject = quorate.Cluster(2)
        try:
            with Interrupter(lines):
                subject.close()
        except KeyboardInterrupt:
            interrupted += 1
        else:
            break
        finally:
            del subject
        assert nothing_is_left(world, tmp_path)
    assert interrupted > 5
    assert nothing_is_left(world, tmp_path)


# Real clusters --------------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """A separate folder for temporary directories."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("limit", [0.0, 0.02, 0.1])
async def test_a_start_that_times_out_leaves_nothing(temporary, limit):
    before = set(processes())
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        await asyncio.wait_for(aio.Cluster(5).start(), limit)
    assert set(processes()) == before
    assert not list(temporary.iterdir())


async def test_a_cancelled_restart_leaves_a_node_that_can_be_restarted(temporary, monkeypatch):
    reached = threading.Event()

    def never(_process, patience):
        reached.set()
        while patience.left() > 0:
            threading.Event().wait(patience.slice())

    others = set(processes())
    async with aio.Cluster(2) as subject:
        node, before = subject["n2"], set(processes())
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(process.NodeProcess, "serving", never)
                reached.clear()
                task = asyncio.ensure_future(node.restart())
                while not reached.is_set():
                    await asyncio.sleep(0.001)
                assert node.running
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not node.running
            assert len(processes()) == len(before) - 1
        await node.restart()
        assert (await subject.status()).connected
        task = asyncio.ensure_future(node.stop())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await node.restart()
    assert not set(processes()) & (before - others)
    assert not list(temporary.iterdir())


async def test_a_cancelled_connection_leaves_nothing(shared):
    descriptors = Path(f"/proc/{os.getpid()}/fd")
    # The event loop keeps its executor.
    async with aio.connect(shared.endpoints):
        pass
    before = len(list(descriptors.iterdir()))
    for number in range(30):
        task = asyncio.ensure_future(aio.connect(shared.endpoints)._connect())
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).close()
    eventually(lambda: len(list(descriptors.iterdir())) <= before)
