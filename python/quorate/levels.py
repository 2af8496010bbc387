"""Consistency levels: the number of replicas that must respond before an operation succeeds.

With N replicas, a read that waits for R of them and a write that waited for W of them have at least one replica in
common if and only if ``R + W > N``. QUORUM, a majority, is the smallest level that overlaps with itself.

This applies to keyspaces with ``mode="quorum"``. In those with ``mode="consensus"`` every write is committed by a
majority, and a read is either LINEARIZABLE, which sees every acknowledged write, or STALE, which returns the state of
one member.
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
    """A consistency level by name. A number of replicas is accepted wherever a level is.

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
        """Compute the number of replicas that must respond.

        Parameters
        ----------
        replicas : int
            N, the number of replicas of the keyspace.

        Returns
        -------
        int
            The number of replicas that this level requires.
        """
        fixed = {Level.ONE: 1, Level.TWO: 2, Level.THREE: 3, Level.ALL: replicas}
        return fixed.get(self, replicas // 2 + 1)


ONE = Level.ONE
"""One replica: fastest, available while any replica is, reads may be stale."""
TWO = Level.TWO
"""Two replicas."""
THREE = Level.THREE
"""Three replicas."""
QUORUM = Level.QUORUM
"""A majority of the replicas."""
ALL = Level.ALL
"""All replicas: unavailable if any of them is down."""

Consistency: TypeAlias = Level | str | int
"""Accepted forms of a consistency level: a `Level`, its name, or a number of replicas."""


class ReadLevel(str, Enum):
    """The consistency of a read in a consensus keyspace.

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
"""Sees every write that was acknowledged before the read began; needs a majority of the shard's members."""
STALE = ReadLevel.STALE
"""Returns the applied state of one member, without contacting others; the entry has a bound on its age."""

ReadConsistency: TypeAlias = ReadLevel | str
"""Accepted forms of the consistency of a read in a consensus keyspace: a `ReadLevel` or its name."""


def is_stale(consistency: ReadConsistency | None) -> bool:
    """Check the consistency of a read in a consensus keyspace; ``None`` is LINEARIZABLE.

    Raises
    ------
    InvalidArgument
        For any other value.
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
    """Check a level, and convert it to the extension's form; ``None`` is the keyspace's default.

    Raises
    ------
    InvalidArgument
        If it is neither a name nor a positive number.
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
    """Convert a level from the extension's form."""
    return Level(level) if level in Level.__members__ else int(level)
