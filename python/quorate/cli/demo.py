"""``quorate demo``: load a text, kill a node, restart it, verify that no acknowledged write is lost.

Each act is a method of `Demo` that performs one step, records its outcome in the report, and draws it.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quorate.cli.output import console, document
from quorate.cluster import Cluster
from quorate.errors import InvalidArgument, PartialFailure, QuorateError, Unavailable
from quorate.levels import ALL, ONE, QUORUM
from quorate.rendering import milliseconds

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from quorate.keyspace import Keyspace
    from quorate.levels import Level
    from quorate.quorum_answers import EntryData, WriteData
    from quorate.settings import Settings

__all__ = ["Demo", "demo"]

NODES = 5
REPLICAS = 3
VICTIM = "n3"
"""The node to kill, unless the text is so short that this node stores none of it."""
LEVELS = (ONE, QUORUM, ALL)
_TEXTS = ("pydoc_data.topics", "typing", "argparse")
_BATCH = 512
_LOAD_BUDGET = 4.0
_REVISED = 600
_LONGEST_LINE = 16 << 10
_MARK = b"revised: "
_CATCH_UP = 5.0


def demo(arguments: Namespace, settings: Settings) -> int:
    """Run the demonstration; the exit status is 1 if an acknowledged write is missing."""
    del settings
    path = Path(arguments.file) if arguments.file else default_text()
    lines = read_lines(path)
    return Demo(path, lines, as_json=arguments.json).run()


def default_text() -> Path:
    """Find a text that every CPython installation has."""
    for module in _TEXTS:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return Path(spec.origin)
    raise InvalidArgument("this Python has no sources of its own: name a text, `quorate demo FILE`")


def read_lines(path: Path) -> list[bytes]:
    """Read a file line by line; lines longer than 16 KiB, as in binary files, are split.

    Raises
    ------
    InvalidArgument
        If it cannot be read, or has no lines.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    if not lines:
        raise InvalidArgument(f"{path} is empty: name a text with at least one line")
    return [line[i : i + _LONGEST_LINE] for line in lines for i in range(0, len(line), _LONGEST_LINE)]


