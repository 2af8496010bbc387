"""Consistency levels: how many replicas must answer before an operation counts.

With N replicas, a read that waits for R of them and a write that waited for W of them have at least one replica in
common exactly when ``R + W > N``. QUORUM, a majority, is the smallest level that overlaps with itself.

That is how keyspaces with ``mode="quorum"`` work. In those with ``mode="consensus"`` every write is agreed on by a
majority, and a reader chooses between LINEARIZABLE, which sees every acknowledged write, and STALE, which asks one
member for what it has.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from quorate.errors import InvalidArgument

__all__ = [
    "ALL",
    "LINEARIZABLE",
    "ONE",
    "QUORUM",
    "STALE",
    "THREE",
    "TWO",
    "Consistency",
    "Level",
    "ReadConsistency",
    "ReadLevel",
]


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


class ReadLevel(str, Enum):
    """How much a read of a consensus keyspace must see.

    Examples
    --------
    >>> from quorate import STALE
    >>> STALE
    STALE
    """

    LINEARIZABLE = "LINEARIZABLE"
    STALE = "STALE"

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return self.value


LINEARIZABLE = ReadLevel.LINEARIZABLE
"""Everything that was acknowledged before the read began; needs a majority of the shard's members."""
STALE = ReadLevel.STALE
"""Whatever one member has applied, at once and without asking the others; the entry tells how old that may be."""

ReadConsistency: TypeAlias = ReadLevel | str
"""What is taken as the consistency of a read of a consensus keyspace: a `ReadLevel` or its name."""


def is_stale(consistency: ReadConsistency | None) -> bool:
    """Read what a read of a consensus keyspace must see; ``None`` is LINEARIZABLE.

    Raises
    ------
    InvalidArgument
        For anything else.
    """
    if consistency is None:
        return False
    name = consistency.upper() if isinstance(consistency, str) else None
    if name in ReadLevel.__members__:
        return name == STALE.value
    hint = ": levels that count replicas are for keyspaces of mode='quorum'" if _counts(consistency) else ""
    raise InvalidArgument(
        f"consistency {consistency!r} in a consensus keyspace: use LINEARIZABLE or STALE{hint}"
    )


def _counts(consistency: object) -> bool:
    if isinstance(consistency, str):
        return consistency.upper() in Level.__members__ or consistency.isdecimal()
    return isinstance(consistency, int)


def checked(consistency: Consistency | None) -> str | int | None:
    """Check a level, and give it as the extension takes it; ``None`` is the keyspace's own.

    Raises
    ------
    InvalidArgument
        For anything that is neither a name nor a positive number.
    """
    if consistency is None or isinstance(consistency, Level):
        return consistency
    if isinstance(consistency, str):
        name = consistency.upper()
        if name in Level.__members__:
            return name
        if name.isdecimal() and 0 < int(name) < 256:
            return int(name)
    elif isinstance(consistency, int) and not isinstance(consistency, bool) and 0 < consistency < 256:
        return consistency
    named = isinstance(consistency, str) and consistency.upper() in ReadLevel.__members__
    hint = ": LINEARIZABLE and STALE are for keyspaces of mode='consensus'" if named else ""
    raise InvalidArgument(
        f"consistency {consistency!r}: use ONE, TWO, THREE, QUORUM, ALL or a number of replicas from 1{hint}"
    )


def from_wire(level: str | int) -> Level | int:
    """Read a level as the extension gives it."""
    return Level(level) if level in Level.__members__ else int(level)
