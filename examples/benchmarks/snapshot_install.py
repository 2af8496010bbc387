"""The effect of a large snapshot on a group while one of its members installs it.

Fills a consensus keyspace of three nodes while one of its members is down, restarts that member, and measures while it
installs a snapshot: the latency of concurrent writes, and the number of elections. Or kills the leader, while it sends
the snapshot or while the member loads the rows, and measures the election: of the two remaining members, the one that
installs the snapshot must vote.

    python snapshot_install.py [MEGABYTES] [watch|kill-sending|kill-loading]
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import quorate
from quorate import Cluster, ConsensusKeyspace

VALUE = b"x" * (1 << 20)
PATIENCE = 300.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"condition not met within {PATIENCE:.0f} s")
        time.sleep(0.01)


def events(cluster: Cluster, name: str) -> list[quorate.Event]:
    """Find the events of one kind of the data keyspace's group."""
    return [event for event in cluster.events() if event.name == name and event.detail.get("group") != 1]


def fill(keyspace: ConsensusKeyspace, megabytes: int) -> None:
    """Write values of a megabyte each."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: keyspace.put(f"big{number:05}", VALUE, timeout=30), range(megabytes)))


def installed(cluster: Cluster, node: str) -> bool:
    """Check whether a node has installed a snapshot."""
    return any(event.node == node for event in events(cluster, "SnapshotInstalled"))


def writes(keyspace: ConsensusKeyspace) -> Iterator[float]:
    """Put small values endlessly; yields the latency of each, in seconds."""
    for number in itertools.count():
        begun = time.perf_counter()
        keyspace.put(f"small{number % 100}", str(number), timeout=10)
        yield time.perf_counter() - begun


def prepare(cluster: Cluster, megabytes: int) -> tuple[ConsensusKeyspace, str, str]:
    """Create a keyspace and stop a member that lacks most of it; returns keyspace, leader and that member."""
    keyspace = cluster.keyspace("big", mode="consensus", replicas=3, snapshot_every=20)
    assert isinstance(keyspace, ConsensusKeyspace)
    leader = keyspace.put("first", "1").leader
    behind = next(node.name for node in cluster if node.name != leader)
    cluster[behind].kill()
    begun = time.monotonic()
    fill(keyspace, megabytes)
    print(f"{megabytes} MB written in {time.monotonic() - begun:.1f} s while {behind} is down", flush=True)
    return keyspace, keyspace.put("last", "1").leader, behind


def watch(cluster: Cluster, megabytes: int) -> None:
    """Write while the member installs its snapshot."""
    keyspace, _, behind = prepare(cluster, megabytes)
    before = len(events(cluster, "ElectionStarted"))
    alone = sorted(itertools.islice(writes(keyspace), 500))
    begun = time.monotonic()
    cluster[behind].restart(wait=False)
    took: list[float] = []
    for latency in writes(keyspace):
        took.append(latency)
        if len(took) % 50 == 0 and installed(cluster, behind):
            break
        if time.monotonic() - begun > PATIENCE:
            raise TimeoutError("no snapshot was installed")
    print(f"the snapshot was installed {time.monotonic() - begun:.1f} s after the member's start")
    until(lambda: keyspace.get("last", consistency="stale", node=behind).found)
    print(f"its rows were readable {time.monotonic() - begun:.1f} s after the member's start")
    took.sort()
    for when, latencies in (("before", alone), ("meanwhile", took)):
        print(
            f"writes {when}: median {statistics.median(latencies) * 1e3:.1f} ms,"
            f" p99 {latencies[len(latencies) * 99 // 100] * 1e3:.1f} ms, at most {latencies[-1] * 1e3:.1f} ms"
            f" ({len(latencies)} of them)"
        )
    print(f"elections meanwhile: {len(events(cluster, 'ElectionStarted')) - before}")


def kill(cluster: Cluster, megabytes: int, *, loading: bool) -> None:
    """Kill the leader meanwhile: the two remaining members must elect one of them."""
    keyspace, leader, behind = prepare(cluster, megabytes)
    cluster[behind].restart(wait=False)
    if loading:
        until(lambda: installed(cluster, behind))
    else:
        until(lambda: any(event.node == leader for event in events(cluster, "SnapshotTaken")))
        assert not installed(cluster, behind), "the snapshot is too small: give more megabytes"
    cluster[leader].kill(wait=False)
    begun = time.monotonic()
    keyspace.put("after", "1", timeout=PATIENCE)
    print(
        f"the first write after the kill took {time.monotonic() - begun:.2f} s: the member had to catch up first"
    )
    assert installed(cluster, behind), "it caught up from the log: give more megabytes"
    started = [event for event in events(cluster, "ElectionStarted") if event.node != leader]
    elected = [event for event in events(cluster, "LeaderElected") if event.node != leader]
    vote = (elected[-1].time - started[-1].time).total_seconds()
    print(f"from the start of the election to the new leader: {vote * 1e3:.1f} ms, {len(started)} elections")


def main() -> None:
    """Run one measurement."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    how = sys.argv[2] if len(sys.argv) > 2 else "watch"
    with Cluster(nodes=3) as cluster:
        if how == "watch":
            watch(cluster, megabytes)
        else:
            kill(cluster, megabytes, loading=how == "kill-loading")


if __name__ == "__main__":
    main()
