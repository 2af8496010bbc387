"""What can go wrong, as one tree of exceptions.

Every error is *definite* (nothing was written and nothing will be) or *unknown* (it may have been, or may yet be):
``error.definite`` tells which, so that a program knows whether it may simply try again. Below `QuorateError` there is
one class per error of the protocol, with the same name, and a few that only Python can raise: a cluster that does not
start, a batch of which a part failed, a value asked for where there are several.
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
    """The root of all errors that Quorate raises.

    Attributes
    ----------
    definite : bool
        Whether it is certain that the operation has had and will have no effect.
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
    """Fewer replicas are alive than the level requires, or a Raft group has no leader; nothing was written.

    Attributes
    ----------
    required : int
        How many replicas the level asks for, or how many of the group's voters are a majority.
    alive : int
        How many of the key's replicas, or of those voters, can be reached.
    """

    required: int
    alive: int
    _fields = ("required", "alive")


class Overloaded(QuorateError):
    """The node has more work than it admits; nothing was written. Wait a little and try again."""


class OutcomeUnknown(QuorateError, TimeoutError):
    """Fewer acknowledgements than required came in time, or can come at all: the write may or may not take effect.

    Attributes
    ----------
    acked : int
        How many replicas have it durably, for certain.
    required : int
        How many the level asks for.
    """

    definite = False
    acked: int
    required: int
    _fields = ("acked", "required")


class ReadTimeout(QuorateError, TimeoutError):
    """The time was up before enough replicas answered a read.

    Attributes
    ----------
    answered : int
        How many replicas answered.
    required : int
        How many the level asks for.
    """

    answered: int
    required: int
    _fields = ("answered", "required")


class InvalidArgument(QuorateError, ValueError):
    """An argument makes no sense; the message names it and the remedy."""


class LimitExceeded(QuorateError, ValueError):
    """A key, a value or a number of siblings is beyond the limit.

    Attributes
    ----------
    what : str
        Of what.
    size : int
        How large it is.
    limit : int
        How large it may be.
    """

    what: str
    size: int
    limit: int
    _fields = ("what", "size", "limit")


class NotFound(QuorateError, LookupError):
    """There is no such keyspace or node."""


class KeyspaceExists(QuorateError):
    """The keyspace exists with other settings."""


class StopTimeout(QuorateError, TimeoutError):
    """A node still runs when the time that it was given to stop is up; it goes on stopping."""


class StorageFull(QuorateError):
    """A node's disk is full; that replica wrote nothing."""


class CorruptRecord(QuorateError):
    """A stored record fails its checksum."""


class ConnectionLost(QuorateError, ConnectionError):
    """No connection to any node, or it broke before the request was sent; nothing was written."""


class ConnectionRefused(ConnectionLost, ConnectionRefusedError):
    """Nobody listens at a node's address: its program does not run; nothing was written."""


class Refused(QuorateError):
    """The other side speaks another protocol version or belongs to another cluster."""


class Closed(QuorateError):
    """The client, the cluster or the node is shut down or shutting down; nothing was written."""


class ConditionFailed(QuorateError):
    """A conditional write found another version than it asked for; nothing of its batch was written.

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
    """The node's configuration does not allow it; nothing was done."""


class SessionExpired(QuorateError):
    """A write was not answered, and its group does not keep the answer any longer: what became of it is not known.

    It was executed once or not at all, and will not be executed again. Read before writing again.
    """

    definite = False


class Conflict(QuorateError, ValueError):
    """One value was asked for, but concurrent writes left several.

    Choose or merge one and write it with ``context=entry.context``; ``entry.latest`` is the newest by its timestamp.

    Attributes
    ----------
    siblings : tuple of bytes
        All the values.
    context : Context
        What to give to the put that replaces them.
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
    """A node does not start; the message says which and why.

    Attributes
    ----------
    node : str
        The node, for example ``n1``.
    log : str
        The end of what the node wrote to its log.
    """

    node: str
    log: str
    _fields = ("node", "log")


class DataDirectoryError(ClusterStartError):
    """A data directory is in use, damaged, or belongs to another node or cluster."""


class AddressInUse(ClusterStartError):
    """An address that a node is to listen on is taken."""
