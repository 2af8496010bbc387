"""Workloads of ``quorate bench``: the presets, and explicit arguments, which override them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

__all__ = ["PRESETS", "Workload", "preset_lines", "resolve"]


@dataclass(frozen=True)
class Workload:
    """The options of a preset.

    Parameters
    ----------
    title : str
        The system that has this workload.
    mode : str
        Of the keyspace: ``"quorum"`` or ``"consensus"``.
    operations : str
        The operations, measured one after the other.
    consistency : str, optional
        The levels; QUORUM by default, or LINEARIZABLE.
    read_percent : int
        Percentage of reads among mixed operations.
    value_size : int
        Bytes of each value or entry.
    batch : int
        Keys or entries of each operation.
    concurrency : str
        Operations in flight.
    replicas, shards : int, optional
        Of the keyspace.
    nodes : int, optional
        Of a cluster that is started for it.
    """

    title: str = ""
    mode: str = "quorum"
    operations: str = "write,read"
    consistency: str | None = None
    read_percent: int = 50
    value_size: int = 100
    batch: int = 1
    concurrency: str = "64"
    replicas: int | None = None
    shards: int | None = None
    nodes: int | None = None

    def __str__(self) -> str:
        parts = [self.mode]
        if self.replicas is not None:
            elsewhere = f" on {self.nodes} nodes" if self.nodes not in (None, self.replicas) else ""
            parts.append(f"N={self.replicas}{elsewhere}")
        if self.consistency is not None:
            parts.append(self.consistency.replace(",", "/"))
        done = {"write": "writes", "read": "reads", "mixed": f"{self.read_percent} % reads"}
        done |= {"append": "appends", "load": "a load"}
        parts.append(" and ".join(done.get(name.strip(), name) for name in self.operations.split(",")))
        parts.append(f"{self.batch} x {self.value_size} B" if self.batch > 1 else f"{self.value_size} B")
        return ", ".join(parts)


PRESETS: Mapping[str, Workload] = {
    "A": Workload(
        "replicated store",
        operations="mixed",
        consistency="QUORUM",
        read_percent=67,
        value_size=1024,
        replicas=3,
        nodes=3,
    ),
    "B": Workload("log on Raft", mode="consensus", operations="append", replicas=3, shards=1, nodes=3),
    "C": Workload(
        "majority store",
        mode="consensus",
        operations="mixed",
        consistency="LINEARIZABLE,STALE",
        read_percent=80,
        batch=10,
        replicas=3,
        shards=1,
        nodes=3,
    ),
    "D": Workload(
        "quorum log",
        operations="mixed",
        consistency="ONE,QUORUM,ALL",
        value_size=200,
        replicas=5,
        nodes=5,
    ),
    "E": Workload(
        "log ingestion",
        operations="mixed",
        consistency="ONE",
        read_percent=10,
        value_size=200,
        batch=100,
        concurrency="8",
        replicas=3,
        nodes=5,
    ),
}
"""The workloads of five kinds of systems.

A: a store of replicated files; twice as many reads as writes. B: a log that a leader replicates. C: a key-value store
that writes batches, all or nothing, to a majority, and reads there or from any member's copy. D: a log whose readers
and writers choose the level of every operation. E: log records that come in batches, from many sources, and are spread
over nodes by a ring.
"""


def preset_lines() -> str:
    """Describe each preset on a line, for the help."""
    return "\n".join(f"{name} {preset.title}: {preset}" for name, preset in PRESETS.items())


def resolve(arguments: Namespace) -> Workload:
    """Take each option from the arguments, else from the preset, else from the defaults."""
    preset = PRESETS[arguments.preset] if arguments.preset else Workload()
    mode = arguments.mode or preset.mode
    if mode != preset.mode:
        # Levels and shards belong to a mode, and would be rejected in the other one.
        preset = replace(preset, mode=mode, consistency=None, shards=None)
    given = {
        name: getattr(arguments, name)
        for name in (
            "operations",
            "consistency",
            "read_percent",
            "value_size",
            "batch",
            "concurrency",
            "replicas",
            "shards",
        )
        if getattr(arguments, name) is not None
    }
    return replace(preset, **given)
