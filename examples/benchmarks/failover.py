"""How long writes pause when a leader is killed.

Puts a value every millisecond into a consensus keyspace of three nodes, kills the leader with SIGKILL (or stops it with
SIGSTOP), and prints the longest gap between two successful writes of each round, then median and maximum. The client
retries automatically; a late write counts at the time of its success.

    python failover.py [ROUNDS] [kill|pause]
"""

import asyncio
import itertools
import statistics
import sys
import time

import quorate.aio

CADENCE = 0.001
BEFORE = 0.5
AFTER = 1.5


async def gap(how: str) -> float:
    """Start a cluster, stop its leader, and return the longest gap between two successes, in seconds."""
    async with quorate.aio.Cluster(nodes=3) as cluster:
        keyspace = await cluster.keyspace("agreed", mode="consensus", replicas=3)
        leader = (await keyspace.put("k", "0")).leader
        successes: list[float] = []

        async def put(number: int) -> None:
            await keyspace.put(f"k{number % 100}", str(number), timeout=5.0)
            successes.append(time.perf_counter())

        tasks = []
        begun = time.perf_counter()
        broken = False
        for number in itertools.count():
            now = time.perf_counter() - begun
            if now >= BEFORE + AFTER:
                break
            if now >= BEFORE and not broken:
                broken = True
                node = cluster[leader]
                await (node.kill(wait=False) if how == "kill" else node.pause())
            tasks.append(asyncio.create_task(put(number)))
            await asyncio.sleep(max(0.0, begun + (number + 1) * CADENCE - time.perf_counter()))
        await asyncio.gather(*tasks)
        if how == "pause":
            await cluster[leader].resume()
        return max(later - earlier for earlier, later in itertools.pairwise(sorted(successes)))


def main() -> None:
    """Measure all rounds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    how = sys.argv[2] if len(sys.argv) > 2 else "kill"
    gaps = []
    for number in range(rounds):
        gaps.append(asyncio.run(gap(how)) * 1000)
        print(f"round {number + 1}: {gaps[-1]:.1f} ms", flush=True)
    print(f"gap after {how}: median {statistics.median(gaps):.1f} ms, at most {max(gaps):.1f} ms")


if __name__ == "__main__":
    main()
