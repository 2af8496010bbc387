"""Consensus keyspaces on a healthy cluster."""

import itertools

import pytest

import quorate
from harness import eventually
from quorate import LINEARIZABLE, QUORUM, STALE, ConditionFailed, InvalidArgument
from quorate.results import Commit, ConsensusEntry

_names = (f"agreed{number}" for number in itertools.count())


@pytest.fixture
def keyspace(shared):
    """An empty keyspace of one shard."""
    return shared.keyspace(next(_names), mode="consensus", replicas=3)


@pytest.fixture(scope="module")
def sharded(shared):
    """A keyspace of four shards that tests leave unchanged."""
    return shared.keyspace("sharded", mode="consensus", replicas=3, shards=4)


def test_a_written_value_can_be_read(keyspace):
    written = keyspace.put("a", "first light")
    assert isinstance(written, Commit)
    entry = keyspace.get("a")
    assert isinstance(entry, ConsensusEntry)
    assert (entry.value, entry.text, entry.version) == (b"first light", "first light", written.version)
    assert entry.timestamp.tzinfo is not None
    assert entry.leader == entry.node == written.leader
    assert entry.staleness == 0
    assert entry.latency > 0
    assert entry
    second = keyspace.put("a", b"\xff\x00")
    assert second.version > written.version
    assert keyspace.get("a").value == b"\xff\x00"
    keyspace.put("empty", "")
    assert keyspace.get("empty").found


def test_deleting(keyspace):
    written = keyspace.put("a", "1")
    deleted = keyspace.delete("a")
    assert deleted.version > written.version
    entry = keyspace.get("a")
    assert not entry
    assert (entry.value, entry.text, entry.version, entry.timestamp) == (None, None, 0, None)
    keyspace.delete("never there")


def test_conditions(keyspace):
    first = keyspace.put("a", "1", if_absent=True)
    with pytest.raises(ConditionFailed) as caught:
        keyspace.put("a", "2", if_absent=True)
    assert (caught.value.key, caught.value.current) == ("a", first.version)
    assert caught.value.definite
    second = keyspace.put("a", "2", if_version=first.version)
    with pytest.raises(ConditionFailed) as caught:
        keyspace.delete("a", if_version=first.version)
    assert caught.value.current == second.version
    keyspace.delete("a", if_version=second.version)
    with pytest.raises(ConditionFailed) as caught:
        keyspace.put("a", "3", if_version=second.version)
    assert caught.value.current == 0
    # An absent key has version 0: a loop of reads and conditional writes needs no special case.
    assert keyspace.put("a", "4", if_version=keyspace.get("a").version).version > second.version


def test_batches(sharded):
    items = {f"batch-{number:03}": str(number) for number in range(100)}
    results = sharded.put_many(items)
    assert results.keys() == items.keys()
    for shard in range(4):
        versions = {result.version for key, result in results.items() if sharded.shard_of(key) == shard}
        assert len(versions) == 1, "one log entry per shard"
    found = sharded.get_many([*items, "batch-none"])
    assert [entry.text for entry in found.values()] == [*items.values(), None]
    assert sharded.put_many({}) == sharded.get_many([]) == {}
    with pytest.raises(InvalidArgument, match="twice"):
        sharded.put_many([("a", "1"), ("a", "2")])
    with pytest.raises(quorate.LimitExceeded, match="split the batch"):
        sharded.put_many({f"k{number}": bytes(1 << 19) for number in range(16)})
    assert not sharded.get("k0")


