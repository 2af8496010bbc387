"""Several writers increment one counter while its leader is killed: no increment is lost or counted twice."""

import threading

import quorate

INCREMENTS = 50


def count(counters: quorate.ConsensusKeyspace) -> None:
    """Increment the counter; on a conflict, read it and retry."""
    done = 0
    while done < INCREMENTS:
        entry = counters.get("visits")
        try:
            counters.put("visits", str(int(entry.text or 0) + 1), if_version=entry.version)
        except quorate.ConditionFailed:
            continue
        done += 1


def main() -> None:
    """Count with three writers and kill the leader meanwhile."""
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
        print(f"{len(writers)} writers counted {entry.text} visits; {entry.leader} leads now")
        print(counters.get("visits", consistency=quorate.STALE))


if __name__ == "__main__":
    main()
