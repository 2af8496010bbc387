"""A leader is cut off from the others: who leads then, who answers what, and what is left when the links are healed."""

import quorate
from quorate import STALE

with quorate.Cluster(nodes=5) as cluster:
    accounts = cluster.keyspace("accounts", mode="consensus", replicas=5)
    old = accounts.put("ada", "100").leader
    others = {node.name for node in cluster} - {old}

    with cluster.partition({old}, others) as fault:
        print(fault)
        written = accounts.put("ada", "90")  # a majority goes on: it has another leader after an election
        print(f"{old} led, {written.leader} leads now, in term {written.term}")
        try:
            print(accounts.get("ada", node=old, timeout=1.0))
        except quorate.QuorateError as error:  # it cannot know the newest value, and says so
            print(f"{old} does not answer a linearizable read: {error}")
        stale = accounts.get("ada", consistency=STALE, node=old)
        print(f"{old} has {stale.text}, which is not what was written last")
        print(cluster.faults())

    accounts.put("ada", "80")
    print(f"healed: {old} answers {accounts.get('ada', node=old).text}")
    print(cluster.groups().where("accounts"))
    print(cluster.events().where("LeaderElected"))