class Demo:
    """The acts, in the order of their methods.

    Parameters
    ----------
    path : Path
        The text's file.
    lines : sequence of bytes
        Its lines.
    as_json : bool
        Print one JSON document at the end, and draw nothing.
    """

    def __init__(self, path: Path, lines: Sequence[bytes], *, as_json: bool) -> None:
        self._path = path
        self._lines = lines
        self._as_json = as_json
        self._report: dict[str, Any] = {"file": str(path), "nodes": NODES, "replicas": REPLICAS}
        self._acknowledged: dict[str, bytes] = {}
        self._victim = VICTIM
        self._console = console()

    def run(self) -> int:
        """Play all acts; returns the exit status."""
        begun = time.perf_counter()
        self._say("[bold]quorate demo[/] · failure and recovery of a replicated store on this machine\n")
        cluster = Cluster(NODES)
        with cluster:
            self._started(cluster, time.perf_counter() - begun)
            keyspace = cluster.keyspace("text", mode="quorum", replicas=REPLICAS)
            self._load(keyspace)
            self._kill(cluster, keyspace)
            self._restart(cluster, keyspace)
            self._verify(keyspace)
            self._balance(cluster)
        seconds = time.perf_counter() - begun
        self._report["seconds"] = round(seconds, 2)
        lost = self._report["verification"]["lost"] + self._report["verification"]["wrong"]
        if self._as_json:
            document(self._report)
        verdict = (
            "[bold green]no acknowledged write was lost[/]" if not lost else f"[bold red]{lost} lines lost[/]"
        )
        self._say(f"\n{verdict} · all processes and files are removed · {seconds:.1f} s")
        return 1 if lost else 0

    # Acts -------------------------------------------------------------------------------------------------------------

    def _started(self, cluster: Cluster, seconds: float) -> None:
        self._report["start_seconds"] = round(seconds, 3)
        pids = ", ".join(str(node.pid) for node in cluster)
        self._act(
            "1",
            "start",
            f"{NODES} nodes are connected after [bold]{milliseconds(seconds)}[/] [dim](pids {pids})[/]",
        )

    def _load(self, keyspace: Keyspace) -> None:
        """Write a third of the lines at each level, and read them back at the same level."""
        from rich.markup import escape

        named = [(f"{number:07d}", line) for number, line in enumerate(self._lines, 1)]
        third = -(-len(named) // len(LEVELS))
        rows = []
        loaded = 0
        title = f"{escape(self._path.name)}, {len(named):,} lines, {REPLICAS} copies of each"
        self._act("2", "load", title)
        for index, level in enumerate(LEVELS):
            part = named[index * third : (index + 1) * third]
            if not part:
                continue
            writes = self._measure(f"write at {level}", part, partial(self._put, keyspace, level))
            loaded += len(writes.latencies)
            keys = [key for key, _ in part[: len(writes.latencies)]]
            reads = self._measure(f"read at {level}", keys, partial(_get, keyspace, level))
            rows.append({"level": level.value, "write": writes.to_dict(), "read": reads.to_dict()})
        self._report.update({"lines": len(named), "loaded": loaded, "load": rows})
        self._draw(_load_table(rows))
        if loaded < len(named):
            self._say(
                f"   [dim]{loaded:,} of {len(named):,} lines: each level has {_LOAD_BUDGET:g} s for its third[/]"
            )

    def _kill(self, cluster: Cluster, keyspace: Keyspace) -> None:
        """Kill a node; try which levels are available, and revise lines that it stores."""
        ring = cluster.ring()
        stored = {key: ring.nodes_for_key(key, REPLICAS) for key in self._acknowledged}
        if all(VICTIM not in nodes for nodes in stored.values()):
            self._victim = next(iter(stored.values()))[0]
        victim = self._victim
        its_own = [key for key, nodes in stored.items() if victim in nodes]
        begun = time.perf_counter()
        cluster[victim].kill()
        noticed = time.perf_counter() - begun
        self._act(
            "3",
            "kill",
            f"SIGKILL to {victim}; detected by the others within [bold]{milliseconds(noticed)}[/]",
        )
        rows = [self._attempt(keyspace, level, its_own[0]) for level in LEVELS]
        revised = [(key, _MARK + self._acknowledged[key]) for key in its_own[:_REVISED]]
        revisions = len(list(self._put(keyspace, QUORUM, revised)))
        self._report["failure"] = {
            "node": victim,
            "noticed_ms": _ms(noticed),
            "levels": rows,
            "revised": revisions,
        }
        self._draw(_attempt_table(rows))
        self._say(f"   {revisions:,} of its lines are revised at QUORUM while it is down")

    def _restart(self, cluster: Cluster, keyspace: Keyspace) -> None:
        """Restart the node, and measure how reads repair it."""
        begun = time.perf_counter()
        cluster[self._victim].restart()
        back = time.perf_counter() - begun
        self._act(
            "4", "restart", f"{self._victim} restarted with its data after [bold]{milliseconds(back)}[/]"
        )
        revised = [key for key, line in self._acknowledged.items() if line.startswith(_MARK)]
        counts = list(self._catch_up(keyspace, revised))
        self._report["recovery"] = {"seconds": round(back, 3), "stale_lines": counts}
        steps = " → ".join(f"[bold]{stale:,}[/]" for stale in counts)
        self._say(
            f"   stale lines on {self._victim} before and after reads at ALL, which repair them: {steps}"
        )
        row = self._attempt(keyspace, ALL, revised[0] if revised else next(iter(self._acknowledged)))
        self._report["recovery"]["all"] = row
        self._say(f"   ALL is available again: {'[green]yes[/]' if row['write'] == 'ok' else '[red]no[/]'}")

    def _catch_up(self, keyspace: Keyspace, keys: Sequence[str]) -> Iterator[int]:
        """Count the victim's stale lines before and after reads that repair them."""
        yield self._stale(keyspace, keys)
        for first in range(0, len(keys), _BATCH):
            keyspace.get_many(keys[first : first + _BATCH], consistency=ALL)
        deadline = time.perf_counter() + _CATCH_UP
        while (stale := self._stale(keyspace, keys)) and time.perf_counter() < deadline:
            time.sleep(0.01)
        yield stale

    def _stale(self, keyspace: Keyspace, keys: Sequence[str]) -> int:
        """Count the lines whose last write is missing in the victim's own copy."""
        entries = keyspace.get_many(keys, consistency=ONE, node=self._victim)
        return sum(entry.siblings != (self._acknowledged[key],) for key, entry in entries.items())

    def _verify(self, keyspace: Keyspace) -> None:
        """Read back every line that was acknowledged."""
        lost = wrong = 0
        for some in self._batches("verify", list(self._acknowledged)):
            for key, entry in keyspace.get_many(some, consistency=ALL).items():
                lost += not entry.found
                wrong += entry.found and entry.siblings != (self._acknowledged[key],)
        count = len(self._acknowledged)
        self._report["verification"] = {"acknowledged": count, "lost": lost, "wrong": wrong}
        good = f"[bold green]{count - lost - wrong:,}[/] of {count:,} acknowledged lines are present, as last written"
        self._act("5", "verify", good)

    def _balance(self, cluster: Cluster) -> None:
        """Show how evenly the ring spread the lines."""
        report = cluster.distribution("text")
        self._report["ring"] = report.to_dict()
        self._act("6", "ring", "data by node")
        self._draw(report)

    # Parts of acts ----------------------------------------------------------------------------------------------------

    def _put(
        self, keyspace: Keyspace, level: Level, some: Sequence[tuple[str, bytes]]
    ) -> Iterable[WriteData]:
        """Write lines and record which were acknowledged; it is an error if none was."""
        lines = dict(some)
        try:
            results: Mapping[str, WriteData] = keyspace.put_many(lines, consistency=level)
        except PartialFailure as failure:
            if not failure.succeeded:
                raise
            results = failure.succeeded
        self._acknowledged.update((key, lines[key]) for key in results)
        return results.values()

    def _attempt(self, keyspace: Keyspace, level: Level, key: str) -> dict[str, Any]:
        """Try one write and one read of a line."""
        line = self._acknowledged[key]

        def outcome(operation: Callable[[], object]) -> str:
            try:
                operation()
            except Unavailable as error:
                return f"Unavailable: {error.required} required, {error.alive} alive"
            except QuorateError as error:
                return f"{type(error).__name__}: {error}"
            return "ok"

        return {
            "level": level.value,
            "write": outcome(lambda: keyspace.put(key, line, consistency=level)),
            "read": outcome(lambda: keyspace.get(key, consistency=level)),
        }

    def _measure(
        self, what: str, items: Sequence[Any], run: Callable[[Sequence[Any]], Iterable[EntryData | WriteData]]
    ) -> _Run:
        """Run batches until they are done or the deadline passes."""
        latencies: list[float] = []
        begun = time.perf_counter()
        for some in self._batches(what, items):
            latencies.extend(result.latency for result in run(some))
            if time.perf_counter() - begun > _LOAD_BUDGET:
                break
        return _Run(latencies, time.perf_counter() - begun)

    def _batches(self, what: str, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Split items into batches, with a progress bar that disappears when they are done."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn(f"   {what:<16}"), BarColumn(bar_width=50), MofNCompleteColumn())
        hidden = self._as_json or not sys.stdout.isatty()
        with Progress(*columns, console=self._console, transient=True, disable=hidden) as progress:
            task = progress.add_task(what, total=len(items))
            for first in range(0, len(items), _BATCH):
                some = items[first : first + _BATCH]
                yield some
                progress.advance(task, len(some))

    def _act(self, number: str, name: str, text: str) -> None:
        from rich.table import Table

        if not self._as_json:
            line = Table.grid(padding=(0, 1))
            line.add_row(f"[bold cyan]{number} {name:<8}[/]", text)
            self._console.print(line)

    def _say(self, text: str) -> None:
        if not self._as_json:
            self._console.print(text)

    def _draw(self, renderable: RenderableType) -> None:
        from rich.padding import Padding

        if not self._as_json:
            self._console.print(Padding(renderable, (0, 0, 0, 3)))


def _get(keyspace: Keyspace, level: Level, keys: Sequence[str]) -> Iterable[EntryData]:
    return keyspace.get_many(keys, consistency=level).values()


class _Run:
    """Latencies of operations."""

    def __init__(self, latencies: list[float], seconds: float) -> None:
        self.latencies = latencies
        self._seconds = seconds

    def to_dict(self) -> dict[str, float | int]:
        ordered = sorted(self.latencies)
        return {
            "operations": len(ordered),
            "per_second": round(len(ordered) / self._seconds, 1),
            "p50_ms": _ms(percentile(ordered, 0.50)),
            "p99_ms": _ms(percentile(ordered, 0.99)),
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that is at or above this share of all values; 0 if there are none."""
    if not ordered:
        return 0.0
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _load_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED, header_style="bold")
    table.add_column("level")
    for what in ("writes/s", "p50", "p99", "reads/s", "p50", "p99"):
        table.add_column(what, justify="right")
    for row in rows:
        cells = []
        for run in (row["write"], row["read"]):
            cells += [f"{run['per_second']:,.0f}", f"{run['p50_ms']:.2f} ms", f"{run['p99_ms']:.2f} ms"]
        table.add_row(f"[bold]{row['level']}[/]", *cells)
    return table


def _attempt_table(rows: Sequence[Mapping[str, str]]) -> RenderableType:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.ROUNDED, header_style="bold")
    for what in ("level", "write", "read"):
        table.add_column(what, overflow="fold")
    for row in rows:
        cells = (
            "[green]✓ available[/]" if row[what] == "ok" else f"[red]✗ {escape(row[what])}[/]"
            for what in ("write", "read")
        )
        table.add_row(f"[bold]{row['level']}[/]", *cells)
    return table
