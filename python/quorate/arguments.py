"""Validation and encoding of arguments: keys, values, contexts, timeouts, addresses, ranges, batches.

Invalid arguments are rejected here with `InvalidArgument`, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from quorate._quorate import Context
from quorate.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFAULT_PORT = 7400
"""Default port for clients."""
DEFAULT_TIMEOUT = 5.0
"""Default timeout of an operation, in seconds."""
PROBE_TIMEOUT = 1.0
"""Seconds to wait for a node's status before it counts as down."""
SHORTEST_TIMEOUT = 0.001
"""Seconds: deadlines are sent in milliseconds, so a shorter one has passed before it is sent."""
LONGEST_TIMEOUT = 86_400.0
"""Seconds: a day. A longer timeout is probably a mistake, for example milliseconds."""
BATCH = 512
"""Operations per call of the extension: few enough for a smooth progress bar, enough to make calls cheap."""
MAX_PAGE = 10_000
"""Maximum page size of a scan."""

MAX_VERSION = 2**63 - 1
"""Largest version of a key, and largest id of an entry."""

RAFT_TIMINGS = ("default", "conservative", "aggressive")
"""Presets for the election timeout of Raft groups."""

LOG_LEVELS = ("off", "error", "warn", "info", "debug", "trace")
"""Log levels of a node, from none to all."""

RawKey: TypeAlias = bytes | tuple[bytes, bytes | None]
"""A key in the form that the extension accepts: a partition, or a partition and a sort part."""

KeyT = TypeVar("KeyT", str, bytes, "str | bytes")


def key_bytes(key: str | bytes) -> bytes:
    """Encode a key: text as UTF-8, with surrogate escapes so that bytes that are not UTF-8 round-trip."""
    if isinstance(key, str):
        try:
            return key.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"key {key!r} cannot be encoded as UTF-8 ({error.reason}): pass bytes"
            ) from error
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    raise InvalidArgument(f"a key is str or bytes, not {_kind(key)}: encode it first")


def value_bytes(value: str | bytes) -> bytes:
    """Encode a value: text as UTF-8, bytes unchanged."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"the value cannot be encoded as UTF-8 ({error.reason} at {error.start}): pass bytes"
            ) from error
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise InvalidArgument(f"a value is str or bytes, not {_kind(value)}: encode it first")


def seen(context: Context | None) -> Context | None:
    """Check the context of a write."""
    if context is None or isinstance(context, Context):
        return context
    raise InvalidArgument(
        f"context is the context of a read or a write, entry.context, not {_kind(context)}: bytes that were made of"
        " one are read by Context.from_bytes"
    )


def switch(value: bool, name: str) -> bool:
    """Check a boolean."""
    if isinstance(value, bool):
        return value
    raise InvalidArgument(f"{name}={value!r}: use True or False")


def text(value: str, name: str) -> str:
    """Check text that is sent as UTF-8."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} is a str, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{name} cannot be encoded as UTF-8 ({error.reason}): use other characters"
        ) from error
    return value


def log_filter(level: str, name: str = "log_level") -> str:
    """Check a node's log level; directives are parsed by the node."""
    parts = text(level, name).split(",")
    if not all("=" in part or "[" in part or part.strip().lower() in LOG_LEVELS for part in parts):
        raise InvalidArgument(
            f"{name}={level!r}: use {', '.join(LOG_LEVELS)}, or directives such as info,quorate_node=debug"
        )
    return level


def timing(preset: str, name: str = "raft_timing") -> str:
    """Check the name of a preset for the timing of Raft groups."""
    if preset not in RAFT_TIMINGS:
        raise InvalidArgument(f"{name}={preset!r}: use {', '.join(RAFT_TIMINGS[:-1])} or {RAFT_TIMINGS[-1]}")
    return preset


def secret_text(secret: str | None) -> str | None:
    """Check a secret; the error never shows it."""
    return None if secret is None else text(secret, "secret")


