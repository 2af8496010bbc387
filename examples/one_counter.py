"""Several writers, one counter, and a leader that dies meanwhile: nothing is counted twice, nothing is lost."""

import threading

import quorate

INCREMENTS = 50


def count(counters: quorate.ConsensusKeyspace) -> None:
    """Increment the counter, again and again; whoever was too slow reads it and tries once more."""
    done = 0
    while done < INCREMENTS:
        entry = counters.get("visits")
        try:
            counters.put("visits", str(int(entry.text or 0) + 1), if_version=entry.version)
        except quorate.ConditionFailed:
            continue
        done += 1


def main() -> None:
    """Count with three writers and kill the leader on the way."""
    with quorate.Cluster(nodes=3) as cluster:
        counters = cluster.keyspace("counters", mode="consensus", replicas=3)
        leader = counters.put("started", "yes").leader
        writers = [threading.Thread(target=count, args=(counters,)) for _ in range(3)]
        for writer in writers:
            writer.start()
        cluster[leader].kill()
        print(f"{leader} led and was killed")
        for writer in writers:
            writer.join()
        entry = counters.get("visits")
        print(f"{entry.text} visits were counted by {len(writers)} writers; {entry.leader} leads now")
        print(counters.get("visits", consistency=quorate.STALE))


if __name__ == "__main__":
    main()
