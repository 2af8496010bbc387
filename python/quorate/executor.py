"""Awaitable calls: each event loop has an executor, which drives its calls on the loop's own thread.

The loop polls the executor's descriptor and runs it when it is ready; the requests that tasks submit in one iteration
are sent together at its end. No other thread is involved: a native thread that touches Python while the interpreter
shuts down aborts the process.

The loop's selector owns the executor. When the loop is closed, the executor and its pending calls are dropped.
"""

from __future__ import annotations

import weakref
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any

from quorate import _quorate

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Generator

    from quorate._quorate import PendingCall

__all__ = ["awaited"]


class LoopExecutor:
    """The calls of one event loop, and the futures that they complete."""

    __slots__ = ("__weakref__", "calls", "futures", "scheduled")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.calls = _quorate.Executor()
        self.futures: dict[int, Future[Any]] = {}
        self.scheduled = False
        loop.add_reader(self.calls.fileno(), self.turn)

    def turn(self) -> None:
        """Send and receive, and complete the futures of the calls that have finished."""
        self.scheduled = False
        for number, answer, error in self.calls.turn():
            future = self.futures.pop(number, None)
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)


_executors: dict[int, tuple[weakref.ref[AbstractEventLoop], weakref.ref[LoopExecutor]]] = {}
"""By the loop's id, which may be reused after the loop is gone."""


def executor_of(loop: AbstractEventLoop) -> LoopExecutor:
    """Get the executor of an event loop, or create it."""
    known = _executors.get(id(loop))
    if known is not None and known[0]() is loop:
        executor = known[1]()
        if executor is not None:
            return executor
    executor = LoopExecutor(loop)
    number = id(loop)

    def forget(gone: weakref.ref[AbstractEventLoop]) -> None:
        if number in _executors and _executors[number][0] is gone:
            del _executors[number]

    _executors[number] = (weakref.ref(loop, forget), weakref.ref(executor))
    return executor


def awaited(call: PendingCall[Any]) -> Generator[Any, None, Any]:
    """Run a call in the running event loop: the iterator behind ``await``.

    When the waiting task is cancelled, the call is dropped; a node may still execute its request.
    """
    loop = get_running_loop()
    executor = executor_of(loop)
    future = loop.create_future()
    number = executor.calls.start(call)
    executor.futures[number] = future
    if not executor.scheduled:
        executor.scheduled = True
        loop.call_soon(executor.turn)
    try:
        return (yield from future)
    except BaseException:
        if executor.futures.pop(number, None) is not None:
            executor.calls.cancel(number)
        raise
