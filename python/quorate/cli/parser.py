"""The commands and their arguments."""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from typing import TYPE_CHECKING, Any, NoReturn

from quorate.cli.workloads import PRESETS, preset_lines
from quorate.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["build"]

_EPILOG = """\
Settings come from arguments, then QUORATE_* variables (QUORATE_ENDPOINTS, QUORATE_TIMEOUT, ...), then a TOML file
(--config, QUORATE_CONFIG or ./quorate.toml). Exit status: 0 done, 1 the operation failed, 2 wrong usage.
"""

_OPEN_LOOP = """\
With --rate, operations start on a schedule, not when the last one has ended,
and the latency of each counts from its scheduled start. An operation that
cannot start because --concurrency are in flight waits, and its wait counts.
In a closed loop a cluster that stalls delays the very operations that would
show it ("coordinated omission": see Gil Tene's wrk2 and HdrHistogram)."""


def _late(target: str) -> Callable[..., int]:
    """Name a command's function; its module is imported when it runs."""
    module, _, name = target.partition(":")

    def run(*arguments: Any) -> int:
        code: int = getattr(importlib.import_module(f"quorate.cli.{module}"), name)(*arguments)
        return code

    return run


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage as an error like any other, so that ``--json`` prints it as one."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise InvalidArgument(f"{message}; see `{self.prog} --help`")


class _Commands:
    """Adds commands with what all of them take."""

    def __init__(self, subparsers: Any) -> None:
        self._subparsers = subparsers

    def add(self, name: str, target: str, summary: str, *, connects: bool = False) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self._subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=_EPILOG
        )
        parser.set_defaults(run=_late(target))
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument("--config", metavar="FILE", help="TOML file with settings")
        if connects:
            parser.add_argument(
                "-e", "--endpoints", metavar="HOST:PORT,...", help="nodes to connect to (127.0.0.1:7400)"
            )
            parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for each operation (5)")
            parser.add_argument("--secret", help="the cluster's secret; better given as QUORATE_SECRET")
        return parser


