"""``quorate bench``: operations per second and latencies, measured by a loop in Rust over the client protocol.

The loop runs in this process and the nodes in theirs. Without ``--rate`` the number of operations in flight is held
constant (a closed loop). With it, operations start on a schedule (an open loop), and latency is measured from the
scheduled start, so that the wait during a stall of the cluster counts. Omitting it is what Gil Tene calls coordinated
omission; see wrk2 (https://github.com/giltene/wrk2) and HdrHistogram (http://hdrhistogram.org).

With ``--json`` each run is one line in the format of the systems that Quorate is compared with.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from itertools import product
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from quorate import _quorate, background, flow, levels, operations
from quorate.arguments import parse_endpoints
from quorate.cli.bench_report import named, show_rows
from quorate.cli.data import connection
from quorate.cli.output import document
from quorate.cli.workloads import resolve
from quorate.errors import InvalidArgument, NotFound, QuorateError
from quorate.rendering import tracker

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Mapping, Sequence

    from quorate.cli.workloads import Workload
    from quorate.connection import Connection
    from quorate.settings import Settings
    from quorate.topology import KeyspaceInfo

__all__ = ["bench"]

_OPERATIONS = ("load", "write", "read", "mixed", "append")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_REPLICAS = 3
_LONGEST = 86_400
_MAX_RATE = 1_000_000
_LOOK = 0.1
_STEPS = 1000


def bench(arguments: Namespace, settings: Settings) -> int:
    """Measure every requested combination; the exit status is 1 if any operation failed."""
    workload = resolve(arguments)
    remote = settings.given("endpoints") and arguments.nodes is None
    nodes = settings["nodes"] if settings.given("nodes") else workload.nodes or settings["nodes"]
    runs = _runs(arguments, workload)
    _check_sizes(arguments, workload)
    if arguments.keep and not remote:
        raise InvalidArgument("--keep: only with --endpoints: a cluster started by this command is removed")
    replicas = workload.replicas
    if replicas is None and not remote:
        replicas = min(_REPLICAS, nodes)
    if replicas is not None:
        _check_levels(runs, replicas)
    rows: list[dict[str, Any]] = []
    try:
        with (
            _interruptible(),
            _cluster(settings, nodes, remote=remote) as (client, endpoints, pids),
            _keyspace(
                client, _name(arguments, workload), workload, replicas, keep=arguments.keep
            ) as keyspace,
        ):
            _check_levels(runs, keyspace.replicas)
            fixed = {
                "keyspace": keyspace.id,
                "keys": arguments.keys,
                "value_size": workload.value_size,
                "batch": workload.batch,
                "read_percent": workload.read_percent,
                "duration": arguments.duration,
                "warmup": arguments.warmup,
                "connections": arguments.connections,
                "timeout": client.timeout,
                "secret": settings["secret"] or "",
            }
            for number, run in enumerate(runs, 1):
                bar = f"{number} of {len(runs)}: {named(run)}, {run['concurrency']} in flight"
                show = not arguments.json and sys.stderr.isatty()
                row = _measure(endpoints, {**fixed, **_wire(run, workload)}, pids, bar, show=show)
                rows.append(row)
                if arguments.json:
                    document(row)
    finally:
        # Include the measurements before an interruption or a failure.
        if rows and not arguments.json:
            show_rows(rows, f"preset {arguments.preset}: {workload}" if arguments.preset else "")
    return 1 if any(row["errors"] for row in rows) else 0


def _runs(arguments: Namespace, workload: Workload) -> list[dict[str, Any]]:
    """List the runs: each operation at each level, concurrency and rate."""
    operations = _listed(workload.operations, _OPERATIONS, "--operations")
    concurrencies = [_whole(text, "--concurrency") for text in workload.concurrency.split(",")]
    rates = [None] if arguments.rate is None else [_rate(text) for text in arguments.rate.split(",")]
    consensus = workload.mode == "consensus"
    if workload.shards is not None and not consensus:
        raise InvalidArgument(f"--shards {workload.shards}: only with --mode consensus")
    if "append" in operations and not consensus:
        raise InvalidArgument("--operations append: only keyspaces of --mode consensus have a log of entries")
    if arguments.read_percent is not None and "mixed" not in operations:
        raise InvalidArgument(f"--read-percent {arguments.read_percent}: only with --operations mixed")
    if arguments.arrivals is not None and arguments.rate is None:
        raise InvalidArgument(f"--arrivals {arguments.arrivals}: only with --rate")
    names = workload.consistency or ("LINEARIZABLE" if consensus else "QUORUM")
    consistencies = [_level(text.strip(), consensus=consensus) for text in names.split(",")]
    if "load" not in operations and not arguments.no_load and {"read", "mixed"} & set(operations):
        operations.insert(0, "load")
    keys = ("level", "op", "concurrency", "rate")
    runs = [
        dict(zip(keys, run, strict=True)) for run in product(consistencies, operations, concurrencies, rates)
    ]
    if consensus:
        # The level applies to reads.
        first = consistencies[0]
        runs = [run for run in runs if run["level"] == first or run["op"] in ("read", "mixed")]
    for run in runs:
        run["arrivals"] = arguments.arrivals or "even"
    # One load is enough: it writes every key, at the highest concurrency and without a rate.
    loads = sorted((run for run in runs if run["op"] == "load"), key=itemgetter("concurrency"))
    return [{**run, "rate": None} for run in loads[-1:]] + [run for run in runs if run["op"] != "load"]


def _wire(run: Mapping[str, Any], workload: Workload) -> dict[str, Any]:
    """Convert a run to the loop's options."""
    wire = {"operation": run["op"], **{name: run[name] for name in ("concurrency", "rate", "arrivals")}}
    return {**wire, "reads" if workload.mode == "consensus" else "level": run["level"]}


