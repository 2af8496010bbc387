"""What there is to see of a fault that was made here, without asking anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorate.faults import LinkFault

__all__ = ["FaultView"]


class FaultView:
    """What there is to see of a fault that was made here."""

    def __init__(self, made: LinkFault) -> None:
        self._made = made
        self._healed = False

    @property
    def id(self) -> str:
        """Names the fault, on every node and in ``faults()``."""
        return self._made.id

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Between whom it is, by name."""
        return self._made.groups

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that took it; one that was down then learns of it by ``restart()``."""
        return self._made.nodes

    @property
    def healed(self) -> bool:
        """Whether it was healed here."""
        return self._healed

    def to_dict(self) -> dict[str, object]:
        """Describe the fault as plain data, as ``--json`` prints it."""
        return self._made.to_dict()

    def __repr__(self) -> str:
        healed = ", healed" if self._healed else ""
        return f"<Fault {self.id}: {self._made.between} {self._made.effect}{healed}>"