def build() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    from quorate._quorate import __version__

    parser = _Parser(
        prog="quorate",
        description="A real replicated storage cluster to start, break, watch and judge.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"quorate {__version__}")
    commands = _Commands(parser.add_subparsers(dest="command", metavar="COMMAND", required=True))
    _clusters(commands)
    _data(commands)
    _observation(commands)
    _faults(commands)
    _bench(commands)
    return parser


def _clusters(commands: _Commands) -> None:
    demo = commands.add("demo", "demo:demo", "five nodes, a text, a failure and a recovery in some seconds")
    demo.add_argument(
        "file", nargs="?", metavar="FILE", help="the text to load (one of Python's own by default)"
    )

    up = commands.add("up", "clusters:up", "run a cluster on this machine until Ctrl-C")
    up.add_argument("--nodes", type=int, metavar="N", help="how many nodes (3)")
    up.add_argument(
        "--port", type=int, help="first port, ten for each node (7400); 0 takes any that are free"
    )
    _allow_faults(up, "let `quorate fault` break links (it may, unless QUORATE_ALLOW_FAULTS=false)")
    up.add_argument("--data", metavar="DIR", help="keep the data there (a temporary directory by default)")
    _shape(up)
    _timing(up)

    node = commands.add("node", "clusters:node", "run one node until SIGTERM or SIGINT")
    node.add_argument("--id", metavar="n1", help="which node it is (n1)")
    node.add_argument("--data", metavar="DIR", help="its data directory; required")
    node.add_argument(
        "--cluster", metavar="NAME", help="the cluster's name, the same on every node (quorate)"
    )
    node.add_argument("--listen", metavar="HOST:PORT", help="for clients (127.0.0.1:7400)")
    node.add_argument("--peer-listen", metavar="HOST:PORT", help="for the other nodes (the next port)")
    node.add_argument("--http-listen", metavar="HOST:PORT", help="for /metrics (the port after that)")
    node.add_argument(
        "--members",
        metavar="n1=HOST:CLIENT:PEER:HTTP,...",
        help="all nodes with their ports, the same list on every node (this node alone by default)",
    )
    _shape(node)
    _timing(node)
    node.add_argument("--secret", help="what peers and clients must know; better given as QUORATE_SECRET")
    node.add_argument(
        "--insecure", action="store_const", const=True, help="listen beyond loopback without a secret"
    )
    _allow_faults(node, "let clients break the links to other nodes; for laboratories")
    node.add_argument("--heartbeat-ms", type=int, metavar="MS", help="between heartbeats on an idle link")
    node.add_argument("--idle-ms", type=int, metavar="MS", help="of silence until a link counts as broken")
    node.add_argument("--map-size-bytes", type=int, metavar="BYTES", help="how far the store may grow")
    node.add_argument("--log-file", metavar="FILE", help="append the log there (stderr by default)")
    node.add_argument("--log-level", metavar="LEVEL", help="error, warn, info, debug or trace (info)")


def _allow_faults(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("--allow-faults", action=argparse.BooleanOptionalAction, default=None, help=summary)


def _shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vnodes", type=int, metavar="N", help="tokens per node (150)")
    parser.add_argument("--hash", choices=("murmur3", "md5", "xxh3"), help="how keys become tokens (murmur3)")


def _timing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--raft-timing",
        choices=("default", "conservative", "aggressive"),
        help="how soon another leader is elected (default)",
    )


def _data(commands: _Commands) -> None:
    keyspace = commands.add(
        "keyspace", "data:keyspace", "create, alter, list or drop keyspaces", connects=True
    )
    keyspace.add_argument("action", choices=("create", "alter", "list", "drop"))
    keyspace.add_argument("name", nargs="?", help="of the keyspace to create, alter or drop")
    keyspace.add_argument("--mode", choices=("quorum", "consensus"), help="how it replicates (quorum)")
    keyspace.add_argument("--replicas", type=int, metavar="N", help="how many nodes store each key (3)")
    keyspace.add_argument("--read", metavar="LEVEL", help="level of reads that name none (QUORUM)")
    keyspace.add_argument("--write", metavar="LEVEL", help="level of writes that name none (QUORUM)")
    keyspace.add_argument(
        "--read-repair", choices=("off", "async"), help="what a read does about stale replicas"
    )
    keyspace.add_argument("--shards", type=int, metavar="N", help="with --mode consensus: Raft groups (1)")
    keyspace.add_argument(
        "--snapshot-every",
        type=int,
        metavar="N",
        help="with --mode consensus: entries after which a group's log is compacted (10000)",
    )

    put = commands.add("put", "data:put", "write a value", connects=True)
    _operation(put, "key")
    put.add_argument("value", help="the value; - reads it from standard input")
    put.add_argument("--context", metavar="BASE64", help="what the writer has seen, as get --json printed it")
    _condition(put)
    put.add_argument("--if-absent", action="store_true", help="in mode consensus: only if the key is absent")
    put.add_argument("--trace", action="store_true", help="show what every process did for it")

    get = commands.add("get", "data:get", "read a key", connects=True)
    _operation(get, "key")
    get.add_argument("--node", metavar="n1", help="ask this node and no other")
    get.add_argument("--raw", action="store_true", help="print the value alone, byte for byte")
    get.add_argument("--trace", action="store_true", help="show what every process did for it")

    delete = commands.add("delete", "data:delete", "delete a key", connects=True)
    _operation(delete, "key")
    delete.add_argument("--context", metavar="BASE64", help="what the writer has seen")
    _condition(delete)
    delete.add_argument("--trace", action="store_true", help="show what every process did for it")

    scan = commands.add("scan", "data:scan", "list keys and values in key order", connects=True)
    _operation(scan)
    scan.add_argument("--start", help="the first key")
    scan.add_argument("--end", help="the first key that is too far")
    scan.add_argument("--prefix", help="only keys that begin with this")
    scan.add_argument("--limit", type=int, metavar="N", help="at most this many")

    append = commands.add(
        "append", "data:append", "add an entry to a consensus keyspace's log", connects=True
    )
    append.add_argument("keyspace")
    append.add_argument("data", help="what it says; - reads it from standard input")
    append.add_argument(
        "--source", default="", help="where it comes from; entries of one source are in one order"
    )
    append.add_argument("--trace", action="store_true", help="show what every process did for it")

    entries = commands.add("entries", "data:entries", "list the entries that were appended", connects=True)
    _operation(entries)
    entries.add_argument("--after", type=int, default=0, metavar="ID", help="only entries with greater ids")
    entries.add_argument("--source", help="only entries from there")
    entries.add_argument("--limit", type=int, metavar="N", help="at most this many")


def _condition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--if-version", type=int, metavar="N", help="in mode consensus: only if this is the key's version"
    )


def _operation(parser: argparse.ArgumentParser, *positional: str) -> None:
    parser.add_argument("keyspace")
    for name in positional:
        parser.add_argument(name)
    parser.add_argument(
        "-c",
        "--consistency",
        metavar="LEVEL",
        help="ONE, TWO, THREE, QUORUM, ALL or a number of replicas; in mode consensus LINEARIZABLE or STALE",
    )