def _name(arguments: Namespace, workload: Workload) -> str:
    """Name the keyspace; each preset has its own, because their settings differ."""
    if arguments.keyspace is not None:
        return str(arguments.keyspace)
    parts = ["bench", *(["consensus"] if workload.mode == "consensus" else [])]
    return "-".join([*parts, *([arguments.preset.lower()] if arguments.preset else [])])


def _level(text: str, *, consensus: bool) -> str | None:
    """Check a level, and convert it to the loop's form."""
    if consensus:
        return "stale" if levels.is_stale(text) else "linearizable"
    level = levels.checked(text)
    return None if level is None else str(level)


def _check_sizes(arguments: Namespace, workload: Workload) -> None:
    """Reject invalid options before a cluster is started or loaded."""
    for name, value in (
        ("keys", arguments.keys),
        ("connections", arguments.connections),
        ("replicas", 1 if workload.replicas is None else workload.replicas),
        ("batch", workload.batch),
    ):
        _whole(value, f"--{name}")
    if not 0 < workload.value_size <= _quorate.MAX_VALUE_BYTES:
        raise InvalidArgument(
            f"--value-size {workload.value_size}: a value has 1 to {_quorate.MAX_VALUE_BYTES} bytes"
        )
    if not 0 <= workload.read_percent <= 100:
        raise InvalidArgument(f"--read-percent {workload.read_percent}: give 0 to 100")
    if workload.batch > arguments.keys:
        raise InvalidArgument(f"--batch {workload.batch}: there are only --keys {arguments.keys}")
    most = _quorate.MAX_VALUE_BYTES // workload.value_size
    if workload.mode == "consensus" and workload.batch > most:
        raise InvalidArgument(
            f"--batch {workload.batch}: in mode consensus a batch is one request: with --value-size"
            f" {workload.value_size} it has room for {most}"
        )
    for name, least in (("duration", 0.001), ("warmup", 0.0)):
        value = getattr(arguments, name)
        if not least <= value <= _LONGEST:
            raise InvalidArgument(f"--{name} {value:g}: give {least:g} to {_LONGEST} seconds")


def _check_levels(runs: Sequence[Mapping[str, Any]], replicas: int) -> None:
    """Reject levels that no operation could reach."""
    for name in {run["level"] for run in runs} - {"linearizable", "stale"}:
        level = None if name is None else levels.from_wire(name)
        required = level.required(replicas) if isinstance(level, levels.Level) else level or 1
        if required > replicas:
            raise InvalidArgument(
                f"--consistency {name} requires {required} replicas, but each key has {replicas}: use at most"
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


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= _MAX_RATE:
        raise InvalidArgument(f"--rate {text}: give operations per second, above 0 and up to {_MAX_RATE}")
    return rate


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP interrupt like Ctrl-C; each once, so that the cleanup is not interrupted."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Signals that are ignored, as under nohup, stay ignored.
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _cluster(
    settings: Settings, nodes: int, *, remote: bool
) -> Iterator[tuple[Connection, list[str], list[int]]]:
    """Connect to the given cluster, or start one here."""
    from quorate.cluster import Cluster

    if remote:
        with connection(settings) as client:
            yield client, parse_endpoints(settings["endpoints"]), []
    else:
        with Cluster(nodes, timeout=settings["timeout"]) as cluster:
            yield cluster, parse_endpoints(cluster.endpoints), [node.pid for node in cluster]


@contextmanager
def _keyspace(
    client: Connection, name: str, workload: Workload, replicas: int | None, *, keep: bool
) -> Iterator[KeyspaceInfo]:
    """Open the keyspace; if it is created here, it is dropped at the end in any case."""
    made: list[tuple[KeyspaceInfo, bool]] = []

    def make() -> None:
        settings = (workload.mode, replicas, None, None, None, workload.shards, None)
        made.append(flow.run(client._client, operations.create_keyspace(name, *settings, client.timeout)))

    try:
        # An interruption must not come between the creation and the response that it is new. A list of keyspaces is no
        # substitute: a node may lag behind, and list dropped keyspaces or miss new ones.
        background.run(make)
        yield made[0][0]
    finally:
        if made and made[0][1] and not keep:
            _drop(client, made[0][0])


def _drop(client: Connection, made: KeyspaceInfo) -> None:
    """Drop the keyspace, unless its name now belongs to another one."""
    try:
        # Ids increase: a smaller one is of a dropped keyspace, on a node that lags behind.
        if all(info.name != made.name or info.id <= made.id for info in client.keyspaces()):
            client.drop_keyspace(made.name)
    except NotFound:
        pass
    except QuorateError as error:
        print(f"quorate: warning: keyspace {made.name!r} is left behind: {error}", file=sys.stderr)


def _measure(
    endpoints: list[str], options: Mapping[str, Any], pids: Sequence[int], bar: str, *, show: bool
) -> dict[str, Any]:
    """Run once, and add the resources that the nodes on this machine used."""
    before = [_cpu_seconds(pid) for pid in pids]
    begun = time.monotonic()
    run = _quorate.BenchRun(endpoints, options)
    try:
        with tracker(bar, _STEPS, show=show, counted=False) as advance:
            shown = 0
            while (row := run.wait(_LOOK)) is None:
                steps = int(run.progress * _STEPS)
                advance(steps - shown)
                shown = steps
    finally:
        run.stop()
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
