"""Whether a group notices that one of its members is given a large snapshot.

Fills a consensus keyspace of three nodes while one of its members is down, starts that member again, and watches while
it is given a snapshot: how long writes take that go on meanwhile, and whether anybody calls for an election. Or kills
the leader, while it sends the snapshot or while the member puts the rows in place, and tells how long the election
takes: of the two members that are left, the one that is being filled must vote.

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
    """Wait for a condition, not for ever."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come to that in time")
        time.sleep(0.01)


def events(cluster: Cluster, name: str) -> list[quorate.Event]:
    """Find the events of one kind that the data keyspace's group has had."""
    return [event for event in cluster.events() if event.name == name and event.detail.get("group") != 1]


def fill(keyspace: ConsensusKeyspace, megabytes: int) -> None:
    """Write values of a megabyte each."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: keyspace.put(f"big{number:05}", VALUE, timeout=30), range(megabytes)))


def installed(cluster: Cluster, node: str) -> bool:
    """Tell whether a node has put a snapshot in place."""
    return any(event.node == node for event in events(cluster, "SnapshotInstalled"))


def writes(keyspace: ConsensusKeyspace) -> Iterator[float]:
    """Put small values for ever; yields how long each took, in seconds."""
    for number in itertools.count():
        begun = time.perf_counter()
        keyspace.put(f"small{number % 100}", str(number), timeout=10)
        yield time.perf_counter() - begun


def prepare(cluster: Cluster, megabytes: int) -> tuple[ConsensusKeyspace, str, str]:
    """Make a keyspace and a member that lacks most of it; returns it, the leader and that member, which is down."""
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
    """Give the member its snapshot and go on writing."""
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
    print(f"its rows were served {time.monotonic() - begun:.1f} s after the member's start")
    took.sort()
    for when, latencies in (("before", alone), ("meanwhile", took)):
        print(
            f"writes {when}: median {statistics.median(latencies) * 1e3:.1f} ms,"
            f" p99 {latencies[len(latencies) * 99 // 100] * 1e3:.1f} ms, at most {latencies[-1] * 1e3:.1f} ms"
            f" ({len(latencies)} of them)"
        )
    print(f"elections meanwhile: {len(events(cluster, 'ElectionStarted')) - before}")


def kill(cluster: Cluster, megabytes: int, *, loading: bool) -> None:
    """Kill the leader in the middle of it: the two members that are left must elect one of them."""
    keyspace, leader, behind = prepare(cluster, megabytes)
    cluster[behind].restart(wait=False)
    if loading:
        until(lambda: installed(cluster, behind))
    else:
        until(lambda: any(event.node == leader for event in events(cluster, "SnapshotTaken")))
        assert not installed(cluster, behind), "it is too small: give more megabytes"
    cluster[leader].kill(wait=False)
    begun = time.monotonic()
    keyspace.put("after", "1", timeout=PATIENCE)
    print(
        f"the first write after the kill took {time.monotonic() - begun:.2f} s: the member had to be filled first"
    )
    assert installed(cluster, behind), "it got what it lacked from the log: give more megabytes"
    started = [event for event in events(cluster, "ElectionStarted") if event.node != leader]
    elected = [event for event in events(cluster, "LeaderElected") if event.node != leader]
    vote = (elected[-1].time - started[-1].time).total_seconds()
    print(f"from the call for votes to the new leader: {vote * 1e3:.1f} ms, {len(started)} calls in all")


def main() -> None:
    """Measure."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    how = sys.argv[2] if len(sys.argv) > 2 else "watch"
    with Cluster(nodes=3) as cluster:
        if how == "watch":
            watch(cluster, megabytes)
        else:
            kill(cluster, megabytes, loading=how == "kill-loading")


if __name__ == "__main__":
    main()
