"""What tracing costs an operation that is not sampled.

Runs the same load with and without a trace context that says "not sampled", alternating, and compares the CPU time of
all processes (getrusage of this one and of the nodes, which are its children) per operation. Prints the median of the
ratios. Usage: python telemetry_cost.py [PAIRS] [SECONDS]
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


def cpu_per_operation(trace: str, seconds: float) -> float:
    """CPU microseconds of all processes per write, start and stop of the cluster left out."""
    spent = {loaded: _run(trace, seconds if loaded else 0.001) for loaded in (False, True)}
    (idle, _), (busy, operations) = spent[False], spent[True]
    return (busy - idle) / operations * 1e6


def _run(trace: str, seconds: float) -> tuple[float, float]:
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
    return cpu_seconds() - before, report["ops_per_s"] * report["secs"]


def main(pairs: int, seconds: float, show: Callable[[str], None] = print) -> float:
    """Measure, and return the median of the ratios unsampled / off."""
    ratios = []
    for pair in range(pairs):
        order = ("off", "unsampled") if pair % 2 == 0 else ("unsampled", "off")
        cost = {trace: cpu_per_operation(trace, seconds) for trace in order}
        ratios.append(cost["unsampled"] / cost["off"])
        show(
            f"off {cost['off']:6.1f} us/op   unsampled {cost['unsampled']:6.1f} us/op   ratio {ratios[-1]:.3f}"
        )
    median = statistics.median(ratios)
    show(f"median of {pairs} ratios: {median:.3f}")
    return median


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else 10, float(arguments[1]) if arguments[1:] else 2.0)
