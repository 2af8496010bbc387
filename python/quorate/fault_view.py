"""The local view of an injected fault, without requests to nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorate.faults import LinkFault

__all__ = ["FaultView"]


class FaultView:
    """The local view of an injected fault."""

    def __init__(self, made: LinkFault) -> None:
        self._made = made
        self._healed = False

    @property
    def id(self) -> str:
        """The fault's id, the same on every node and in ``faults()``."""
        return self._made.id

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The groups of nodes, by name."""
        return self._made.groups

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that applied it; ``restart()`` applies it to nodes that were down."""
        return self._made.nodes

    @property
    def healed(self) -> bool:
        """Whether it was healed through this object."""
        return self._healed

    def to_dict(self) -> dict[str, object]:
        """Describe the fault as plain data, as ``--json`` prints it."""
        return self._made.to_dict()

    def __repr__(self) -> str:
        healed = ", healed" if self._healed else ""
        return f"<Fault {self.id}: {self._made.between} {self._made.effect}{healed}>"
