"""What the Python client costs: its operations beside those of the load generator, in one sitting.

Starts three nodes, and measures the public Python client in three ways: one call after the other, 64 tasks of asyncio,
and batches (`get_many`, `put_many`). Each measurement alternates with one by `quorate bench`, whose loop is in Rust and
speaks the same protocol: with as many operations in flight, on the same keys of the same keyspace, in a process of its
own. So the ratio Python/bench is the share of what the cluster can do at that concurrency that a Python program gets;
the rest is what the interpreter, the conversions and the event loop take. Batches count keys: for the load
generator a batch is one operation on as many keys (`--batch`), one batch after the other.

With `--redis HOST:PORT`, redis-py does the same against that server, in turn: GET and SET one after the other and from
64 tasks, MGET and MSET for batches. The ratio Python/redis compares two Python clients rather than two servers: a Redis
server alone replicates nothing, and syncs as it is configured to.

Ratios are of neighbouring runs, whose order changes from round to round; the table has their medians.

    python python_client.py --rounds 5 --seconds 2
    python python_client.py --only "64 tasks" --redis 127.0.0.1:6379 --json
"""

import argparse
import asyncio
import importlib
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import quorate
import quorate.aio

KEYS = 10_000
VALUE = "v" * 100
TASKS = 64
BATCHES = (64, 512)
WARMUP = 0.2


@dataclass(frozen=True)
class Case:
    """One kind of operation, done in one way."""

    operation: str
    level: str
    tasks: int = 0
    batch: int = 1

    @property
    def consensus(self) -> bool:
        """Whether it is one of the consensus keyspace."""
        return self.level in ("LINEARIZABLE", "STALE", "consensus")

    @property
    def way(self) -> str:
        """How the operations follow each other."""
        if self.batch > 1:
            return f"batch {self.batch}"
        return f"{self.tasks} tasks" if self.tasks else "serial"

    @property
    def in_flight(self) -> int:
        """How many operations the load generator has in flight."""
        return self.tasks or 1

    def __str__(self) -> str:
        return f"{self.operation} at {self.level}, {self.way}"

    def options(self) -> dict[str, Any]:
        """Return the options of the call; puts of a consensus keyspace have no level."""
        return {} if self.level == "consensus" else {"consistency": self.level}


def cases() -> Iterator[Case]:
    """Everything that is measured, in order."""
    levels = [("get", "ONE"), ("get", "QUORUM"), ("get", "STALE")]
    levels += [("put", "ONE"), ("put", "QUORUM"), ("put", "consensus")]
    for tasks in (0, TASKS):
        yield from (Case(operation, level, tasks) for operation, level in levels)
    several = [("get_many", "QUORUM"), ("get_many", "LINEARIZABLE"), ("put_many", "QUORUM")]
    several += [("put_many", "consensus")]
    for batch in BATCHES:
        yield from (Case(operation, level, batch=batch) for operation, level in several)


def keys() -> list[str]:
    """All keys, named as the load generator names them, in random order."""
    named = [f"k{number:08}" for number in range(KEYS)]
    random.shuffle(named)
    return named


def per_second(act: Callable[[], object], seconds: float) -> float:
    """Repeat an action, and return how often per second."""
    warm = time.perf_counter() + WARMUP
    while time.perf_counter() < warm:
        act()
    begun = now = time.perf_counter()
    count = 0
    while now < begun + seconds:
        act()
        count += 1
        now = time.perf_counter()
    return count / (now - begun)


async def tasks_per_second(act: Callable[[], Awaitable[object]], tasks: int, seconds: float) -> float:
    """Repeat an action in a number of tasks; return how often per second in total."""
    counting, over = False, False
    count = 0

    async def work() -> None:
        nonlocal count
        while not over:
            await act()
            count += counting

    working = [asyncio.create_task(work()) for _ in range(tasks)]
    await asyncio.sleep(WARMUP)
    begun, counting = time.perf_counter(), True
    await asyncio.sleep(seconds)
    counting, taken = False, time.perf_counter() - begun
    over = True
    await asyncio.gather(*working)
    return count / taken


def acts(case: Case, get: Any, put: Any) -> Callable[[], Any]:
    """Make what is done again and again: a get or put of the next key, or of the next batch."""
    order = itertools.cycle(keys())
    several = case.batch > 1
    if several and case.operation.startswith("get"):
        return lambda: get(list(itertools.islice(order, case.batch)))
    if several:
        return lambda: put(dict.fromkeys(itertools.islice(order, case.batch), VALUE))
    if case.operation == "get":
        return lambda: get(next(order))
    return lambda: put(next(order), VALUE)


class Python:
    """The client that is measured."""

    def __init__(self, cluster: quorate.Cluster) -> None:
        self._endpoints = cluster.endpoints
        self._keyspaces: dict[bool, quorate.Keyspace | quorate.ConsensusKeyspace] = {
            False: cluster.keyspace("measured", mode="quorum", replicas=3),
            True: cluster.keyspace("agreed", mode="consensus", replicas=3, shards=1),
        }
        for keyspace in self._keyspaces.values():
            keyspace.put_many(dict.fromkeys(keys(), VALUE))

    def name(self, case: Case) -> str:
        """Name the keyspace of a case."""
        return self._keyspaces[case.consensus].name

    def measure(self, case: Case, seconds: float) -> float:
        """Return operations per second, or keys per second of batches."""
        if case.tasks:
            return asyncio.run(self._tasks(case, seconds))
        keyspace, options = self._keyspaces[case.consensus], case.options()
        get, put = (keyspace.get, keyspace.put) if case.batch == 1 else (keyspace.get_many, keyspace.put_many)
        act = acts(case, lambda key: get(key, **options), lambda *item: put(*item, **options))
        return per_second(act, seconds) * case.batch

    async def _tasks(self, case: Case, seconds: float) -> float:
        async with quorate.aio.connect(self._endpoints) as client:
            keyspace, options = await client.keyspace(self.name(case)), case.options()
            act = acts(
                case, lambda key: keyspace.get(key, **options), lambda *item: keyspace.put(*item, **options)
            )
            return await tasks_per_second(act, case.tasks, seconds)


