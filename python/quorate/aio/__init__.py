"""The asynchronous twin of `quorate`: the same names, with awaitable operations.

Levels, errors and reports are the same objects in both. The synchronous client is generated from this one: see
``python/generate_sync.py``. Examples in docstrings await at the top level, as ``python -m asyncio`` and notebooks do.

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

from quorate.aio.cluster import Cluster
from quorate.aio.connection import Connection, connect
from quorate.aio.consensus import ConsensusKeyspace
from quorate.aio.fault_api import Fault
from quorate.aio.keyspace import Keyspace
from quorate.aio.node import Node
from quorate.aio.results import Appended, Commit, ConsensusEntry, Entry, WriteResult

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
