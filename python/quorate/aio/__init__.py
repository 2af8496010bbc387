"""The asynchronous twin of `quorate`: the same names, operations to be awaited.

What is not an operation (levels, errors, reports) is the same object in both. Docstrings here say what differs; what
operations do, take and raise is written at their synchronous twins.

>>> import asyncio
>>> import quorate.aio
>>> async def first_light() -> str:
...     async with quorate.aio.Cluster(nodes=3) as cluster:
...         notes = await cluster.keyspace("notes", mode="quorum", replicas=3)
...         await notes.put("a", "first light")
...         return (await notes.get("a")).text
>>> asyncio.run(first_light())
'first light'
"""

from quorate.aio.cluster import Cluster, Node
from quorate.aio.connection import Connection, connect
from quorate.aio.consensus import ConsensusKeyspace
from quorate.aio.entries import Entry, WriteResult
from quorate.aio.injection import Fault
from quorate.aio.keyspace import Keyspace
from quorate.aio.records import Appended, Commit, ConsensusEntry

__all__ = [
    "Appended",
    "Cluster",
    "Commit",
    "Connection",
    "ConsensusEntry",
    "ConsensusKeyspace",
    "Entry",
    "Fault",
    "Keyspace",
    "Node",
    "WriteResult",
    "connect",
]
