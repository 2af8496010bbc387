"""Conditions of writes to consensus keyspaces: the required version of a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quorate import arguments
from quorate.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quorate.arguments import KeyT

__all__ = ["conditional", "expected"]


def expected(if_version: int | None, if_absent: bool) -> int | None:
    """Convert the condition of a write to the key's required version: 0 if it must be absent, ``None`` for any.

    Raises
    ------
    InvalidArgument
        For both conditions, or an invalid version.
    """
    if arguments.switch(if_absent, "if_absent"):
        if if_version is not None:
            raise InvalidArgument(f"if_version={if_version!r} and if_absent: give one of them")
        return 0
    if if_version is None:
        return None
    return arguments.whole_number(if_version, "if_version", 0, arguments.MAX_VERSION)


def conditional(
    items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
    if_version: Mapping[KeyT, int] | None,
    if_absent: bool | Iterable[KeyT],
) -> tuple[arguments.BatchKeys, list[tuple[bytes, bytes, int | None]]]:
    """Encode the pairs of a put_many, each with the required version of its key, as in `expected`.

    Raises
    ------
    InvalidArgument
        For a condition on a key that is not written, two on one key, or an invalid version.
    """
    named, batches = arguments.put_batches(items)
    coded = [pair for batch in batches for pair in batch]
    written = set(named.raws)
    versions: dict[bytes, int] = {}

    def demand(key: KeyT, version: int, name: str) -> None:
        raw = arguments.key_bytes(key)
        if raw not in written:
            raise InvalidArgument(f"{name} names key {key!r:.40}, which is not among the items: leave it out")
        if raw in versions:
            raise InvalidArgument(f"key {key!r:.40} has two conditions: give one of them")
        versions[raw] = version

    if if_version is not None:
        if not isinstance(if_version, Mapping):
            raise InvalidArgument(f"if_version={if_version!r:.40}: give a mapping of keys to versions")
        for key, version in if_version.items():
            demand(
                key,
                arguments.whole_number(version, f"if_version[{key!r:.40}]", 0, arguments.MAX_VERSION),
                "if_version",
            )
    if isinstance(if_absent, bool):
        if if_absent and versions:
            raise InvalidArgument(
                "if_version and if_absent=True: list the keys that must be absent in if_absent"
            )
        if if_absent:
            versions = dict.fromkeys(written, 0)
    else:
        for absent in arguments.elements(if_absent, "if_absent"):
            demand(absent, 0, "if_absent")
    return named, [(key, value, versions.get(key)) for key, value in coded]
