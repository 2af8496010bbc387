"""Settings of the node program without a parameter of their own, and their bounds.

They are validated here, before any process starts, so that errors use the names of the Python API.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from quorate.arguments import mapping, switch, text, whole_number
from quorate.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["tuned"]

_DAY = 86_400_000
_MANY = 10_000_000
_NUMBERS: Mapping[str, tuple[int, int]] = {
    "generation": (1, 2**63 - 1),
    "heartbeat_ms": (1, _DAY),
    "idle_ms": (1, _DAY),
    "map_size_bytes": (16 << 20, 1 << 46),
    "spans": (1, _MANY),
    "timeline_events": (1, _MANY),
    "worker_threads": (1, 1024),
}
"""Minimum and maximum of each number."""
_NAMES = sorted((*_NUMBERS, "allow_faults", "record_dir"))


def tuned(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check further settings of the node program; those that are ``None`` are omitted.

    Raises
    ------
    InvalidArgument
        If a setting is unknown or its value invalid; the message names it.
    """
    given = mapping(settings, "settings")
    unknown = sorted(set(given) - set(_NAMES))
    if unknown:
        raise InvalidArgument(f"unknown setting {', '.join(unknown)}: there are {', '.join(_NAMES)}")
    return {name: _checked(name, value) for name, value in given.items() if value is not None}


def _checked(name: str, value: Any) -> Any:
    if name in _NUMBERS:
        return whole_number(value, name, *_NUMBERS[name])
    if name == "allow_faults":
        return switch(value, name)
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidArgument(f"{name}={value!r}: give the path of a directory")
    return text(path, name)
