"""Rejection of arguments that belong to the other mode of keyspaces."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from quorate.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["rejects_arguments_of_consensus", "rejects_arguments_of_quorum"]

MethodT = TypeVar("MethodT", bound="Callable[..., Any]")

_OF_QUORUM = {
    "consistency": "every write of a consensus keyspace is agreed on by a majority: leave it out",
    "context": 'consensus keyspaces have no siblings: use if_version=entry.version, or a keyspace of mode="quorum"',
}
_OF_CONSENSUS = {
    "if_version": 'quorum keyspaces cannot compare: use context=entry.context, or a keyspace of mode="consensus"',
    "if_absent": 'quorum keyspaces cannot compare: use a keyspace of mode="consensus"',
}


def _rejecting(remedies: Mapping[str, str]) -> Callable[[MethodT], MethodT]:
    def decorate(method: MethodT) -> MethodT:
        @functools.wraps(method)
        def checked(*given: Any, **named: Any) -> Any:
            try:
                return method(*given, **named)
            except TypeError:
                # The method does not accept arguments of the other mode.
                for name in remedies.keys() & named.keys():
                    raise InvalidArgument(f"{name}={named[name]!r:.40}: {remedies[name]}") from None
                raise

        return checked  # type: ignore[return-value]

    return decorate


rejects_arguments_of_quorum = _rejecting(_OF_QUORUM)
"""Makes an operation of consensus keyspaces reject arguments of quorum keyspaces, with a remedy."""
rejects_arguments_of_consensus = _rejecting(_OF_CONSENSUS)
"""Makes an operation of quorum keyspaces reject arguments of consensus keyspaces, with a remedy."""
