"""Blocking work in a thread of its own, which ends before its caller does, even one that is interrupted or cancelled.

So processes are started and ended. In the calling thread, Ctrl-C could strike between the moment when a process exists
and the moment when somebody knows of it; and a task that awaits a thread can be cancelled while the thread goes on. The
work runs where neither can reach it; a caller who is to stop asks it to give up, and waits until it has.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from quorate.errors import Closed, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Patience", "run", "run_async"]

Result = TypeVar("Result")

SLICE = 0.05
"""Seconds after which work that waits looks again whether it is still wanted."""


class Patience:
    """How long work may wait: until a moment, and only as long as the work is wanted.

    Parameters
    ----------
    seconds : float
        From now on.
    given_up : threading.Event
        Any of them ends it.
    """

    def __init__(self, seconds: float, *given_up: threading.Event) -> None:
        self._deadline = time.monotonic() + seconds
        self._given_up = given_up

    def left(self) -> float:
        """Tell how many seconds are left, none or fewer when the time is up.

        Raises
        ------
        Closed
            The work is not wanted any more.
        """
        if any(event.is_set() for event in self._given_up):
            raise Closed("this was given up before it was done: do it again")
        return self._deadline - time.monotonic()

    def slice(self) -> float:
        """Tell how many seconds to wait before asking again; 0 when the time is up."""
        return min(SLICE, max(0.0, self.left()))


class _NoThread(Exception):
    """The system has no room for another thread, or the interpreter is ending."""


class _Job(Generic[Result]):
    """A call in a thread, and what came of it."""

    def __init__(self, work: Callable[[], Result], ended: Callable[[], None]) -> None:
        self._work = work
        self._ended = ended
        self._owner: dict[str, str] = {}
        self._result: Result
        self._error: BaseException | None = None
        self.done = threading.Event()

    def start(self) -> None:
        """Start the thread.

        `threading.Thread` would note the thread in several steps, between which an interruption leaves it half known.
        """
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise _NoThread(str(error)) from None

    def revoke(self) -> bool:
        """Whether the call has not begun, and now never will: a caller that was interrupted cannot know."""
        return self._owner.setdefault("is", "caller") == "caller"

    def _run(self) -> None:
        if self._owner.setdefault("is", "thread") != "thread":
            return
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()
            self._ended()

    def result(self) -> Result:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                # An error has the frames that it passed, and they have this.
                self._error = None
        return self._result


def run(work: Callable[[], Result], give_up: Callable[[], None] = lambda: None) -> Result:
    """Call in a thread, and return or raise what the call does. Where no thread can be started, call here.

    Parameters
    ----------
    work : callable
        What to do. Ends soon after ``give_up``.
    give_up : callable
        What to do when the caller is interrupted: does not block. By default the work is done to its end.

    Raises
    ------
    KeyboardInterrupt
        The caller was interrupted; the work has ended all the same. So does whatever else a handler of signals raises.
    """
    job = _Job(work, lambda: None)
    interruption: BaseException | None = None
    begun = False
    while True:
        try:
            if interruption is not None:
                if job.revoke():
                    break
                give_up()
            elif not begun:
                begun = True
                job.start()
            # Not every interruption wakes a thread that waits; each finds one that looks around.
            while not job.done.wait(SLICE):
                pass
            break
        except _NoThread:
            if job.revoke():
                return work()
        except BaseException as error:
            interruption = interruption or error
    if interruption is not None:
        raise interruption
    return job.result()


async def run_async(work: Callable[[], Result], give_up: Callable[[], None] = lambda: None) -> Result:
    """Call in a thread, and return or raise what the call does; meanwhile the event loop runs.

    Parameters
    ----------
    work : callable
        What to do. Ends soon after ``give_up``.
    give_up : callable
        What to do when the task is cancelled: does not block. By default the work is done to its end.

    Raises
    ------
    asyncio.CancelledError
        The task was cancelled, once or more often; the work has ended all the same.
    Overloaded
        The system has no room for another thread; nothing was done.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake() -> None:
        # A loop that is closed has nobody left to wake.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set)

    job = _Job(work, wake)
    try:
        job.start()
    except _NoThread as error:
        raise Overloaded(
            f"no thread can be started ({error}): end other programs, or raise the limit (ulimit -u)"
        ) from error
    cancellation: asyncio.CancelledError | None = None
    while not job.done.is_set():
        try:
            await ended.wait()
        except asyncio.CancelledError as error:
            cancellation = error
            give_up()
        except BaseException:
            # The loop is gone, or goes: nothing can be awaited any more.
            give_up()
            job.done.wait()
            raise
    if cancellation is not None:
        raise cancellation
    return job.result()