def test_a_batch_with_a_condition_that_fails_writes_nothing_of_its_shard(sharded):
    keys = [f"conditional-{number}" for number in range(40)]
    opened = sharded.put_many(dict.fromkeys(keys, "1"), if_absent=True)
    versions = {key: result.version for key, result in opened.items()}
    changed = sharded.put(keys[0], "changed")
    failing = sharded.shard_of(keys[0])
    with pytest.raises(quorate.PartialFailure) as raised:
        sharded.put_many(dict.fromkeys(keys, "2"), if_version=versions)
    mine = {key for key in keys if sharded.shard_of(key) == failing}
    assert raised.value.failed.keys() == mine
    for error in raised.value.failed.values():
        assert isinstance(error, quorate.ConditionFailed)
        assert (error.key, error.current) == (keys[0], changed.version)
    found = sharded.get_many(keys)
    assert {key for key, entry in found.items() if entry.text == "2"} == set(keys) - mine
    assert {found[key].text for key in mine - {keys[0]}} == {"1"}
    # Only the named keys have a condition.
    sharded.put_many({keys[0]: "3", "conditional-new": "3"}, if_absent=["conditional-new"])
    with pytest.raises(quorate.PartialFailure, match="ConditionFailed"):
        sharded.put_many({"conditional-new": "4"}, if_version={"conditional-new": 0})
    for wrong, words in (
        ({"if_version": {"other": 1}}, "not among the items"),
        ({"if_absent": ["other"]}, "not among the items"),
        ({"if_version": {"a": 1}, "if_absent": ["a"]}, "give one of them"),
        ({"if_version": {"a": 1}, "if_absent": True}, "list the keys"),
        ({"if_version": 3}, "give a mapping"),
        ({"if_version": {"a": -1}}, "if_version"),
        ({"if_absent": "a"}, "if_absent"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            sharded.put_many({"a": "1"}, **wrong)


def test_scans_merge_the_shards_in_order(sharded):
    keys = [f"scan-{number:03}" for number in range(300)]
    sharded.put_many({key: key for key in keys})
    assert {sharded.shard_of(key) for key in keys} == {0, 1, 2, 3}
    found = list(sharded.scan(prefix="scan-", page_size=37))
    assert [key for key, _ in found] == keys
    assert all(entry.text == key for key, entry in found)
    assert [key for key, _ in sharded.scan("scan-010", "scan-020")] == keys[10:20]
    assert [key for key, _ in sharded.scan("scan-010", limit=45, page_size=7)] == keys[10:55]
    assert [key for key, _ in sharded.scan(prefix="scan-29", consistency=STALE)]
    assert list(sharded.scan(prefix="nothing-")) == []


def test_entries_have_increasing_ids_and_are_in_order(sharded):
    appended = [sharded.append(f"line {number}", source=f"s{number % 5}") for number in range(60)]
    for source in ("s0", "s1", "s2", "s3", "s4"):
        mine = [result for result in appended if result.source == source]
        assert len({result.shard for result in mine}) == 1
        ids = [result.entry_id for result in mine]
        assert ids == sorted(set(ids))
        assert all(result.term >= 1 and result.leader in ("n1", "n2", "n3") for result in mine)
        listed = list(sharded.entries(source=source, page_size=2))
        assert [entry.entry_id for entry in listed] == ids
        assert all(entry.source == source for entry in listed)
        assert [entry.entry_id for entry in sharded.entries(ids[3], source=source)] == ids[4:]
    merged = list(sharded.entries(page_size=7))
    assert sorted(entry.text for entry in merged) == sorted(f"line {number}" for number in range(60))
    assert len({entry.shard for entry in merged}) > 1
    places = [(entry.timestamp, entry.shard, entry.entry_id) for entry in merged]
    assert places == sorted(places)
    half = list(sharded.entries(limit=25, page_size=4))
    assert half == merged[:25]
    last = {}
    for entry in half:
        last[entry.shard] = entry.entry_id
    assert list(sharded.entries(last)) == merged[25:]


def test_keys_and_entries_are_separate(keyspace):
    keyspace.append("an entry")
    assert list(keyspace.scan()) == []
    keyspace.put("a", "1")
    assert [entry.data for entry in keyspace.entries()] == [b"an entry"]


def at_hand(keyspace, node, version):
    """Read a member's own copy, once it has this version."""
    entry = keyspace.get("a", consistency=STALE, node=node)
    return entry if entry.node == node and entry.version == version else None


def test_a_stale_read_has_a_bound_on_its_age(keyspace):
    written = keyspace.put("a", "1")
    for node in ("n1", "n2", "n3"):
        # A member may apply the write a little later than the majority that acknowledged it.
        entry = eventually(lambda node=node: at_hand(keyspace, node, written.version))
        assert entry.staleness is not None
        assert 0 <= entry.staleness < 5
        assert entry.leader == written.leader


def test_any_node_accepts_any_request():
    with quorate.Cluster(nodes=4) as cluster:
        keyspace = cluster.keyspace("a", mode="consensus", replicas=3)
        (outsider,) = {node.name for node in cluster} - set(keyspace.info.groups[0].members)
        for node in cluster:
            with quorate.connect(cluster.endpoints) as connection:
                mine = connection.keyspace("a")
                written = mine.put(node.name, "1")
                entry = mine.get(node.name, node=node.name)
                assert (entry.version, entry.leader) == (written.version, written.leader)
                assert entry.staleness == 0
        assert keyspace.get("n1", node=outsider).node != outsider
        stale = keyspace.get("n1", consistency=STALE, node=outsider)
        assert stale.node != outsider
        assert keyspace.nodes_for_key("n1") == cluster.nodes_for_key("a", "n1")


def test_settings_are_replicated(shared, keyspace):
    again = shared.keyspace(keyspace.name)
    assert isinstance(again, quorate.ConsensusKeyspace)
    assert again.info == keyspace.info
    assert again.info.mode == "consensus"
    assert shared.keyspace(keyspace.name, mode="consensus", replicas=3).info == keyspace.info
    assert keyspace.info in shared.keyspaces()
    with pytest.raises(quorate.KeyspaceExists):
        shared.keyspace(keyspace.name, mode="consensus", replicas=3, shards=2)
    with pytest.raises(quorate.KeyspaceExists):
        shared.keyspace(keyspace.name, mode="quorum", replicas=3)
    assert shared.health(keyspace.name).has_quorum


def test_arguments_of_the_other_mode_are_rejected_with_a_remedy(shared, keyspace):
    other = shared.keyspace(next(_names), mode="quorum", replicas=3)
    for call, words in [
        (lambda: keyspace.put("a", "1", consistency=QUORUM), "agreed on by a majority"),
        (lambda: keyspace.put("a", "1", context=other.get("a").context), "use if_version=entry.version"),
        (lambda: keyspace.get("a", consistency=QUORUM), "use LINEARIZABLE or STALE"),
        (lambda: keyspace.get("a", consistency=2), "mode='quorum'"),
        (lambda: other.put("a", "1", if_absent=True), 'mode="consensus"'),
        (lambda: other.put("a", "1", if_version=3), "context=entry.context"),
        (lambda: other.get("a", consistency=STALE), "mode='consensus'"),
        (lambda: keyspace.put("a", "1", if_version=1, if_absent=True), "give one of them"),
        (lambda: keyspace.put("a", "1", if_version=-1), "if_version=-1"),
        (lambda: keyspace.put("a", "1", if_version="7"), "if_version='7'"),
        (lambda: keyspace.append("a", source="s" * 300), "source"),
        (lambda: keyspace.entries({1: 0}), "there is no shard 1"),
        (lambda: shared.keyspace("x", mode="consensus", read=QUORUM), "LINEARIZABLE or STALE"),
        (lambda: shared.keyspace("x", shards=4), 'mode="consensus"'),
        (lambda: shared.keyspace("x", mode="consensus", shards=0), "shards=0"),
        (lambda: shared.keyspace("x", mode="both"), '"quorum" or "consensus"'),
        (lambda: keyspace.put("k" * 2000, "1"), "1024"),
        (lambda: keyspace.put("a", bytes(2 << 20)), "1048576"),
    ]:
        with pytest.raises((InvalidArgument, quorate.LimitExceeded)) as caught:
            call()
        assert words in str(caught.value)


def test_traces_span_the_nodes(keyspace):
    written = keyspace.put("a", "1", trace=True)
    names = [span.name for span in written.trace()]
    assert any("raft.write" in name for name in names), names
    entry = keyspace.get("a", trace=True)
    assert any("raft.read" in span.name for span in entry.trace())
    with pytest.raises(InvalidArgument, match="trace=True"):
        keyspace.get("a").trace()


def test_results_have_a_repr(keyspace):
    written = keyspace.put("a", "first light")
    assert f"version {written.version}" in repr(written)
    assert "first light" in repr(keyspace.get("a"))
    assert "linearizable" in repr(keyspace.get("a", consistency=LINEARIZABLE))
    assert "old" in repr(keyspace.get("a", consistency=STALE)) or "linearizable" in repr(keyspace.get("a"))
    assert "not found" in repr(keyspace.get("b"))
    appended = keyspace.append("x", source="web")
    assert f"{appended.entry_id}" in repr(appended)
    (entry,) = keyspace.entries()
    assert "'x'" in repr(entry)
    for answer in (written, keyspace.get("a"), keyspace.get("b"), appended):
        assert "<table" in answer._repr_html_() or "<pre" in answer._repr_html_()
        assert answer.to_dict()
    assert entry.to_dict()["data"] == "x"
    assert "1 shard" in repr(keyspace)


async def test_the_asynchronous_twin(shared):
    async with quorate.aio.connect(shared.endpoints) as connection:
        keyspace = await connection.keyspace(next(_names), mode="consensus", replicas=3, shards=2)
        written = await keyspace.put("a", "1", if_absent=True, trace=True)
        assert len(await written.trace()) > 1
        with pytest.raises(ConditionFailed):
            await keyspace.put("a", "2", if_absent=True)
        assert (await keyspace.get("a")).version == written.version
        assert (await keyspace.get("a", consistency="stale")).staleness is not None
        await keyspace.put_many({f"k{number}": str(number) for number in range(50)})
        found = await keyspace.get_many(["k1", "k2"])
        assert [entry.text for entry in found.values()] == ["1", "2"]
        keys = [key async for key, _ in keyspace.scan(prefix="k", page_size=9)]
        assert keys == sorted(f"k{number}" for number in range(50))
        await keyspace.delete("a")
        ids = [(await keyspace.append(f"{number}", source="s")).entry_id for number in range(5)]
        assert [entry.entry_id async for entry in keyspace.entries(source="s", page_size=2)] == ids
        assert len(await keyspace.nodes_for_key("a")) == 3
        with pytest.raises(InvalidArgument, match="majority"):
            await keyspace.put("a", "1", consistency=QUORUM)


def test_a_batch_that_is_not_atomic_may_be_larger_than_a_shard_takes_at_once(shared):
    keyspace = shared.keyspace("large-batch", mode="consensus", replicas=3, shards=2)
    items = {f"k{number:03}": "x" * 100_000 for number in range(60)}
    with pytest.raises(quorate.LimitExceeded):
        keyspace.put_many(items)
    assert not list(keyspace.scan())
    written = keyspace.put_many(items, atomic=False)
    assert written.keys() == items.keys()
    assert len(keyspace.get_many(items)) == 60
    # A condition that does not hold concerns its own part.
    with pytest.raises(quorate.PartialFailure) as failure:
        keyspace.put_many(items, if_version={"k000": 10**9}, atomic=False)
    assert "k000" in failure.value.failed
    assert failure.value.succeeded
    with pytest.raises(quorate.InvalidArgument, match="twice"):
        keyspace.put_many([("a", "1"), ("a", "2")], atomic=False)
    shared.drop_keyspace(keyspace.name)


def test_many_keys_are_read_whatever_their_sizes(shared):
    keyspace = shared.keyspace("sizes", mode="consensus", replicas=3)
    small = {f"s{number:04}": "x" for number in range(1200)}
    keyspace.put_many(small)
    # By now the client knows small values only, and asks for many keys at once.
    for _ in range(2):
        assert [entry.text for entry in keyspace.get_many(small).values()] == ["x"] * len(small)
    # Together they are more than one response can hold.
    large = {f"l{number:02}": bytes([number]) * (1 << 20) for number in range(36)}
    for key, value in large.items():
        keyspace.put(key, value)
    found = keyspace.get_many([*large, *small, "absent"], timeout=30)
    assert {key: found[key].value for key in large} == large
    assert not found["absent"]
    assert len(found) == len(large) + len(small) + 1
    shared.drop_keyspace(keyspace.name)
