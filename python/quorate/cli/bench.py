"""``quorate bench``: operations per second and latencies, measured by a loop in Rust over the client protocol.

The loop runs in this process and the nodes in theirs. Every request is one operation; the number in flight is held
constant (a closed loop). With ``--json`` each run is one line in the format of the peers that Quorate is compared with.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from itertools import product
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from quorate import _quorate, levels
from quorate.arguments import parse_endpoints
from quorate.cli.data import connection
from quorate.cli.output import document, show
from quorate.errors import InvalidArgument
from quorate.rendering import listing

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from quorate.connection import Connection
    from quorate.consensus import ConsensusKeyspace
    from quorate.keyspace import Keyspace
    from quorate.settings import Settings

__all__ = ["bench"]

_OPERATIONS = ("load", "write", "read", "mixed")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_REPLICAS = 3
_LONGEST = 86_400


def bench(arguments: Namespace, settings: Settings) -> int:
    """Measure every combination that was asked for; the exit status is 1 when any operation failed."""
    operations = _listed(arguments.operations, _OPERATIONS, "--operations")
    concurrencies = [_whole(text, "--concurrency") for text in arguments.concurrency.split(",")]
    consensus = arguments.mode == "consensus"
    if arguments.shards is not None and not consensus:
        raise InvalidArgument(f"--shards {arguments.shards}: only with --mode consensus")
    named = arguments.consistency or ("LINEARIZABLE" if consensus else "QUORUM")
    consistencies = [_level(text.strip(), consensus=consensus) for text in named.split(",")]
    _check_sizes(arguments)
    remote = settings.given("endpoints") and arguments.nodes is None
    replicas = arguments.replicas
    if replicas is None and not remote:
        replicas = min(_REPLICAS, settings["nodes"])
    if replicas is not None and not consensus:
        _check_levels(consistencies, replicas)
    if "load" not in operations and not arguments.no_load and {"read", "mixed"} & set(operations):
        operations.insert(0, "load")
    rows = []
    with _cluster(settings, remote=remote) as (client, endpoints, pids):
        keyspace: Keyspace | ConsensusKeyspace
        if consensus:
            name = arguments.keyspace or "bench-consensus"
            keyspace = client.keyspace(name, mode="consensus", replicas=replicas, shards=arguments.shards)
        else:
            keyspace = client.keyspace(arguments.keyspace or "bench", mode="quorum", replicas=replicas)
            _check_levels(consistencies, keyspace.replicas)
        options = {
            "keyspace": keyspace.info.id,
            "keys": arguments.keys,
            "value_size": arguments.value_size,
            "duration": arguments.duration,
            "warmup": arguments.warmup,
            "connections": arguments.connections,
            "timeout": client.timeout,
            "secret": settings["secret"] or "",
        }
        runs = list(product(consistencies, operations, concurrencies))
        if consensus:
            # The level is one of reads.
            runs = [run for run in runs if run[0] == consistencies[0] or run[1] in ("read", "mixed")]
        # One load is enough: it writes every key, at the highest concurrency.
        loads = sorted((run for run in runs if run[1] == "load"), key=itemgetter(2))
        runs = loads[-1:] + [run for run in runs if run[1] != "load"]
        for level, operation, concurrency in runs:
            wanted = {**options, "operation": operation, "concurrency": concurrency}
            wanted["reads" if consensus else "level"] = level
            row = _measure(endpoints, wanted, pids)
            rows.append(row)
            if arguments.json:
                document(row)
    if not arguments.json:
        from rich.markup import escape

        show(_table(rows))
        for row in rows:
            if row["errors"]:
                show(
                    f"[red]{row['errors']:,} {_named(row)} failed[/], the first one: {escape(row['first_error'])}"
                )
            if row["misses"]:
                show(f"[yellow]{row['misses']:,} {_named(row)} found nothing[/]: leave out --no-load")
    return 1 if any(row["errors"] for row in rows) else 0


def _level(text: str, *, consensus: bool) -> str | None:
    """Check a level, and name it as the loop takes it."""
    if consensus:
        return "stale" if levels.is_stale(text) else "linearizable"
    level = levels.checked(text)
    return None if level is None else str(level)


def _check_sizes(arguments: Namespace) -> None:
    """Refuse what no cluster would take, before one is started or loaded."""
    for name in ("keys", "connections"):
        _whole(getattr(arguments, name), f"--{name}")
    if arguments.replicas is not None:
        _whole(arguments.replicas, "--replicas")
    if not 0 < arguments.value_size <= _quorate.MAX_VALUE_BYTES:
        raise InvalidArgument(
            f"--value-size {arguments.value_size}: a value has 1 to {_quorate.MAX_VALUE_BYTES} bytes"
        )
    for name, least in (("duration", 0.001), ("warmup", 0.0)):
        value = getattr(arguments, name)
        if not least <= value <= _LONGEST:
            raise InvalidArgument(f"--{name} {value:g}: give {least:g} to {_LONGEST} seconds")


def _check_levels(consistencies: Sequence[str | None], replicas: int) -> None:
    """Refuse levels that no operation could reach."""
    for name in consistencies:
        level = None if name is None else levels.from_wire(name)
        required = level.required(replicas) if isinstance(level, levels.Level) else level or 1
        if required > replicas:
            raise InvalidArgument(
                f"--consistency {name}: {required} replicas are asked for, but each key has {replicas}: use at most"
                " ALL, or more --replicas"
            )


def _listed(text: str, known: Sequence[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise InvalidArgument(f"{option} {name!r}: there are {', '.join(known)}")
    return names


def _whole(value: str | int, option: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise InvalidArgument(f"{option} {value!r}: give a number from 1")
    return number


@contextmanager
def _cluster(settings: Settings, *, remote: bool) -> Iterator[tuple[Connection, list[str], list[int]]]:
    """Connect to the cluster that is named, or start one here."""
    from quorate.cluster import Cluster

    if remote:
        with connection(settings) as client:
            yield client, parse_endpoints(settings["endpoints"]), []
    else:
        with Cluster(settings["nodes"], timeout=settings["timeout"]) as cluster:
            yield cluster, parse_endpoints(cluster.endpoints), [node.pid for node in cluster]


def _measure(endpoints: list[str], options: Mapping[str, Any], pids: Sequence[int]) -> dict[str, Any]:
    """Run once, and add what the nodes of this machine spent on it."""
    before = [_cpu_seconds(pid) for pid in pids]
    begun = time.monotonic()
    row: dict[str, Any] = json.loads(_quorate.bench(endpoints, json.dumps(options)).wait())
    seconds = time.monotonic() - begun
    if pids:
        spent = zip(pids, before, strict=True)
        row["server_cores"] = [round((_cpu_seconds(pid) - begun) / seconds, 2) for pid, begun in spent]
        row["server_rss_mb"] = [round(_resident_bytes(pid) / 1e6, 1) for pid in pids]
    return row


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", "rb") as source:  # noqa: PTH123 - not a path to anything on a disk
        fields = source.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", "rb") as source:  # noqa: PTH123
        return int(source.read().split()[1]) * _PAGE


def _named(row: Mapping[str, Any]) -> str:
    """Name what a run did, as in ``read at QUORUM``."""
    what = {"read": "reads", "mixed": "operations"}.get(row["op"], "writes")
    return f"{what} at {row['level']}" if row["level"] else what


def _table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = listing("operation", "level")
    for name in ("in flight", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "misses", "errors"):
        table.add_column(name, justify="right")
    for row in rows:
        measured = row["ops_per_s"] > 0
        table.add_row(
            row["op"],
            row["level"] or "",
            str(row["concurrency"]),
            f"[bold]{row['ops_per_s']:,.0f}[/]",
            *(f"{row[name] / 1e3:.2f}" if measured else "" for name in ("p50_us", "p99_us", "p999_us")),
            f"[yellow]{row['misses']:,}[/]" if row["misses"] else "0",
            f"[red]{row['errors']:,}[/]" if row["errors"] else "0",
        )
    return table
