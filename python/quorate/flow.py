"""Operations of several calls, written once: run blocking, on asyncio, or on a stepper.

Such an operation is a generator: it yields a call, receives the response, and returns its result. `run` drives it with
blocking calls, `run_async` with awaited ones. Operations of one call are coroutines of ``quorate.aio``, from which
``generate_sync.py`` generates the blocking ones.

Nothing here reads a clock or waits by itself. A client that is a `Stepper` has its own clock, for example a virtual
one: the results of its calls are awaited, and the driver of the coroutine decides when they are ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from quorate.errors import QuorateError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from quorate._quorate import Client

__all__ = ["Call", "Flow", "Now", "Pause", "Stepper", "now", "run", "run_async"]

Result = TypeVar("Result")


class Call(NamedTuple):
    """One call of the extension's client."""

    method: str
    """The name of a method that returns a `quorate._quorate.PendingCall`."""
    arguments: tuple[Any, ...]


class Pause(NamedTuple):
    """A pause before the next poll."""

    seconds: float


class Now(NamedTuple):
    """A request for the time, in seconds from any origin."""


Step: TypeAlias = Call | Pause | Now
Flow: TypeAlias = Generator[Step, Any, Result]
"""An operation: yields steps, receives their responses, returns a result."""


@runtime_checkable
class Stepper(Protocol):
    """A client with its own time."""

    def now(self) -> float:
        """Return the time in seconds."""
        ...

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait."""
        ...


def now() -> Flow[float]:
    """Get the time, in seconds from any origin."""
    moment: float = yield Now()
    return moment


def run(client: Client, flow: Flow[Result]) -> Result:
    """Drive an operation with blocking calls; an interrupted one may still undo its effects."""
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


async def run_async(client: Client, flow: Flow[Result]) -> Result:
    """Drive an operation with awaited calls; a cancelled one may still undo its effects."""
    try:
        step = next(flow)
        while True:
            try:
                answer = await _call_async(client, step)
            except GeneratorExit as error:
                # The event loop is closed: nothing can be awaited, but the client can still be called.
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
"""Cleanups that outlive their task; the event loop holds only weak references."""


async def _undone(client: Client, flow: Flow[Any], error: BaseException) -> None:
    """Let an operation undo its effects, to the end even if its task is cancelled again."""
    if isinstance(client, Stepper):
        await run_async(client, _thrown(flow, error))
        return
    rest = asyncio.ensure_future(run_async(client, _thrown(flow, error)))
    _undoing.add(rest)
    rest.add_done_callback(_undoing.discard)
    await asyncio.shield(rest)


def _thrown(flow: Flow[Any], error: BaseException) -> Flow[None]:
    """Run the cleanup of an interrupted operation; ignore the interruption that it re-raises."""
    # A closed generator cannot yield; one into which an exception is thrown can.
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


def _call(client: Client, step: Step) -> Any:
    if isinstance(step, Call):
        return getattr(client, step.method)(*step.arguments).wait()
    if isinstance(step, Now):
        return time.monotonic()
    return time.sleep(step.seconds)


async def _call_async(client: Client, step: Step) -> Any:
    if isinstance(step, Call):
        return await getattr(client, step.method)(*step.arguments)
    stepper = client if isinstance(client, Stepper) else None
    if isinstance(step, Now):
        return time.monotonic() if stepper is None else stepper.now()
    return await (asyncio.sleep(step.seconds) if stepper is None else stepper.sleep(step.seconds))
