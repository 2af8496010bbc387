"""What the synchronous and the asynchronous consensus keyspace share: arguments checked, answers made into results."""

from __future__ import annotations

import functools
import heapq
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from quorate import answers, arguments
from quorate.entries import moment
from quorate.errors import InvalidArgument, QuorateError
from quorate.records import AppendedData, CommitData, ConsensusEntryData, LogEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from quorate._quorate import RawCommit, RawLogPage, RawRecord
    from quorate.arguments import KeyT
    from quorate.topology import KeyspaceInfo

CommitT = TypeVar("CommitT", bound=CommitData)
AppendedT = TypeVar("AppendedT", bound=AppendedData)
EntryT = TypeVar("EntryT", bound=ConsensusEntryData)
MethodT = TypeVar("MethodT", bound="Callable[..., Any]")

_VERSIONS = 2**63 - 1
_OF_QUORUM = {
    "consistency": "every write of a consensus keyspace is agreed on by a majority: leave it out",
    "context": 'consensus keyspaces have no siblings: use if_version=entry.version, or a keyspace of mode="quorum"',
}
_OF_CONSENSUS = {
    "if_version": 'quorum keyspaces cannot compare: use context=entry.context, or a keyspace of mode="consensus"',
    "if_absent": 'quorum keyspaces cannot compare: use a keyspace of mode="consensus"',
}


def _refusing(remedies: Mapping[str, str]) -> Callable[[MethodT], MethodT]:
    def decorate(method: MethodT) -> MethodT:
        @functools.wraps(method)
        def checked(*given: Any, **named: Any) -> Any:
            for name in remedies.keys() & named.keys():
                raise InvalidArgument(f"{name}={named[name]!r:.40}: {remedies[name]}")
            return method(*given, **named)

        return checked  # type: ignore[return-value]

    return decorate


only_in_quorum = _refusing(_OF_QUORUM)
"""Makes an operation of consensus keyspaces refuse arguments of the other mode with words that help."""
only_in_consensus = _refusing(_OF_CONSENSUS)
"""Makes an operation of quorum keyspaces refuse arguments of the other mode with words that help."""


def expected(if_version: int | None, if_absent: bool) -> int | None:
    """Turn the condition of a write into the version that the key must have: 0 if it must be absent, ``None`` for any.

    Raises
    ------
    InvalidArgument
        For both conditions, or a version that cannot be one.
    """
    if arguments.switch(if_absent, "if_absent"):
        if if_version is not None:
            raise InvalidArgument(f"if_version={if_version!r} and if_absent: give one of them")
        return 0
    return None if if_version is None else arguments.whole_number(if_version, "if_version", 0, _VERSIONS)


def conditional(
    items: Mapping[KeyT, str | bytes] | Iterable[tuple[KeyT, str | bytes]],
    if_version: Mapping[KeyT, int] | None,
    if_absent: bool | Iterable[KeyT],
) -> tuple[list[tuple[KeyT, bytes]], list[tuple[bytes, bytes, int | None]]]:
    """Code the pairs of a put_many, each with the version that its key must have, as of `expected`.

    Raises
    ------
    InvalidArgument
        For a condition on a key that is not written, two on one key, or a version that cannot be one.
    """
    pairs, batches = arguments.put_batches(items)
    coded = [pair for batch in batches for pair in batch]
    written = {key for key, _ in coded}
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
                key, arguments.whole_number(version, f"if_version[{key!r:.40}]", 0, _VERSIONS), "if_version"
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
    return pairs, [(key, value, versions.get(key)) for key, value in coded]


def commit(kind: type[CommitT], key: bytes, raw: RawCommit, collect: Callable[[str], Any]) -> CommitT:
    """Make a write's result of what the extension answered."""
    return kind(
        raw.seconds,
        _trace(raw),
        collect,
        answers.key_text(key),
        raw.index,
        raw.term,
        f"n{raw.leader}",
        raw.shard,
    )


def appended(kind: type[AppendedT], source: str, raw: RawCommit, collect: Callable[[str], Any]) -> AppendedT:
    """Make an append's result of what the extension answered."""
    return kind(raw.seconds, _trace(raw), collect, source, raw.index, raw.term, f"n{raw.leader}", raw.shard)


def entry(kind: type[EntryT], key: bytes, raw: RawRecord, collect: Callable[[str], Any]) -> EntryT:
    """Make an entry of what the extension answered."""
    micros = raw.micros
    return kind(
        raw.seconds,
        _trace(raw),
        collect,
        answers.key_text(key),
        raw.value,
        raw.version or 0,
        None if micros is None else moment(micros),
        f"n{raw.node}",
        None if raw.leader is None else f"n{raw.leader}",
        raw.applied,
        raw.staleness,
    )


