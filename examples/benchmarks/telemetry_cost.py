"""What tracing costs an operation that is not sampled.

Runs the same load with and without a trace context that says "not sampled", alternating, and compares the CPU time of
all processes (getrusage of this one and of the nodes, which are its children) per operation. What starting and stopping
the cluster costs is measured once per pair and taken off both. Prints the median of the ratios; the aim is at most
1.02. On a busy machine pairs scatter by far more than that. Usage: python telemetry_cost.py [PAIRS] [SECONDS]
"""

import json
import resource
import statistics
import sys
from collections.abc import Callable

import quorate
from quorate import _quorate


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(trace: str, seconds: float) -> tuple[float, float]:
    """Start a cluster, write for some seconds, stop it; returns the CPU seconds of all processes, and the writes."""
    before = cpu_seconds()
    with quorate.Cluster(nodes=3) as cluster:
        keyspace = cluster.keyspace("cost", replicas=3)
        options = {
            "keyspace": keyspace.info.id,
            "operation": "write",
            "concurrency": 64,
            "duration": seconds,
            "warmup": 0.0,
            "trace": trace,
        }
        report = json.loads(_quorate.bench(cluster.endpoints.split(","), json.dumps(options)))
        assert not report["errors"], report
    return cpu_seconds() - before, report["ops_per_s"] * report["secs"]


def main(pairs: int, seconds: float, show: Callable[[str], None] = print) -> float:
    """Measure, and return the median of the ratios unsampled / off."""
    ratios = []
    for pair in range(pairs):
        order = ("off", "unsampled") if pair % 2 == 0 else ("unsampled", "off")
        idle, _ = run("off", 0.001)
        cost = {}
        for trace in order:
            busy, operations = run(trace, seconds)
            cost[trace] = (busy - idle) / operations * 1e6
        ratios.append(cost["unsampled"] / cost["off"])
        show(
            f"off {cost['off']:6.1f} us/op   unsampled {cost['unsampled']:6.1f} us/op   ratio {ratios[-1]:.3f}"
        )
    median = statistics.median(ratios)
    show(f"median of {pairs} ratios: {median:.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")
    return median


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else 10, float(arguments[1]) if arguments[1:] else 3.0)
