"""Blocking work in a separate thread, which ends before its caller, even if that is interrupted or cancelled.

Processes are started and stopped this way. In the calling thread, Ctrl-C could strike after a process was created and
before it is registered; and a task that awaits a thread can be cancelled while the thread still runs. The work runs
where neither can interrupt it; an interrupted caller requests it to give up, and waits until it has ended.
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
"""Seconds between checks of waiting work for cancellation."""


class Patience:
    """A deadline for work, which also ends when the work is given up.

    Parameters
    ----------
    seconds : float
        From now on.
    given_up : threading.Event
        Setting any of them ends the wait.
    """

    def __init__(self, seconds: float, *given_up: threading.Event) -> None:
        self._deadline = time.monotonic() + seconds
        self._given_up = given_up

    def left(self) -> float:
        """Return the seconds left; zero or negative after the deadline.

        Raises
        ------
        Closed
            The work was given up.
        """
        if any(event.is_set() for event in self._given_up):
            raise Closed("this operation was cancelled before it completed: repeat it")
        return self._deadline - time.monotonic()

    def slice(self) -> float:
        """Return the seconds to wait before the next check; 0 after the deadline."""
        return min(SLICE, max(0.0, self.left()))


class _NoThread(Exception):
    """The system cannot start another thread, or the interpreter is shutting down."""


class _Job(Generic[Result]):
    """A call in a thread, and its outcome."""

    def __init__(self, work: Callable[[], Result], ended: Callable[[], None]) -> None:
        self._work = work
        self._ended = ended
        self._owner: dict[str, str] = {}
        self._result: Result
        self._error: BaseException | None = None
        self.done = threading.Event()

    def start(self) -> None:
        """Start the thread.

        `threading.Thread` registers the thread in several steps; an interruption between them leaves it half
        registered.
        """
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise _NoThread(str(error)) from None

    def revoke(self) -> bool:
        """Prevent the call if it has not begun; returns whether it was prevented. An interrupted caller cannot know."""
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
        """Return the result of the call, or raise its error."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                # Break the cycle: the error's traceback holds frames that refer to this object.
                self._error = None
        return self._result


def run(work: Callable[[], Result], give_up: Callable[[], None] = lambda: None) -> Result:
    """Call in a thread, and return its result or raise its error. If no thread can be started, call here.

    Parameters
    ----------
    work : callable
        The work. Ends soon after ``give_up``.
    give_up : callable
        Called when the caller is interrupted; does not block. By default the work runs to completion.

    Raises
    ------
    KeyboardInterrupt
        The caller was interrupted; the work has ended. Other exceptions of signal handlers are raised likewise.
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
            # Not every interruption wakes a waiting thread; polling notices all of them.
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
    """Call in a thread, and return its result or raise its error; the event loop keeps running.

    Parameters
    ----------
    work : callable
        The work. Ends soon after ``give_up``.
    give_up : callable
        Called when the task is cancelled; does not block. By default the work runs to completion.

    Raises
    ------
    asyncio.CancelledError
        The task was cancelled, once or more often; the work has ended.
    Overloaded
        The system cannot start another thread; nothing was done.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake() -> None:
        # A closed loop has no waiters.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set)

    job = _Job(work, wake)
    try:
        job.start()
    except _NoThread as error:
        raise Overloaded(
            f"no thread can be started ({error}): stop other programs, or raise the limit (ulimit -u)"
        ) from error
    cancellation: asyncio.CancelledError | None = None
    while not job.done.is_set():
        try:
            await ended.wait()
        except asyncio.CancelledError as error:
            cancellation = error
            give_up()
        except BaseException:
            # The loop is closed or closing: nothing can be awaited.
            give_up()
            job.done.wait()
            raise
    if cancellation is not None:
        raise cancellation
    return job.result()
