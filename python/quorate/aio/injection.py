"""Breaking the links between nodes, and healing them, awaited; see `quorate.injection`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from quorate import faults, flow
from quorate.errors import Closed
from quorate.injection import FaultView

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from typing_extensions import Self

    from quorate import _quorate
    from quorate.board import Board
    from quorate.faults import Faults, LinkFault, Maker

__all__ = ["Breaking", "Fault", "FaultControl"]


class Fault(FaultView):
    """A fault that was made; see `quorate.Fault`."""

    def __init__(self, control: FaultControl, made: LinkFault) -> None:
        super().__init__(made)
        self._control = control

    async def heal(self) -> None:
        """End it; see `quorate.Fault.heal`."""
        if not self._healed:
            await self._control._end([self.id])
            self._healed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A client that was closed meanwhile cannot heal anything.
        with contextlib.suppress(Closed):
            await self.heal()


class Breaking:
    """A fault to be: await it, or enter it with ``async with``."""

    def __init__(self, control: FaultControl, make: Maker) -> None:
        self._control = control
        self._make = make
        self._fault: Fault | None = None

    async def _begin(self) -> Fault:
        control = self._control
        made = await flow.run_async(control._client, control._board.begin(self._make, control._timeout))
        return Fault(control, made)

    def __await__(self) -> Generator[object, None, Fault]:
        return self._begin().__await__()

    async def __aenter__(self) -> Fault:
        self._fault = await self._begin()
        return self._fault

    async def __aexit__(self, *problem: object) -> None:
        if self._fault is not None:
            await self._fault.__aexit__(*problem)


class FaultControl:
    """Makes and heals faults of the links between nodes; see `quorate.injection.FaultControl`.

    What makes a fault is awaited, or entered with ``async with``, which heals it at the end.
    """

    _client: _quorate.Client
    _timeout: float
    _board: Board

    def partition(self, *groups: str | Iterable[str], one_way: bool = False) -> Breaking:
        """Cut groups of nodes off from each other; see `quorate.Connection.partition`."""
        return Breaking(self, faults.partition(groups, one_way))

    def isolate(self, node: str) -> Breaking:
        """Cut one node off from all others; see `quorate.Connection.isolate`."""
        return Breaking(self, faults.isolate(node))

    def slow(
        self,
        first: str | Iterable[str],
        second: str | Iterable[str],
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        one_way: bool = False,
    ) -> Breaking:
        """Let everything between nodes arrive late; see `quorate.Connection.slow`."""
        return Breaking(self, faults.slow(first, second, delay, jitter, one_way))

    def lossy(
        self,
        first: str | Iterable[str],
        second: str | Iterable[str],
        *,
        percent: float,
        one_way: bool = False,
    ) -> Breaking:
        """Lose some of the messages between nodes; see `quorate.Connection.lossy`."""
        return Breaking(self, faults.lossy(first, second, percent, one_way))

    async def heal(self, *ids: str) -> tuple[str, ...]:
        """End all faults, or only some; see `quorate.Connection.heal`."""
        if ids:
            await flow.run_async(self._client, self._board.named(ids, self._timeout))
        return await self._end(ids or None)

    async def faults(self) -> Faults:
        """Ask every node which faults are in force; see `quorate.Connection.faults`."""
        return await flow.run_async(self._client, self._board.report(self._timeout))

    async def _end(self, ids: list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
        healed = await flow.run_async(self._client, self._board.end(ids, self._timeout))
        return healed.checked()
