"""A leader is partitioned from the other nodes: the new leader, the reads of each side, and the state after healing."""

import quorate
from quorate import STALE

with quorate.Cluster(nodes=5) as cluster:
    accounts = cluster.keyspace("accounts", mode="consensus", replicas=5)
    old = accounts.put("ada", "100").leader
    others = {node.name for node in cluster} - {old}

    with cluster.partition({old}, others) as fault:
        print(fault)
        written = accounts.put("ada", "90")  # the majority elects another leader
        print(f"{old} led, {written.leader} leads now, in term {written.term}")
        try:
            print(accounts.get("ada", node=old, timeout=1.0))
        except quorate.QuorateError as error:  # it cannot know the newest value
            print(f"linearizable read at {old}: {error}")
        stale = accounts.get("ada", consistency=STALE, node=old)
        print(f"stale read at {old}: {stale.text}, which is not the newest value")
        print(cluster.faults())

    accounts.put("ada", "80")
    print(f"healed: {old} returns {accounts.get('ada', node=old).text}")
    print(cluster.groups().where("accounts"))
    print(cluster.events().where("LeaderElected"))
