"""Two concurrent writers, and a merge that keeps both values."""

import quorate
from quorate import ALL

with quorate.Cluster(nodes=3) as cluster:
    carts = cluster.keyspace("carts", mode="quorum", replicas=3)
    seen = carts.put("ada", "bread").context

    carts.put("ada", "bread, milk", context=seen)  # from the phone
    carts.put("ada", "bread, eggs", context=seen)  # from the laptop, which has not seen the milk

    cart = carts.get("ada", consistency=ALL)
    print("siblings:", [value.decode() for value in cart.siblings])

    items = sorted({item for value in cart.siblings for item in value.decode().split(", ")})
    carts.put("ada", ", ".join(items), context=cart.context)
    print("merged:", carts.get("ada", consistency=ALL).text)