def seconds(timeout: float | None, default: float) -> float:
    """Check a timeout.

    Raises
    ------
    InvalidArgument
        If it is not a positive number of seconds, shorter than a millisecond, or longer than a day.
    """
    if timeout is None:
        return default
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0 < timeout < float("inf"):
        raise InvalidArgument(f"timeout {timeout!r}: give a positive number of seconds")
    if timeout < SHORTEST_TIMEOUT:
        raise InvalidArgument(
            f"timeout {timeout!r}: nothing can be sent in so short a time, give at least {SHORTEST_TIMEOUT:g} seconds"
        )
    if timeout > LONGEST_TIMEOUT:
        raise InvalidArgument(
            f"timeout {timeout!r:.40}: give at most {LONGEST_TIMEOUT:.0f} seconds, which is a day"
        )
    return float(timeout)


def whole_number(value: int, name: str, least: int, most: int) -> int:
    """Check a number against its bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidArgument(f"{name}={value!r}: give a number from {least} to {most}")
    return value


def node_number(name: str) -> int:
    """Read ``n3`` as 3.

    Raises
    ------
    InvalidArgument
        If it is not the name of a node.
    """
    digits = name[1:] if isinstance(name, str) and name.startswith("n") else ""
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5 and 0 < int(digits) < 65536):
        raise InvalidArgument(f"{name!r} is not the name of a node: write n1 to n65535")
    return int(digits)


def parse_endpoints(endpoints: str | Iterable[str]) -> list[str]:
    """Read ``"h1:7400,h2"`` or a sequence of such addresses.

    Raises
    ------
    InvalidArgument
        If there is no address, or an invalid one.
    """
    if isinstance(endpoints, (bytes, bytearray, memoryview)) or not isinstance(endpoints, Iterable):
        raise InvalidArgument(
            f'endpoints is text like "host1:7400,host2:7400", or a list of such addresses, not {_kind(endpoints)}'
        )
    parsed = []
    listed = endpoints.split(",") if isinstance(endpoints, str) else endpoints
    for address in (text(address, "an address").strip() for address in listed):
        if not address:
            continue
        host, colon, port = address.rpartition(":")
        if not colon:
            host, port = address, str(DEFAULT_PORT)
        if not host or not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
            raise InvalidArgument(f"address {address!r}: write host or host:port with a port from 1 to 65535")
        parsed.append(f"{host}:{port}")
    if not parsed:
        raise InvalidArgument("no address to connect to: give at least one host:port")
    return parsed


def elements(values: Iterable[Any], name: str) -> list[Any]:
    """List the items of a collection; reject a single str or bytes, though it is iterable."""
    if isinstance(values, (str, bytes, bytearray, memoryview)):
        raise InvalidArgument(f"{name} is a list, not {_kind(values)}: write [{values!r:.40}]")
    if not isinstance(values, Iterable):
        raise InvalidArgument(f"{name} is a list, not {_kind(values)}")
    return list(values)


def mapping(values: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Copy a mapping whose keys are text; ``None`` becomes an empty one."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InvalidArgument(f"{name} is a mapping, not {_kind(values)}")
    return {text(key, f"a key of {name}"): value for key, value in values.items()}


# Scans ----------------------------------------------------------------------------------------------------------------


def prefix_end(prefix: bytes) -> bytes | None:
    """Compute the exclusive upper bound of all keys with a prefix; ``None`` if there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def scan_range(
    start: str | bytes | None, end: str | bytes | None, prefix: str | bytes | None
) -> tuple[bytes | None, bytes | None]:
    """Compute the bounds of a scan: the first key, and the exclusive upper bound.

    Raises
    ------
    InvalidArgument
        If a prefix is combined with a range.
    """
    if prefix is not None:
        if start is not None or end is not None:
            raise InvalidArgument("a scan takes either prefix or start and end, not both")
        first = key_bytes(prefix)
        return first, prefix_end(first)
    return (None if start is None else key_bytes(start)), (None if end is None else key_bytes(end))


