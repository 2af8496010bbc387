"""The asynchronous twin."""

import asyncio
from pathlib import Path

import pytest

import quorate
from quorate import ALL, QUORUM, aio


async def test_all_operations_of_the_synchronous_client(shared):
    async with aio.connect(shared.endpoints) as connection:
        keyspace = await connection.keyspace("aio", mode="quorum", replicas=3)
        written = await keyspace.put("a", "1", consistency=QUORUM, trace=True)
        assert isinstance(written, aio.WriteResult)
        assert len(await written.trace()) > 1
        entry = await keyspace.get("a", consistency=ALL)
        assert isinstance(entry, aio.Entry)
        assert entry.text == "1"
        assert entry.context == written.context
        await keyspace.put("a", "2", context=entry.context)
        await keyspace.delete("a")
        assert not (await keyspace.get("a")).found
        await keyspace.put_many({f"k{number}": str(number) for number in range(100)})
        entries = await keyspace.get_many(["k1", "k2"])
        assert [entry.text for entry in entries.values()] == ["1", "2"]
        keys = [key async for key, _ in keyspace.scan(prefix="k1", page_size=3)]
        assert keys == sorted(keys)
        assert len(keys) == 11
        assert [key async for key, _ in keyspace.scan(prefix="k1", limit=4, page_size=3)] == keys[:4]
        assert len(await keyspace.nodes_for_key("a")) == 3
        assert (await connection.keyspace("aio")).info in await connection.keyspaces()
        assert len(await connection.topology()) == 3
        assert (await connection.ring()).nodes == ("n1", "n2", "n3")
        assert (await connection.status()).connected
        assert (await connection.health("aio")).has_quorum
        assert len(await connection.metrics()) > 0
        assert len(await connection.events()) > 0
        assert (await connection.distribution("aio")).replicas == 3
    with pytest.raises(quorate.Closed):
        await keyspace.get("a")


async def test_many_operations_at_once(shared):
    connection = await aio.connect(shared.endpoints)
    keyspace = await connection.keyspace("many", mode="quorum", replicas=3)
    await asyncio.gather(*(keyspace.put(f"k{number}", str(number)) for number in range(300)))
    entries = await asyncio.gather(*(keyspace.get(f"k{number}") for number in range(300)))
    assert [entry.text for entry in entries] == [str(number) for number in range(300)]
    await connection.close()


async def test_errors_match_the_synchronous_client(shared):
    async with aio.connect(shared.endpoints) as connection:
        with pytest.raises(quorate.NotFound):
            await connection.keyspace("missing")
        keyspace = await connection.keyspace("errors", mode="quorum", replicas=3)
        with pytest.raises(quorate.InvalidArgument):
            await keyspace.get("a", consistency="MOST")
        with pytest.raises(quorate.PartialFailure):
            await keyspace.put_many({"k" * 2000: "1"})
    with pytest.raises(quorate.ConnectionLost):
        await aio.connect("127.0.0.1:1", timeout=0.5)


async def test_a_cluster_with_failures():
    async with aio.Cluster(nodes=3) as cluster:
        keyspace = await cluster.keyspace("a", mode="quorum", replicas=3)
        await keyspace.put("a", "1", consistency=ALL)
        await cluster["n1"].kill()
        with pytest.raises(quorate.Unavailable):
            await keyspace.put("a", "2", consistency=ALL)
        await cluster["n1"].restart()
        await keyspace.put("a", "2", consistency=ALL)
        await cluster["n2"].pause()
        await cluster["n2"].resume()
        await cluster["n3"].stop()
        assert cluster["n3"].exit_code == 0
        pids, directory = [node.pid for node in cluster.nodes], cluster.directory
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not directory.exists()


async def test_a_cluster_that_is_not_started_raises():
    cluster = aio.Cluster(nodes=2)
    assert "not started" in repr(cluster)
    with pytest.raises(quorate.Closed, match="async with"):
        _ = cluster.endpoints
    await cluster.close()


async def test_a_cancelled_operation_is_harmless(shared):
    async with aio.connect(shared.endpoints) as connection:
        keyspace = await connection.keyspace("cancelled", mode="quorum", replicas=3)
        tasks = [asyncio.ensure_future(keyspace.put(f"k{number}", "1")) for number in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
        assert all(isinstance(outcome, aio.WriteResult) for outcome in outcomes[1::2])
        assert (await keyspace.put("after", "1")).version
