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
and latency is measured from the scheduled start. An operation that cannot
start because --concurrency are in flight waits, and its wait counts. In a
closed loop a cluster that stalls delays the very operations that would show
it ("coordinated omission": see Gil Tene's wrk2 and HdrHistogram)."""


def _late(target: str) -> Callable[..., int]:
    """Refer to a command's function; its module is imported when it runs."""
    module, _, name = target.partition(":")

    def run(*arguments: Any) -> int:
        code: int = getattr(importlib.import_module(f"quorate.cli.{module}"), name)(*arguments)
        return code

    return run


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage like any other error, so that ``--json`` prints it as one."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise InvalidArgument(f"{message}; see `{self.prog} --help`")


class _Commands:
    """Adds commands with their common arguments."""

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
            parser.add_argument(
                "--timeout", type=float, metavar="SECONDS", help="timeout of each operation (5)"
            )
            parser.add_argument("--secret", help="the cluster's secret; preferably set as QUORATE_SECRET")
        return parser


def build() -> argparse.ArgumentParser:
    """Create the parser of the command line."""
    from quorate._quorate import __version__

    parser = _Parser(
        prog="quorate",
        description="A real replicated storage cluster to start, break, observe and test.",
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
    demo = commands.add("demo", "demo:demo", "five nodes, a text, a failure and a recovery, in seconds")
    demo.add_argument(
        "file", nargs="?", metavar="FILE", help="text file to load (by default one of Python's own)"
    )

    up = commands.add("up", "clusters:up", "run a cluster on this machine until Ctrl-C")
    up.add_argument("--nodes", type=int, metavar="N", help="number of nodes (3)")
    up.add_argument("--port", type=int, help="first port, ten for each node (7400); 0 for any free ports")
    _allow_faults(up, "allow fault injection (the default, unless QUORATE_ALLOW_FAULTS=false)")
    up.add_argument(
        "--data", metavar="DIR", help="data directory, which is kept (a temporary one by default)"
    )
    _shape(up)
    _timing(up)

    node = commands.add("node", "clusters:node", "run one node until SIGTERM or SIGINT")
    node.add_argument("--id", metavar="n1", help="name of the node (n1)")
    node.add_argument("--data", metavar="DIR", help="data directory; required")
    node.add_argument(
        "--cluster", metavar="NAME", help="name of the cluster, the same on every node (quorate)"
    )
    node.add_argument("--listen", metavar="HOST:PORT", help="address for clients (127.0.0.1:7400)")
    node.add_argument(
        "--peer-listen", metavar="HOST:PORT", help="address for the other nodes (the next port)"
    )
    node.add_argument("--http-listen", metavar="HOST:PORT", help="address for /metrics (the port after that)")
    node.add_argument(
        "--members",
        metavar="n1=HOST:CLIENT:PEER:HTTP,...",
        help="all nodes with their ports, the same list on every node (only this node by default)",
    )
    _shape(node)
    _timing(node)
    node.add_argument(
        "--secret", help="secret that peers and clients must present; preferably set as QUORATE_SECRET"
    )
    node.add_argument(
        "--insecure", action="store_const", const=True, help="listen beyond loopback without a secret"
    )
    _allow_faults(node, "allow fault injection by clients (for testing)")
    node.add_argument("--heartbeat-ms", type=int, metavar="MS", help="interval of heartbeats on an idle link")
    node.add_argument(
        "--idle-ms", type=int, metavar="MS", help="idle timeout after which a link is considered down"
    )
    node.add_argument("--map-size-bytes", type=int, metavar="BYTES", help="maximum size of the LMDB map")
    node.add_argument("--log-file", metavar="FILE", help="file to append the log to (stderr by default)")
    node.add_argument(
        "--log-level", metavar="LEVEL", help="log level: error, warn, info, debug or trace (info)"
    )


def _allow_faults(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("--allow-faults", action=argparse.BooleanOptionalAction, default=None, help=summary)


def _shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vnodes", type=int, metavar="N", help="tokens per node (150)")
    parser.add_argument(
        "--hash", choices=("murmur3", "md5", "xxh3"), help="hash function from keys to tokens (murmur3)"
    )


def _timing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--raft-timing",
        choices=("default", "conservative", "aggressive"),
        help="election timeout of Raft groups (default)",
    )


def _data(commands: _Commands) -> None:
    keyspace = commands.add(
        "keyspace", "data:keyspace", "create, alter, list or drop keyspaces", connects=True
    )
    keyspace.add_argument("action", choices=("create", "alter", "list", "drop"))
    keyspace.add_argument("name", nargs="?", help="name of the keyspace to create, alter or drop")
    keyspace.add_argument("--mode", choices=("quorum", "consensus"), help="replication mode (quorum)")
    keyspace.add_argument("--replicas", type=int, metavar="N", help="number of nodes that store each key (3)")
    keyspace.add_argument("--read", metavar="LEVEL", help="default level of reads (QUORUM)")
    keyspace.add_argument("--write", metavar="LEVEL", help="default level of writes (QUORUM)")
    keyspace.add_argument(
        "--read-repair", choices=("off", "async"), help="whether reads repair stale replicas"
    )
    keyspace.add_argument(
        "--shards", type=int, metavar="N", help="with --mode consensus: number of Raft groups (1)"
    )
    keyspace.add_argument(
        "--snapshot-every",
        type=int,
        metavar="N",
        help="with --mode consensus: entries after which a group's log is compacted (10000)",
    )

    put = commands.add("put", "data:put", "write a value", connects=True)
    _operation(put, "key")
    put.add_argument("value", help="the value; - reads it from standard input")
    put.add_argument(
        "--context", metavar="BASE64", help="the versions that the write replaces, as printed by get --json"
    )
    _condition(put)
    put.add_argument("--if-absent", action="store_true", help="in mode consensus: only if the key is absent")
    put.add_argument("--trace", action="store_true", help="trace the operation in every process")

    get = commands.add("get", "data:get", "read a key", connects=True)
    _operation(get, "key")
    get.add_argument("--node", metavar="n1", help="send the request to this node only")
    get.add_argument("--raw", action="store_true", help="print only the value, byte for byte")
    get.add_argument("--trace", action="store_true", help="trace the operation in every process")

    delete = commands.add("delete", "data:delete", "delete a key", connects=True)
    _operation(delete, "key")
    delete.add_argument(
        "--context", metavar="BASE64", help="the versions that the delete removes, as printed by get --json"
    )
    _condition(delete)
    delete.add_argument("--trace", action="store_true", help="trace the operation in every process")

    scan = commands.add("scan", "data:scan", "list keys and values in key order", connects=True)
    _operation(scan)
    scan.add_argument("--start", help="inclusive lower bound")
    scan.add_argument("--end", help="exclusive upper bound")
    scan.add_argument("--prefix", help="only keys with this prefix")
    scan.add_argument("--limit", type=int, metavar="N", help="maximum number of entries")

    append = commands.add(
        "append", "data:append", "append an entry to a consensus keyspace's log", connects=True
    )
    append.add_argument("keyspace")
    append.add_argument("data", help="the content; - reads it from standard input")
    append.add_argument(
        "--source", default="", help="origin of the entry; entries of one source are totally ordered"
    )
    append.add_argument("--trace", action="store_true", help="trace the operation in every process")

    entries = commands.add(
        "entries", "data:entries", "list the entries of a consensus keyspace's log", connects=True
    )
    _operation(entries)
    entries.add_argument("--after", type=int, default=0, metavar="ID", help="only entries with greater ids")
    entries.add_argument("--source", help="only entries of this source")
    entries.add_argument("--limit", type=int, metavar="N", help="maximum number of entries")


def _condition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--if-version", type=int, metavar="N", help="in mode consensus: only if the key has this version"
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
    status = commands.add("status", "observe:status", "status of the nodes and their links", connects=True)
    status.add_argument("keyspace", nargs="?", help="check whether this keyspace is available")
    commands.add("topology", "observe:topology", "members of the cluster", connects=True)
    groups = commands.add(
        "groups", "observe:groups", "Raft groups, as each of their members reports them", connects=True
    )
    groups.add_argument("name", nargs="?", help="only control, or the groups of this keyspace")
    leader = commands.add(
        "leader", "observe:leader", "leader of the control plane or of a shard", connects=True
    )
    leader.add_argument("--keyspace", help="keyspace of mode consensus (the control plane by default)")
    leader.add_argument("--key", help="the shard of this key")
    leader.add_argument("--shard", type=int, metavar="N", help="number of the shard (0)")
    ring = commands.add(
        "ring", "observe:ring", "balance of a ring, of a cluster or computed here", connects=True
    )
    ring.add_argument(
        "--nodes", type=int, metavar="N", help="compute a ring of this many nodes, without a cluster"
    )
    ring.add_argument("--replicas", type=int, metavar="N", help="copies of each key (3)")
    ring.add_argument("--tokens", action="store_true", help="list the tokens and their owners")
    _shape(ring)
    distribution = commands.add(
        "distribution", "observe:distribution", "balance of a keyspace", connects=True
    )
    distribution.add_argument("keyspace", nargs="?")
    nodes = commands.add("nodes-for-key", "observe:nodes_for_key", "nodes that store a key", connects=True)
    nodes.add_argument("keyspace")
    nodes.add_argument("key")
    events = commands.add("events", "observe:events", "events of all nodes", connects=True)
    events.add_argument("--name", metavar="EVENT", help="only events of this name, for example PeerDown")
    events.add_argument(
        "--group",
        metavar="NAME",
        help="only events of control, of a keyspace's groups, or of one, as in accounts/0",
    )
    metrics = commands.add("metrics", "observe:metrics", "metrics of all nodes", connects=True)
    metrics.add_argument("name", nargs="?", help="only this metric")
    trace = commands.add("trace", "observe:trace", "draw the spans of a trace", connects=True)
    trace.add_argument("trace_id", metavar="TRACE_ID")


def _faults(commands: _Commands) -> None:
    fault = commands.add(
        "fault", "faults:fault", "inject faults into links between nodes, list and heal them", connects=True
    )
    fault.add_argument("action", choices=("partition", "isolate", "slow", "lossy", "heal", "list"))
    fault.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="groups of nodes, as in n1,n2 n3; for heal the ids of faults (all by default)",
    )
    fault.add_argument("--delay", type=float, metavar="SECONDS", help="slow: delay of all messages")
    fault.add_argument(
        "--jitter", type=float, metavar="SECONDS", help="slow: maximum random additional delay"
    )
    fault.add_argument("--percent", type=float, metavar="N", help="lossy: percentage of messages to drop")
    fault.add_argument(
        "--one-way", action="store_true", help="only messages from the first group to the second"
    )


def _bench(commands: _Commands) -> None:
    bench = commands.add("bench", "bench:bench", "measure operations per second and latency", connects=True)
    bench.formatter_class = argparse.RawDescriptionHelpFormatter
    bench.epilog = textwrap.fill(_EPILOG.strip(), 78)
    bench.add_argument(
        "--nodes", type=int, metavar="N", help="start this many nodes here (3, unless --endpoints is given)"
    )
    bench.add_argument("--operations", metavar="OP,...", help="load, write, read, mixed, append (write,read)")
    bench.add_argument("--no-load", action="store_true", help="do not write all keys before the first read")
    bench.add_argument(
        "--read-percent", type=int, metavar="N", help="percentage of reads among mixed operations (50)"
    )
    bench.add_argument(
        "--concurrency", metavar="N,...", help="operations in flight (64); with --rate, the maximum"
    )
    bench.add_argument(
        "--duration", type=float, default=5.0, metavar="SECONDS", help="duration of each run (5)"
    )
    bench.add_argument(
        "--warmup", type=float, default=1.0, metavar="SECONDS", help="warm-up before each run (1)"
    )
    bench.add_argument("--value-size", type=int, metavar="BYTES", help="size of each value (100)")
    bench.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="keys of each operation (1): one request of one shard in mode consensus, else N requests together",
    )
    bench.add_argument("--keys", type=int, default=10_000, metavar="N", help="number of keys (10000)")
    bench.add_argument(
        "--connections",
        type=int,
        default=1,
        metavar="N",
        help="number of clients that share the operations (1)",
    )
    bench.add_argument(
        "--replicas",
        type=int,
        metavar="N",
        help="copies of each key (3, or the number of nodes if that is smaller)",
    )
    bench.add_argument(
        "-c",
        "--consistency",
        metavar="LEVEL,...",
        help="levels to measure (QUORUM); in mode consensus, levels of reads (LINEARIZABLE)",
    )
    bench.add_argument("--mode", choices=("quorum", "consensus"), help="mode of the keyspace (quorum)")
    bench.add_argument("--shards", type=int, metavar="N", help="in mode consensus: number of Raft groups (1)")
    bench.add_argument(
        "--keyspace", help="keyspace to use (bench, or bench-consensus; for preset A bench-a, and so on)"
    )
    bench.add_argument(
        "--keep", action="store_true", help="keep a keyspace that was created for the benchmark"
    )
    open_loop = bench.add_argument_group("open loop", _OPEN_LOOP)
    open_loop.add_argument("--rate", metavar="N,...", help="operations per second to start, in total")
    open_loop.add_argument(
        "--arrivals",
        choices=("even", "poisson"),
        help="spacing of the starts: even (default), or random like those of many independent users",
    )
    presets = bench.add_argument_group("presets", f"{preset_lines()}\n\nOptions override the preset.")
    presets.add_argument("--preset", type=str.upper, choices=tuple(PRESETS), help="use this preset")
