"""Consistency levels: how many replicas must answer before an operation counts.

With N replicas, a read that waits for R of them and a write that waited for W of them have at least one replica in
common exactly when ``R + W > N``. QUORUM, a majority, is the smallest level that overlaps with itself.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from quorate.errors import InvalidArgument

__all__ = ["ALL", "ONE", "QUORUM", "THREE", "TWO", "Consistency", "Level"]


class Level(str, Enum):
    """A consistency level by name. Wherever one is taken, a number of replicas is too.

    Examples
    --------
    >>> from quorate import QUORUM
    >>> QUORUM.required(replicas=5)
    3
    """

    ONE = "ONE"
    TWO = "TWO"
    THREE = "THREE"
    QUORUM = "QUORUM"
    ALL = "ALL"

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return self.value

    def required(self, replicas: int) -> int:
        """Count the replicas that must answer.

        Parameters
        ----------
        replicas : int
            N, the number of replicas of the keyspace.

        Returns
        -------
        int
            How many of them this level waits for.
        """
        fixed = {Level.ONE: 1, Level.TWO: 2, Level.THREE: 3, Level.ALL: replicas}
        return fixed.get(self, replicas // 2 + 1)


ONE = Level.ONE
"""One replica: fastest, available while any replica is, may read stale values."""
TWO = Level.TWO
"""Two replicas."""
THREE = Level.THREE
"""Three replicas."""
QUORUM = Level.QUORUM
"""A majority of the replicas."""
ALL = Level.ALL
"""All replicas: one that is down makes the operation unavailable."""

Consistency: TypeAlias = Level | str | int
"""What is taken as a consistency level: a `Level`, its name, or a number of replicas."""


def to_wire(consistency: Consistency | None) -> str | None:
    """Name a level as the extension takes it; ``None`` is the keyspace's own.

    Raises
    ------
    InvalidArgument
        For anything that is neither a name nor a positive number.
    """
    if consistency is None:
        return None
    if isinstance(consistency, Level):
        return consistency.value
    if isinstance(consistency, str):
        name = consistency.upper()
        if name in Level.__members__ or name.isdecimal():
            return name
    elif isinstance(consistency, int) and not isinstance(consistency, bool) and 0 < consistency < 256:
        return str(consistency)
    raise InvalidArgument(
        f"consistency {consistency!r}: use ONE, TWO, THREE, QUORUM, ALL or a number of replicas from 1"
    )


def from_wire(name: str) -> Level | int:
    """Read a level as the protocol names it."""
    return Level(name) if name in Level.__members__ else int(name)
