"""The part of a connection that its keyspaces depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from quorate._quorate import Client
    from quorate.trace import Trace

__all__ = ["AsyncOwner", "Owner"]


class _AnyOwner(Protocol):
    @property
    def _client(self) -> Client: ...

    @property
    def timeout(self) -> float: ...


class Owner(_AnyOwner, Protocol):
    """Of a `quorate.Keyspace`: a `quorate.Connection`, or a cluster."""

    def trace(self, trace_id: str) -> Trace:
        """Collect the spans of a trace."""
        ...

    def nodes_for_key(self, keyspace: str, key: str | bytes) -> tuple[str, ...]:
        """List the nodes that store a key."""
        ...


class AsyncOwner(_AnyOwner, Protocol):
    """Of a `quorate.aio.Keyspace`: a `quorate.aio.Connection`, or a cluster."""

    def trace(self, trace_id: str) -> Coroutine[Any, Any, Trace]:
        """Collect the spans of a trace."""
        ...

    def nodes_for_key(self, keyspace: str, key: str | bytes) -> Coroutine[Any, Any, tuple[str, ...]]:
        """List the nodes that store a key."""
        ...
