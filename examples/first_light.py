"""A cluster of three processes, a write, a failure, a read."""

import quorate
from quorate import ALL, ONE, QUORUM

with quorate.Cluster(nodes=3) as cluster:
    notes = cluster.keyspace("notes", mode="quorum", replicas=3)
    written = notes.put("greeting", "first light", consistency=QUORUM, trace=True)
    print(written)
    print(written.trace())

    cluster["n2"].kill()
    print(notes.get("greeting", consistency=QUORUM).text)
    print(notes.get("greeting", consistency=ONE))  # may miss a write at QUORUM
    try:
        notes.put("greeting", "too much to ask", consistency=ALL)
    except quorate.Unavailable as error:
        print(f"{error.alive} of {error.required} replicas alive: {error}")

    cluster["n2"].restart()
    print(cluster.status())
