"""The cost of tracing for an operation that is not sampled.

Runs the same load with and without a trace context that says "not sampled" against one cluster, in the order off,
unsampled, unsampled, off, so that drift affects both alike. Compares the CPU time of all processes per operation:
getrusage of this process, which is the client, and the kernel's counters for each node. Prints the median of the
ratios; the aim is at most 1.02. The client does not send a context that is not sampled, so the real cost is one
decision in the client; the rest of the ratios is noise of the machine.

    python telemetry_cost.py [PAIRS] [SECONDS]
"""

import os
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import quorate
from quorate import _quorate

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(cluster: quorate.Cluster) -> float:
    """User and system time of this process and the cluster's nodes so far."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    seconds = own.ru_utime + own.ru_stime
    for node in cluster.nodes:
        # After the program's name, which is in parentheses: user and system time are fields 12 and 13.
        fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return seconds


def cost(cluster: quorate.Cluster, keyspace: int, trace: str, seconds: float) -> float:
    """Write for a number of seconds; return the CPU time of all processes per write, in microseconds."""
    options = {
        "keyspace": keyspace,
        "operation": "write",
        "concurrency": 64,
        "duration": seconds,
        "warmup": 0.0,
        "trace": trace,
    }
    before = cpu_seconds(cluster)
    report = _quorate.bench(cluster.endpoints.split(","), options).wait()
    used = cpu_seconds(cluster) - before
    assert not report["errors"], report
    return used / (report["ops_per_s"] * report["secs"]) * 1e6


def main(pairs: int, seconds: float, show: Callable[[str], None] = print) -> float:
    """Measure, and return the median of the ratios unsampled / off."""
    ratios = []
    with quorate.Cluster(nodes=3) as cluster:
        keyspace = cluster.keyspace("cost", replicas=3).info.id
        cost(cluster, keyspace, "off", seconds)
        for pair in range(pairs):
            order = ("off", "unsampled") if pair % 2 == 0 else ("unsampled", "off")
            found = {trace: cost(cluster, keyspace, trace, seconds) for trace in order}
            ratios.append(found["unsampled"] / found["off"])
            show(
                f"off {found['off']:6.1f} us/op   unsampled {found['unsampled']:6.1f} us/op   "
                f"ratio {ratios[-1]:.3f}"
            )
    median = statistics.median(ratios)
    show(f"median of {pairs} ratios: {median:.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")
    return median


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else 20, float(arguments[1]) if arguments[1:] else 3.0)