def _trace(raw: RawCommit | RawRecord) -> str | None:
    return None if raw.trace_id is None else f"{raw.trace_id:032x}"


def commits(
    kind: type[CommitT],
    pairs: list[tuple[KeyT, bytes]],
    raws: Iterable[RawCommit | QuorateError],
    collect: Callable[[str], Any],
) -> dict[KeyT, CommitT]:
    """Make results of what the extension answered to a put_many."""
    made = (
        (key, raw if isinstance(raw, QuorateError) else commit(kind, coded, raw, collect))
        for (key, coded), raw in zip(pairs, raws, strict=True)
    )
    return answers.batch("writes", made)


def entries(
    kind: type[EntryT],
    keys: list[tuple[KeyT, bytes]],
    raws: Iterable[RawRecord | QuorateError],
    collect: Callable[[str], Any],
) -> dict[KeyT, EntryT]:
    """Make entries of what the extension answered to a get_many."""
    made = (
        (key, raw if isinstance(raw, QuorateError) else entry(kind, coded, raw, collect))
        for (key, coded), raw in zip(keys, raws, strict=True)
    )
    return answers.batch("reads", made)


def groups(info: KeyspaceInfo) -> list[tuple[int, list[int]]]:
    """List the groups of a keyspace as the extension takes them."""
    return [(group.id, [arguments.node_number(member) for member in group.members]) for group in info.groups]


def source_text(source: str) -> str:
    """Check where an entry comes from."""
    return arguments.text(source, "source")


class EntryPages:
    """How entries of several shards become one sequence: by time, then shard, then id.

    Within a shard that is the order of the ids. Pages are fetched for the shards of which none is at hand; whatever is
    certainly earlier than all that is still to come is handed out.

    Parameters
    ----------
    shards : sequence of int
        Which shards.
    after : int or mapping
        Only entries with greater ids: for all shards, or by shard.
    source : str, optional
        Only entries from there.
    limit : int, optional
        Entries in all.
    page_size : int
        Entries of one page.
    """

    def __init__(
        self,
        shards: Sequence[int],
        after: int | Mapping[int, int],
        source: str | None,
        limit: int | None,
        page_size: int,
    ) -> None:
        self._cursors: dict[int, int] = dict.fromkeys(shards, 0)
        if isinstance(after, Mapping):
            for shard, last in after.items():
                if shard not in self._cursors:
                    raise InvalidArgument(
                        f"after={dict(after)!r:.60}: there is no shard {shard!r} in this listing"
                    )
                self._cursors[shard] = arguments.whole_number(last, f"after[{shard}]", 0, _VERSIONS)
        else:
            first = arguments.whole_number(after, "after", 0, _VERSIONS)
            self._cursors = dict.fromkeys(shards, first)
        self._source = source
        self._left = arguments.scan_limit(limit)
        self._page_size = arguments.whole_number(page_size, "page_size", 1, arguments.MAX_PAGE)
        self._buffers: dict[int, deque[LogEntry]] = {}
        self._heads: list[tuple[Any, int, int]] = []

    def request(self) -> tuple[list[tuple[int, int]], int] | None:
        """Tell the shards to fetch a page of, each with the last id that is known, and the size; ``None`` at the end.

        Pages are asked for where nothing is at hand any longer, so that no more is fetched than is used.
        """
        wanted = [(shard, last) for shard, last in self._cursors.items() if not self._buffers.get(shard)]
        return (wanted, self._page_size) if wanted and self._left != 0 else None

    def feed(self, asked: list[tuple[int, int]], pages: list[RawLogPage]) -> Iterator[LogEntry]:
        """Take the pages that were asked for, and hand out what is in order by now."""
        for (shard, _), page in zip(asked, pages, strict=True):
            found = (
                LogEntry(number, shard, term, moment(micros), source, data)
                for number, term, micros, source, data in page.entries
                if self._source is None or source == self._source
            )
            buffer = self._buffers[shard] = deque(found)
            if buffer:
                heapq.heappush(self._heads, self._place(buffer[0]))
            if page.next is None:
                del self._cursors[shard]
            else:
                self._cursors[shard] = page.next
        while self._heads and self._left != 0 and all(self._buffers[shard] for shard in self._cursors):
            _, shard, _ = heapq.heappop(self._heads)
            buffer = self._buffers[shard]
            yield buffer.popleft()
            if buffer:
                heapq.heappush(self._heads, self._place(buffer[0]))
            if self._left is not None:
                self._left -= 1

    @staticmethod
    def _place(entry: LogEntry) -> tuple[Any, int, int]:
        return entry.timestamp, entry.shard, entry.entry_id