def scan_limit(limit: int | None) -> int | None:
    """Check the maximum number of entries of a scan."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise InvalidArgument(f"limit={limit!r}: give a whole number, 0 or more")
    return limit


class Pages:
    """The pages of a scan: size, bounds and position of the next one.

    Parameters
    ----------
    start, end, prefix : str or bytes, optional
        As in `scan_range`.
    limit : int, optional
        Maximum number of entries; unlimited by default.
    page_size : int
        Entries per page.
    """

    def __init__(
        self,
        start: str | bytes | None,
        end: str | bytes | None,
        prefix: str | bytes | None,
        limit: int | None,
        page_size: int,
    ) -> None:
        self._cursor: RawKey | None
        self._cursor, self._stop = scan_range(start, end, prefix)
        self._page_size = whole_number(page_size, "page_size", 1, MAX_PAGE)
        self._left = scan_limit(limit)
        self._after = False

    @property
    def wanted(self) -> bool:
        """Whether the limit allows more entries."""
        return self._left != 0

    def request(self) -> tuple[RawKey | None, bytes | None, bool, int]:
        """Return the next page's start, the end, whether the start is exclusive, and the size."""
        size = self._page_size if self._left is None else min(self._page_size, self._left)
        return self._cursor, self._stop, self._after, size

    def advance(self, entries: int, following: RawKey | None) -> bool:
        """Advance past a page; returns whether there is another one."""
        if self._left is not None:
            self._left -= entries
        self._cursor, self._after = following, True
        return following is not None and self.wanted


# Batches --------------------------------------------------------------------------------------------------------------


class BatchKeys(NamedTuple):
    """The keys of a batch, in its order."""

    names: list[Any]
    """As given, or as bytes where that is not hashable."""
    raws: list[bytes]
    """Encoded."""


def put_batches(
    items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
) -> tuple[BatchKeys, Iterator[list[tuple[bytes, bytes]]]]:
    """Encode the pairs of a put_many, and split them into batches."""
    # At once: another thread may change the mapping, and its keys must remain with their values.
    pairs = list(items.items()) if isinstance(items, Mapping) else elements(items, "the argument of put_many")
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InvalidArgument(f"put_many takes a mapping or pairs of key and value, not {pair!r:.40}")
    keys, values = [key for key, _ in pairs], [value for _, value in pairs]
    raws = _encoded(keys, key_bytes)
    try:
        coded = list(zip(raws, _encoded(values, value_bytes), strict=True))
    except InvalidArgument:
        for key, value in pairs:
            _checked_value(key, value)
        raise
    named = BatchKeys(_names(keys, raws), raws)
    return named, (coded[i : i + BATCH] for i in range(0, len(coded), BATCH))


def get_batches(keys: Iterable[KeyT]) -> tuple[BatchKeys, Iterator[list[bytes]]]:
    """Encode the keys of a get_many, each once, and split them into batches."""
    given = elements(keys, "the argument of get_many")
    raws = _encoded(given, key_bytes)
    once = dict(zip(_names(given, raws), raws, strict=True))
    named = BatchKeys(list(once), list(once.values()))
    return named, (named.raws[i : i + BATCH] for i in range(0, len(once), BATCH))


def _encoded(items: list[Any], encode: Callable[[Any], bytes]) -> list[bytes]:
    """Encode each; what is plain text throughout without a call for each, which would take most of the time."""
    if set(map(type, items)) == {str}:
        try:
            return [item.encode() for item in items]
        except UnicodeEncodeError:
            pass  # Surrogate escapes, or an error that names the item.
    return [encode(item) for item in items]


def _checked_value(key: object, value: Any) -> None:
    """Raise the error of an invalid value, with its key."""
    try:
        value_bytes(value)
    except InvalidArgument as error:
        raise InvalidArgument(f"key {key!r:.40}: {error}") from error


def _names(keys: list[Any], raws: list[bytes]) -> list[Any]:
    """Return the keys of a batch's results: as given, or as bytes where that is not hashable."""
    if set(map(type, keys)) <= {str, bytes}:
        return keys
    return [key if isinstance(key, (str, bytes)) else raw for key, raw in zip(keys, raws, strict=True)]


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
