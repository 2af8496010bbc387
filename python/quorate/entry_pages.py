"""Entries of several shards as one sequence, page by page."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quorate import arguments
from quorate.answers import moment
from quorate.consensus_answers import LogEntry
from quorate.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quorate._quorate import RawLogPage

__all__ = ["EntryPages"]


class EntryPages:
    """Merges entries of several shards by time, then shard, then id.

    Within a shard this is the order of the ids. Pages are fetched for shards without buffered entries; entries that are
    certainly earlier than all pending ones are returned.

    Parameters
    ----------
    shards : sequence of int
        The shards.
    after : int or mapping
        Only entries with greater ids: one bound for all shards, or one per shard.
    source : str, optional
        Only entries of this source.
    limit : int, optional
        Maximum number of entries.
    page_size : int
        Entries per page.
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
                self._cursors[shard] = arguments.whole_number(
                    last, f"after[{shard}]", 0, arguments.MAX_VERSION
                )
        else:
            first = arguments.whole_number(after, "after", 0, arguments.MAX_VERSION)
            self._cursors = dict.fromkeys(shards, first)
        self._source = source
        self._left = arguments.scan_limit(limit)
        self._page_size = arguments.whole_number(page_size, "page_size", 1, arguments.MAX_PAGE)
        self._buffers: dict[int, deque[LogEntry]] = {}
        self._heads: list[tuple[Any, int, int]] = []

    def request(self) -> tuple[list[tuple[int, int]], int] | None:
        """Return the shards to fetch a page from, each with its last known id, and the size; ``None`` at the end.

        Pages are requested only for shards without buffered entries, so that no more is fetched than used.
        """
        wanted = [(shard, last) for shard, last in self._cursors.items() if not self._buffers.get(shard)]
        return (wanted, self._page_size) if wanted and self._left != 0 else None

    def feed(self, asked: list[tuple[int, int]], pages: list[RawLogPage]) -> Iterator[LogEntry]:
        """Add the requested pages, and return the entries whose order is final."""
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