def _observation(commands: _Commands) -> None:
    status = commands.add("status", "observe:status", "how the nodes are and whom they see", connects=True)
    status.add_argument("keyspace", nargs="?", help="judge whether this keyspace can serve")
    commands.add("topology", "observe:topology", "who the members are", connects=True)
    groups = commands.add(
        "groups", "observe:groups", "what each node claims about its Raft groups", connects=True
    )
    groups.add_argument("name", nargs="?", help="only control, or the groups of this keyspace")
    leader = commands.add("leader", "observe:leader", "who leads the control plane or a shard", connects=True)
    leader.add_argument("--keyspace", help="a keyspace of consensus mode (the control plane by default)")
    leader.add_argument("--key", help="the shard that this key is in")
    leader.add_argument("--shard", type=int, metavar="N", help="the shard of this number (0)")
    ring = commands.add(
        "ring", "observe:ring", "how evenly a ring is divided, on a cluster or computed here", connects=True
    )
    ring.add_argument(
        "--nodes", type=int, metavar="N", help="compute the ring of so many nodes, without a cluster"
    )
    ring.add_argument("--replicas", type=int, metavar="N", help="copies of each key (3)")
    ring.add_argument("--tokens", action="store_true", help="list the tokens and their owners")
    _shape(ring)
    distribution = commands.add(
        "distribution", "observe:distribution", "how evenly a keyspace is spread", connects=True
    )
    distribution.add_argument("keyspace", nargs="?")
    nodes = commands.add("nodes-for-key", "observe:nodes_for_key", "which nodes store a key", connects=True)
    nodes.add_argument("keyspace")
    nodes.add_argument("key")
    events = commands.add("events", "observe:events", "what happened, on all nodes", connects=True)
    events.add_argument("--name", metavar="EVENT", help="only events of this name, for example PeerDown")
    events.add_argument(
        "--group",
        metavar="NAME",
        help="only events of control, of a keyspace's groups, or of one, as in accounts/0",
    )
    metrics = commands.add("metrics", "observe:metrics", "the metrics of all nodes", connects=True)
    metrics.add_argument("name", nargs="?", help="only this metric")
    trace = commands.add("trace", "observe:trace", "draw the spans of a trace", connects=True)
    trace.add_argument("trace_id", metavar="TRACE_ID")


def _faults(commands: _Commands) -> None:
    fault = commands.add("fault", "faults:fault", "break links between nodes, and heal them", connects=True)
    fault.add_argument("action", choices=("partition", "isolate", "slow", "lossy", "heal", "list"))
    fault.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="groups of nodes, as in n1,n2 n3; for heal the ids of faults (all by default)",
    )
    fault.add_argument("--delay", type=float, metavar="SECONDS", help="slow: how late everything is")
    fault.add_argument("--jitter", type=float, metavar="SECONDS", help="slow: how much later still, at most")
    fault.add_argument("--percent", type=float, metavar="N", help="lossy: how many of a hundred are lost")
    fault.add_argument("--one-way", action="store_true", help="only what the first group sends to the second")


def _bench(commands: _Commands) -> None:
    bench = commands.add("bench", "bench:bench", "measure operations per second and latency", connects=True)
    bench.formatter_class = argparse.RawDescriptionHelpFormatter
    bench.epilog = textwrap.fill(_EPILOG.strip(), 78)
    bench.add_argument(
        "--nodes", type=int, metavar="N", help="start so many nodes here (3, unless --endpoints is given)"
    )
    bench.add_argument("--operations", metavar="OP,...", help="load, write, read, mixed, append (write,read)")
    bench.add_argument("--no-load", action="store_true", help="do not write all keys before anything is read")
    bench.add_argument(
        "--read-percent", type=int, metavar="N", help="of a hundred mixed operations, how many read (50)"
    )
    bench.add_argument(
        "--concurrency", metavar="N,...", help="operations in flight (64); with --rate, at most"
    )
    bench.add_argument("--duration", type=float, default=5.0, metavar="SECONDS", help="of each run (5)")
    bench.add_argument("--warmup", type=float, default=1.0, metavar="SECONDS", help="before each run (1)")
    bench.add_argument("--value-size", type=int, metavar="BYTES", help="of each value (100)")
    bench.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="keys of each operation (1): one request of one shard in mode consensus, else N requests together",
    )
    bench.add_argument(
        "--keys", type=int, default=10_000, metavar="N", help="how many keys there are (10000)"
    )
    bench.add_argument(
        "--connections", type=int, default=1, metavar="N", help="clients to spread them over (1)"
    )
    bench.add_argument(
        "--replicas", type=int, metavar="N", help="copies of each key (3, or as many as there are nodes)"
    )
    bench.add_argument(
        "-c",
        "--consistency",
        metavar="LEVEL,...",
        help="levels to measure (QUORUM); in mode consensus of reads (LINEARIZABLE)",
    )
    bench.add_argument("--mode", choices=("quorum", "consensus"), help="of the keyspace (quorum)")
    bench.add_argument("--shards", type=int, metavar="N", help="in mode consensus: Raft groups (1)")
    bench.add_argument(
        "--keyspace", help="where to write (bench, or bench-consensus; for preset A bench-a, and so on)"
    )
    bench.add_argument(
        "--keep", action="store_true", help="do not drop the keyspace at the end if it was created for this"
    )
    open_loop = bench.add_argument_group("open loop", _OPEN_LOOP)
    open_loop.add_argument("--rate", metavar="N,...", help="operations per second to start, in all")
    open_loop.add_argument(
        "--arrivals",
        choices=("even", "poisson"),
        help="spacing of the starts: even (default), or at random as of many independent users",
    )
    presets = bench.add_argument_group(
        "presets", f"{preset_lines()}\n\nWhat is given as an option overrides the preset's."
    )
    presets.add_argument("--preset", type=str.upper, choices=tuple(PRESETS), help="measure this load")