class Bench:
    """The load generator."""

    def __init__(self, cluster: quorate.Cluster, python: Python) -> None:
        self._endpoints = cluster.endpoints
        self._name = python.name

    def measure(self, case: Case, seconds: float) -> float:
        """Return operations per second, or keys per second of batches."""
        command = [sys.executable, "-m", "quorate", "bench", "--json", "--endpoints", self._endpoints]
        command += ["--keyspace", self._name(case), "--mode", "consensus" if case.consensus else "quorum"]
        command += ["--operations", "read" if case.operation.startswith("get") else "write", "--no-load"]
        command += [f"--{name}={value}" for name, value in case.options().items()]
        command += ["--concurrency", str(case.in_flight), "--batch", str(case.batch)]
        command += ["--keys", str(KEYS), "--value-size", str(len(VALUE))]
        command += ["--duration", str(seconds), "--warmup", str(WARMUP)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        assert row["errors"] == row["misses"] == 0, row
        return float(row["ops_per_s"]) * case.batch


class Redis:
    """Another Python client, of another server."""

    def __init__(self, address: str) -> None:
        self._client = importlib.import_module("redis")
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._connection = self._client.Redis(self._host, self._port)
        self._connection.mset(dict.fromkeys(keys(), VALUE))

    @classmethod
    def find(cls, address: str | None) -> "Redis | None":
        """Connect, or say on stderr why redis is skipped."""
        if address is None:
            return None
        try:
            return cls(address)
        except ImportError:
            reason = "the package redis is not installed"
        except (OSError, ValueError) as error:
            reason = str(error)
        except Exception as error:
            # Those of redis-py have a tree of their own, which only the package can name.
            reason = f"no server at {address}: {error}"
        print(f"redis is skipped: {reason}", file=sys.stderr)
        return None

    def measure(self, case: Case, seconds: float) -> float:
        """Return operations per second, or keys per second of batches."""
        if case.tasks:
            return asyncio.run(self._tasks(case, seconds))
        single = case.batch == 1
        get = self._connection.get if single else self._connection.mget
        put = self._connection.set if single else self._connection.mset
        return per_second(acts(case, get, put), seconds) * case.batch

    async def _tasks(self, case: Case, seconds: float) -> float:
        client = self._client.asyncio.Redis(host=self._host, port=self._port)
        try:
            return await tasks_per_second(acts(case, client.get, client.set), case.tasks, seconds)
        finally:
            await client.aclose()


def compare(case: Case, measured: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
    """Measure in turn, round after round, and return the medians; ratios are of one round each."""
    found: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(rounds):
        order = list(measured) if number % 2 == 0 else list(reversed(measured))
        for name in order:
            found[name].append(measured[name].measure(case, seconds))
    row: dict[str, Any] = {"operation": case.operation, "level": case.level, "way": case.way}
    row |= {"tasks": case.tasks, "batch": case.batch, "rounds": rounds}
    row |= {f"{name}_per_s": round(statistics.median(rates), 1) for name, rates in found.items()}
    for name in list(measured)[1:]:
        ratios = [python / other for python, other in zip(found["python"], found[name], strict=True)]
        row[f"python_{name}"] = round(statistics.median(ratios), 3)
        row[f"python_{name}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return row


def show(rows: list[dict[str, Any]], others: list[str]) -> None:
    """Print the table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title="medians per second (in batches: keys)",
        title_justify="left",
    )
    for name in ("operation", "level", ""):
        table.add_column(name)
    for name in ("Python", *others, *(f"Python/\n{name}" for name in others)):
        table.add_column(name, justify="right")
    for row in rows:
        rates = (f"{row[f'{name}_per_s']:,.0f}" for name in ("python", *others))
        ratios = (f"[bold]{row[f'python_{name}']:.2f}[/]" for name in others)
        table.add_row(row["operation"], row["level"], row["way"], *rates, *ratios)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def main() -> None:
    """Measure all cases, or those that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each case (3)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (1)")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="only cases whose name contains this")
    parser.add_argument("--redis", metavar="HOST:PORT", help="measure redis-py too, against this server")
    parser.add_argument("--json", action="store_true", help="print a JSON line for each case")
    arguments = parser.parse_args()
    chosen = [case for case in cases() if arguments.only in str(case)]
    if not chosen:
        parser.error(f"--only {arguments.only!r}: the cases are {'; '.join(map(str, cases()))}")
    if arguments.rounds < 1 or not 0 < arguments.seconds < 3600:
        parser.error("--rounds: at least 1; --seconds: above 0")
    redis = Redis.find(arguments.redis)
    rows = []
    with quorate.Cluster(nodes=3) as cluster:
        python = Python(cluster)
        measured = {"python": python, "bench": Bench(cluster, python)}
        if redis is not None:
            measured["redis"] = redis
        for case in chosen:
            rows.append(compare(case, measured, arguments.rounds, arguments.seconds))
            if arguments.json:
                print(json.dumps(rows[-1]), flush=True)
    if not arguments.json:
        show(rows, list(measured)[1:])


if __name__ == "__main__":
    main()
