"""Error messages for the command line.

The package's messages name parameters and calls, the command line has flags and commands. The messages are otherwise
the same, so they are translated here, in one place.
"""

from __future__ import annotations

import re
import shlex

__all__ = ["shell_words"]

_FLAGS = {
    "connections": "--connections",
    "allow_faults": "--allow-faults",
    "data_dir": "--data",
    "delay": "--delay",
    "duration": "--duration",
    "hash": "--hash",
    "if_version": "--if-version",
    "heartbeat_ms": "--heartbeat-ms",
    "idle_ms": "--idle-ms",
    "jitter": "--jitter",
    "limit": "--limit",
    "log_level": "--log-level",
    "mode": "--mode",
    "map_size_bytes": "--map-size-bytes",
    "nodes": "--nodes",
    "percent": "--percent",
    "port": "--port",
    "raft_timing": "--raft-timing",
    "read": "--read",
    "read_repair": "--read-repair",
    "replicas": "--replicas",
    "shards": "--shards",
    "snapshot_every": "--snapshot-every",
    "vnodes": "--vnodes",
    "warmup": "--warmup",
    "write": "--write",
}
_PHRASES = (
    (
        re.compile(r"create it with keyspace\('(.*?)', .*?\)"),
        lambda found: f"create it with `quorate keyspace create {shlex.quote(found[1])}`",
    ),
    (
        re.compile(r"read entry\.siblings, .* newest one\)"),
        "see them with --json, then put the merged value with --context",
    ),
    (re.compile(r"partition\(\{'n1'\}, .*?\)"), "`quorate fault partition n1 n2,n3`"),
    (re.compile(r"\bone_way=True\b"), "--one-way"),
    (re.compile(r"\bdata_dir(?=\b[^=])|\bdata_dir$"), "--data"),
    (re.compile(r"^consistency (?=['\d])"), "--consistency "),
    (re.compile(r"^timeout (?=[-\d])"), "--timeout "),
    (re.compile(r"^read_repair (?=')"), "--read-repair "),
    (re.compile(rf"\b({'|'.join(_FLAGS)})="), lambda found: f"{_FLAGS[found[1]]} "),
)


def shell_words(message: str) -> str:
    """Translate a message: flags instead of parameters, commands instead of calls."""
    for pattern, words in _PHRASES:
        message = pattern.sub(words, message)
    return message
