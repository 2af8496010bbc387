"""The exceptions of Quorate.

Every error is *definite* (nothing was written and nothing will be) or *unknown* (it may have been, or may yet be), as
``error.definite`` says: a definite error may simply be retried. Below `QuorateError` there is one class per error of
the protocol, with the same name, and a few that only Python raises: a cluster that fails to start, a batch that failed
in part, a single value requested from several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quorate._quorate import Context

__all__ = [
    "AddressInUse",
    "Closed",
    "ClusterStartError",
    "ConditionFailed",
    "Conflict",
    "ConnectionLost",
    "ConnectionRefused",
    "CorruptRecord",
    "DataDirectoryError",
    "InvalidArgument",
    "KeyspaceExists",
    "LimitExceeded",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "PartialFailure",
    "PermissionDenied",
    "QuorateError",
    "ReadTimeout",
    "Refused",
    "SessionExpired",
    "StopTimeout",
    "StorageFull",
    "Unavailable",
]


class QuorateError(Exception):
    """Base class of all errors that Quorate raises.

    Attributes
    ----------
    definite : bool
        Whether the operation certainly has had and will have no effect.
    """

    definite: bool = True

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        unknown = fields.keys() - set(self._fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        for name in self._fields:
            setattr(self, name, fields.get(name))

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in self._fields}
        return _rebuild, (type(self), str(self), fields)

    def to_dict(self) -> dict[str, Any]:
        """Describe the error as plain data, as ``--json`` prints it.

        Returns
        -------
        dict
            ``error`` (the class's name), ``message``, ``definite`` and the fields of the class.
        """
        plain: dict[str, Any] = {
            "error": type(self).__name__,
            "message": str(self),
            "definite": self.definite,
        }
        for name in self._fields:
            value = getattr(self, name)
            if value is None or isinstance(value, (bool, int, float, str)):
                plain[name] = value
        return plain


def _rebuild(kind: type[QuorateError], message: str, fields: dict[str, Any]) -> QuorateError:
    return kind(message, **fields)


class Unavailable(QuorateError):
    """Fewer replicas are reachable than the level requires, or a Raft group has no leader; nothing was written.

    Attributes
    ----------
    required : int
        The number of replicas that the level requires, or of voters that are a majority of the group.
    alive : int
        The number of reachable replicas of the key, or of reachable voters.
    """

    required: int
    alive: int
    _fields = ("required", "alive")


class Overloaded(QuorateError):
    """The node rejected the request because it has too much work; nothing was written. Retry after a pause."""


class OutcomeUnknown(QuorateError, TimeoutError):
    """Too few acknowledgements arrived before the deadline, or can arrive: the write may or may not take effect.

    Attributes
    ----------
    acked : int
        The number of replicas that certainly have it durably.
    required : int
        The number that the level requires.
    """

    definite = False
    acked: int
    required: int
    _fields = ("acked", "required")


class ReadTimeout(QuorateError, TimeoutError):
    """A read timed out before enough replicas responded.

    Attributes
    ----------
    answered : int
        The number of replicas that responded.
    required : int
        The number that the level requires.
    """

    answered: int
    required: int
    _fields = ("answered", "required")


class InvalidArgument(QuorateError, ValueError):
    """An argument is invalid; the message names it and the remedy."""


class LimitExceeded(QuorateError, ValueError):
    """A key, a value or a number of siblings exceeds its limit.

    Attributes
    ----------
    what : str
        The limited quantity.
    size : int
        The actual size.
    limit : int
        The maximum size.
    """

    what: str
    size: int
    limit: int
    _fields = ("what", "size", "limit")


class NotFound(QuorateError, LookupError):
    """The keyspace or node does not exist."""


class KeyspaceExists(QuorateError):
    """The keyspace exists with other settings."""


class StopTimeout(QuorateError, TimeoutError):
    """A node still runs after the timeout for its stop; it continues to stop."""


class StorageFull(QuorateError):
    """A node's disk is full; its replica wrote nothing."""


class CorruptRecord(QuorateError):
    """A stored record fails its checksum."""


class ConnectionLost(QuorateError, ConnectionError):
    """No node is reachable, or the connection failed before the request was sent; nothing was written."""


class ConnectionRefused(ConnectionLost, ConnectionRefusedError):
    """A node's address refuses connections, so the node does not run; nothing was written."""


class Refused(QuorateError):
    """The peer speaks another protocol version or belongs to another cluster."""


class Closed(QuorateError):
    """The client, the cluster or the node is shut down or shutting down; nothing was written."""


class ConditionFailed(QuorateError):
    """A conditional write found another version than required; nothing of its batch was written.

    Read the key and decide again.

    Attributes
    ----------
    key : str
        The key.
    current : int
        Its version now; 0 if it is absent.
    """

    key: str
    current: int
    _fields = ("key", "current")


class PermissionDenied(QuorateError):
    """The node's configuration does not permit the request; nothing was done."""


class SessionExpired(QuorateError):
    """The response to a write was lost, and its group no longer keeps it: the outcome is unknown.

    The write was executed at most once, and will not be executed again. Read before writing again.
    """

    definite = False


class Conflict(QuorateError, ValueError):
    """A single value was requested, but concurrent writes left several.

    Choose or merge one and write it with ``context=entry.context``; ``entry.latest`` is the newest by its timestamp.

    Attributes
    ----------
    siblings : tuple of bytes
        All the values.
    context : Context
        The context for the put that replaces them.
    """

    siblings: tuple[bytes, ...]
    context: Context
    _fields = ("siblings", "context")


class PartialFailure(QuorateError):
    """Some operations of a batch failed; the others succeeded and are not undone.

    Attributes
    ----------
    succeeded : dict
        The results by key.
    failed : dict
        The errors by key.
    """

    succeeded: Mapping[Any, Any]
    failed: Mapping[Any, QuorateError]
    _fields = ("succeeded", "failed")

    @property
    def definite(self) -> bool:  # type: ignore[override]
        """Whether every failed operation certainly had no effect."""
        return all(error.definite for error in self.failed.values())


class ClusterStartError(QuorateError):
    """A node failed to start; the message names it and the reason.

    Attributes
    ----------
    node : str
        The node, for example ``n1``.
    log : str
        The end of the node's log.
    """

    node: str
    log: str
    _fields = ("node", "log")


class DataDirectoryError(ClusterStartError):
    """A data directory is in use, damaged, or belongs to another node or cluster."""


class AddressInUse(ClusterStartError):
    """An address that a node should listen on is in use."""
