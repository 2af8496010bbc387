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
from quorate.cli.data import connection
from quorate.cli.output import document, show
from quorate.errors import InvalidArgument
from quorate.operations import parse_endpoints

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from quorate.connection import Connection
    from quorate.settings import Settings

__all__ = ["bench"]

_OPERATIONS = ("load", "write", "read", "mixed")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def bench(arguments: Namespace, settings: Settings) -> int:
    """Measure every combination that was asked for; the exit status is 1 when any operation failed."""
    operations = _listed(arguments.operations, _OPERATIONS, "--operations")
    concurrencies = [_positive(text, "--concurrency") for text in arguments.concurrency.split(",")]
    consistencies = [levels.to_wire(text.strip()) for text in arguments.consistency.split(",")]
    for name in ("value_size", "keys", "replicas"):
        _positive(getattr(arguments, name), f"--{name.replace('_', '-')}")
    if "load" not in operations and not arguments.no_load and {"read", "mixed"} & set(operations):
        operations.insert(0, "load")
    rows = []
    with _cluster(arguments, settings) as (client, endpoints, pids):
        keyspace = client.keyspace(arguments.keyspace, mode="quorum", replicas=arguments.replicas)
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
        # One load is enough: it writes every key, at the highest concurrency.
        loads = sorted((run for run in runs if run[1] == "load"), key=itemgetter(2))
        runs = loads[-1:] + [run for run in runs if run[1] != "load"]
        for level, operation, concurrency in runs:
            wanted = {**options, "operation": operation, "concurrency": concurrency, "level": level}
            row = _measure(endpoints, wanted, pids)
            rows.append(row)
            if arguments.json:
                document(row)
    if not arguments.json:
        show(_table(rows))
    return 1 if any(row["errors"] for row in rows) else 0


def _listed(text: str, known: Sequence[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise InvalidArgument(f"{option} {name!r}: there are {', '.join(known)}")
    return names


def _positive(value: str | int, option: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise InvalidArgument(f"{option} {value!r}: give a number from 1")
    return number


@contextmanager
def _cluster(arguments: Namespace, settings: Settings) -> Iterator[tuple[Connection, list[str], list[int]]]:
    """Connect to the cluster that is named, or start one here."""
    from quorate.cluster import Cluster

    if settings.given("endpoints") and arguments.nodes is None:
        with connection(settings) as client:
            yield client, parse_endpoints(settings["endpoints"]), []
    else:
        with Cluster(settings["nodes"], timeout=settings["timeout"]) as cluster:
            yield cluster, parse_endpoints(cluster.endpoints), [node.pid for node in cluster]


def _measure(endpoints: list[str], options: Mapping[str, Any], pids: Sequence[int]) -> dict[str, Any]:
    """Run once, and add what the nodes of this machine spent on it."""
    before = [_cpu_seconds(pid) for pid in pids]
    begun = time.monotonic()
    row: dict[str, Any] = json.loads(_quorate.bench(endpoints, json.dumps(options)))
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


def _table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED, header_style="bold")
    for name in ("operation", "consistency"):
        table.add_column(name)
    for name in ("in flight", "ops/s", "p50", "p99", "p99.9", "errors"):
        table.add_column(name, justify="right")
    for row in rows:
        latencies = (f"{row[name] / 1e3:.2f} ms" for name in ("p50_us", "p99_us", "p999_us"))
        table.add_row(
            row["op"],
            row["level"] or "",
            str(row["concurrency"]),
            f"[bold]{row['ops_per_s']:,.0f}[/]",
            *latencies,
            f"[red]{row['errors']}[/]" if row["errors"] else "0",
        )
    return table
