"""Awaiting the extension's calls: each event loop has an executor, which its own thread drives.

A native thread that touches Python while the interpreter ends aborts the process. So all that a native thread does for
an event loop is to write a byte to a socket. The loop watches that socket, takes all answers that have come, and turns
them into objects, on its own thread.

The loop's selector owns the executor. When the loop is closed, the executor goes, and with it the socket and the calls
that are still pending.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from quorate import _quorate

if TYPE_CHECKING:
    from quorate._quorate import PendingCall

__all__ = ["run"]


class _LoopExecutor:
    """The calls of one event loop, and the futures that they complete."""

    __slots__ = ("__weakref__", "calls", "futures")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.calls = _quorate.Executor()
        self.futures: dict[int, asyncio.Future[Any]] = {}
        loop.add_reader(self.calls.fileno(), self._complete)

    def _complete(self) -> None:
        for number, answer, error in self.calls.drain():
            future = self.futures.pop(number, None)
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)


_executors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[_LoopExecutor]]
_executors = weakref.WeakKeyDictionary()


async def run(call: PendingCall) -> Any:
    """Run a call in the running event loop; cancelling drops the call, not the request that a node may have already."""
    loop = asyncio.get_running_loop()
    known = _executors.get(loop)
    executor = None if known is None else known()
    if executor is None:
        executor = _LoopExecutor(loop)
        _executors[loop] = weakref.ref(executor)
    future = loop.create_future()
    number = executor.calls.start(call)
    executor.futures[number] = future
    try:
        return await future
    except BaseException:
        if executor.futures.pop(number, None) is not None:
            executor.calls.cancel(number)
        raise
