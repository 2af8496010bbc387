"""One body for every operation, run by the synchronous and by the asynchronous client.

An operation that takes several calls is written as a generator: it yields the call it needs, gets the answer sent
back, and returns its result. `run` drives it with blocking calls, `run_async` with awaited ones. Nothing else differs
between ``quorate`` and ``quorate.aio``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

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
    """Drive an operation to its end, blocking in each call."""
    try:
        step = next(flow)
        while True:
            try:
                answer = _call(client, step)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result


async def run_async(client: Client | Consensus, flow: Flow[Result]) -> Result:
    """Drive an operation to its end, awaiting each call."""
    try:
        step = next(flow)
        while True:
            try:
                answer = await _call_async(client, step)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result


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
