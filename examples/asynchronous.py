"""A thousand writes at once with asyncio."""

import asyncio

from quorate import aio


async def main() -> None:
    """Write and read concurrently."""
    async with aio.Cluster(nodes=3) as cluster:
        numbers = await cluster.keyspace("numbers", mode="quorum", replicas=3)
        await asyncio.gather(*(numbers.put(f"n{i:04d}", str(i * i)) for i in range(1000)))
        found = [entry.text async for _, entry in numbers.scan("n0010", "n0015")]
        print(found)


asyncio.run(main())
