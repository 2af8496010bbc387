"""A resource that is opened by ``await``, or by ``async with``, which also closes it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from types import TracebackType

__all__ = ["Opening"]

T = TypeVar("T", bound=AbstractAsyncContextManager[Any, Any])


class Opening(Generic[T]):
    """A connection or a fault that is not open yet: ``await`` opens it, ``async with`` also closes it.

    Parameters
    ----------
    begin : callable
        Returns the coroutine that opens it.
    """

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._begin = begin
        self._opened: T | None = None

    def __await__(self) -> Generator[Any, None, T]:
        return self._begin().__await__()

    async def __aenter__(self) -> T:
        self._opened = opened = await self._begin()
        return opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, traceback)
