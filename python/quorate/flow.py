"""One body for every operation, run by the synchronous and by the asynchronous client.

An operation that takes several calls is written as a generator: it yields the call it needs, gets the answer sent
back, and returns its result. `run` drives it with blocking calls, `run_async` with awaited ones. Nothing else differs
between ``quorate`` and ``quorate.aio``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from quorate.errors import QuorateError

if TYPE_CHECKING:
    from quorate._quorate import Client, Consensus

__all__ = ["Call", "Flow", "Pause", "run", "run_async"]

Result = TypeVar("Result")


class Call(NamedTuple):
    """One call of the extension's client, or of a consensus keyspace of it."""

    method: str
    """The name of a method that has a twin with ``_async`` behind its name."""
    arguments: tuple[Any, ...]


class Pause(NamedTuple):
    """A moment to wait before asking again."""

    seconds: float


Flow: TypeAlias = Generator[Call | Pause, Any, Result]
"""An operation: yields calls, is sent their answers, returns a result."""


def run(client: Client | Consensus, flow: Flow[Result]) -> Result:
    """Drive an operation to its end, blocking in each call; one that is interrupted may yet undo what it has done."""
    try:
        step = next(flow)
        while True:
            try:
                answer = _call(client, step)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result


async def run_async(client: Client | Consensus, flow: Flow[Result]) -> Result:
    """Drive an operation to its end, awaiting each call; one that is cancelled may yet undo what it has done."""
    try:
        step = next(flow)
        while True:
            try:
                answer = await _call_async(client, step)
            except GeneratorExit as error:
                # The event loop is gone: nothing can be awaited, but the client can still be called.
                with contextlib.suppress(QuorateError):
                    run(client, _thrown(flow, error))
                raise
            except asyncio.CancelledError as error:
                await _undone(client, flow, error)
                raise
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result


_undoing: set[asyncio.Task[None]] = set()
"""What goes on although its task is gone; the event loop alone would not keep it."""


async def _undone(client: Client | Consensus, flow: Flow[Any], error: BaseException) -> None:
    """Let an operation undo what it has done, to the end even if its task is cancelled again."""
    rest = asyncio.ensure_future(run_async(client, _thrown(flow, error)))
    _undoing.add(rest)
    rest.add_done_callback(_undoing.discard)
    await asyncio.shield(rest)


def _thrown(flow: Flow[Any], error: BaseException) -> Flow[None]:
    """Do what an operation still does when it is interrupted; that it ends by the interruption is no news."""
    # An operation that is closed may ask nothing; one that is cancelled may.
    cause = asyncio.CancelledError() if isinstance(error, GeneratorExit) else error
    try:
        step = flow.throw(cause)
        while True:
            try:
                answer = yield step
            except Exception as problem:
                step = flow.throw(problem)
            else:
                step = flow.send(answer)
    except StopIteration:
        return
    except BaseException as end:
        if end is not cause:
            raise


def _call(client: Client | Consensus, step: Call | Pause) -> Any:
    if isinstance(step, Call):
        return getattr(client, step.method)(*step.arguments)
    time.sleep(step.seconds)
    return None


async def _call_async(client: Client | Consensus, step: Call | Pause) -> Any:
    if isinstance(step, Call):
        return await getattr(client, f"{step.method}_async")(*step.arguments)
    await asyncio.sleep(step.seconds)
    return None
