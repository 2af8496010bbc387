"""Reading and writing on a cluster of real processes."""

import pickle
from datetime import datetime, timedelta, timezone

import pytest

import quorate
from quorate import ALL, ONE, QUORUM, Context


def test_a_value_is_read_back_at_every_level(keyspace):
    for level in (ONE, QUORUM, ALL, "two", 3):
        written = keyspace.put(f"key-{level}", f"value {level}", consistency=level)
        assert len(written.replicas) >= 1
        entry = keyspace.get(f"key-{level}", consistency=ALL)
        assert entry.text == f"value {level}"
        assert entry.value == f"value {level}".encode()
        assert entry.found
        assert entry.siblings == (entry.value,)
        assert set(entry.replicas) == {"n1", "n2", "n3"}


def test_fields_of_a_result(keyspace):
    before = datetime.now(timezone.utc)
    written = keyspace.put("a", b"1", consistency=QUORUM)
    assert written.key == "a"
    assert written.level is QUORUM
    assert len(written.replicas) >= 2
    assert written.coordinator in {"n1", "n2", "n3"}
    assert 0 < written.latency < 5
    assert abs(written.timestamp - before) < timedelta(seconds=5)
    (node,) = written.version
    assert node in {"n1", "n2", "n3"}
    entry = keyspace.get("a", consistency=QUORUM)
    assert entry.context == written.context
    assert entry.timestamp == written.timestamp
    assert entry.version == written.version
    assert "<Entry 'a': '1'" in repr(entry)
    assert "<WriteResult 'a'" in repr(written)
    assert "QUORUM" in entry._repr_html_()
    assert entry.to_dict()["value"] == "1"
    with pytest.raises(AttributeError):
        entry.key = "b"


def test_an_unwritten_key_is_absent(keyspace):
    entry = keyspace.get("nothing")
    assert not entry.found
    assert not entry
    assert (entry.value, entry.text, entry.siblings, entry.timestamp, entry.latest) == (
        None,
        None,
        (),
        None,
        None,
    )
    assert not entry.context
    assert "not found" in repr(entry)


def test_sequential_puts_leave_one_value(keyspace):
    for number in range(20):
        keyspace.put("counter", str(number))
    assert keyspace.get("counter").text == "19"


def test_a_delete_leaves_nothing(keyspace):
    keyspace.put("a", "1")
    deleted = keyspace.delete("a")
    assert deleted.version
    entry = keyspace.get("a", consistency=ALL)
    assert not entry.found
    assert entry.context, "the tombstone is in the context"
    assert list(keyspace.scan()) == []
    keyspace.put("a", "2")
    assert keyspace.get("a").text == "2"
    keyspace.delete("never written")


def test_concurrent_writes_become_siblings_until_a_write_with_their_context(keyspace):
    seen = keyspace.put("cart", "").context
    keyspace.put("cart", "milk", context=seen)
    keyspace.put("cart", "eggs", context=seen)
    entry = keyspace.get("cart", consistency=ALL)
    assert set(entry.siblings) == {b"milk", b"eggs"}
    assert entry.latest == b"eggs"
    with pytest.raises(quorate.Conflict, match=r"2 concurrent values.*context=entry\.context") as caught:
        _ = entry.value
    assert caught.value.siblings == entry.siblings
    assert caught.value.context == entry.context
    assert {sibling["value"] for sibling in entry.to_dict()["siblings"]} == {"milk", "eggs"}
    keyspace.put("cart", "milk, eggs", context=entry.context)
    assert keyspace.get("cart", consistency=ALL).text == "milk, eggs"


def test_a_delete_with_an_old_context_keeps_the_newer_value(keyspace):
    seen = keyspace.put("a", "old").context
    keyspace.put("a", "new", context=seen)
    keyspace.delete("a", context=seen)
    assert keyspace.get("a", consistency=ALL).text == "new"


def test_contexts_are_compared_stored_and_read_back(keyspace):
    first = keyspace.put("a", "1").context
    second = keyspace.put("a", "2", context=first).context
    assert first < second
    assert first <= second
    assert second > first
    assert first != second
    assert Context.from_bytes(bytes(second)) == second
    assert pickle.loads(pickle.dumps(second)) == second
    assert hash(Context.from_bytes(bytes(second))) == hash(second)
    assert second.version == keyspace.get("a", consistency=ALL).version
    with pytest.raises(quorate.InvalidArgument, match="not a context"):
        Context.from_bytes(b"\xff\xff\xff")


def test_keys_and_values_of_all_bytes(keyspace):
    every = bytes(range(256))
    for key in (b"\0", b"\xff" * 10, every, "grün", b"\0" * 1024):
        keyspace.put(key, every)
        assert keyspace.get(key).value == every
    keyspace.put("empty value", b"")
    entry = keyspace.get("empty value")
    assert entry.found
    assert entry
    assert entry.value == b""
    assert "value_base64" in keyspace.get(every).to_dict()


def test_text_and_its_bytes_are_the_same_key(keyspace):
    keyspace.put("grün", "1")
    assert keyspace.get("grün".encode()).text == "1"


def test_a_scan_is_in_the_order_of_bytes(keyspace):
    keys = ["b", "a", "B", "aa", "a\0", "grün", "z" * 100, "10", "9"]
    keyspace.put_many({key: f"value of {key}" for key in keys})
    found = list(keyspace.scan(page_size=2))
    assert [key for key, _ in found] == sorted(keys, key=str.encode)
    assert all(entry.text == f"value of {key}" for key, entry in found)
    assert all(entry.key == key for key, entry in found)


def test_a_scan_of_a_range_and_of_a_prefix(keyspace):
    keyspace.put_many({f"k{number:03d}": str(number) for number in range(100)})
    inside = [key for key, _ in keyspace.scan("k010", "k020", page_size=3)]
    assert inside == [f"k{number:03d}" for number in range(10, 20)]
    assert [key for key, _ in keyspace.scan(prefix="k09")] == [f"k{number:03d}" for number in range(90, 100)]
    assert [key for key, _ in keyspace.scan(start="k098")] == ["k098", "k099"]
    assert [key for key, _ in keyspace.scan(end="k001")] == ["k000"]
    assert [key for key, _ in keyspace.scan("k010", limit=5, page_size=3)] == [
        f"k{n:03d}" for n in range(10, 15)
    ]
    assert [key for key, _ in keyspace.scan(limit=1)] == ["k000"]
    assert list(keyspace.scan(limit=0)) == []
    assert len(list(keyspace.scan(limit=1000))) == 100
    assert list(keyspace.scan("x", "a")) == []
    keyspace.delete("k011")
    assert [key for key, _ in keyspace.scan("k010", "k013")] == ["k010", "k012"]


def test_many_at_once(keyspace):
    items = {f"key-{number}": f"value-{number}" for number in range(1500)}
    written = keyspace.put_many(items)
    assert list(written) == list(items)
    assert written["key-7"].key == "key-7"
    entries = keyspace.get_many([*items, "absent", "absent"], consistency=ALL)
    assert {key: entry.text for key, entry in entries.items() if entry.found} == items
    assert not entries["absent"].found
    assert keyspace.put_many([(b"bytes", b"1")])[b"bytes"].key == "bytes"
    assert keyspace.put_many({}) == {}


def test_a_batch_may_fail_partially(keyspace):
    with pytest.raises(quorate.PartialFailure, match="1 of 3 writes failed") as caught:
        keyspace.put_many({"a": "1", "b" * 2000: "2", "c": "3"})
    assert set(caught.value.succeeded) == {"a", "c"}
    assert isinstance(caught.value.failed["b" * 2000], quorate.LimitExceeded)
    assert caught.value.definite
    assert keyspace.get("c").text == "3"


def test_limits_are_named(keyspace):
    with pytest.raises(quorate.LimitExceeded, match="key") as caught:
        keyspace.put("k" * 1025, "v")
    assert (caught.value.size, caught.value.limit) == (1025, 1024)
    with pytest.raises(quorate.LimitExceeded, match="value") as caught:
        keyspace.put("k", b"v" * (2**20 + 1))
    assert (caught.value.size, caught.value.limit) == (2**20 + 1, 2**20)
    keyspace.put("k" * 1024, b"v" * 2**20)
    assert keyspace.get("k" * 1024).value == b"v" * 2**20
    with pytest.raises(quorate.QuorateError):
        keyspace.put("", "v")


@pytest.mark.parametrize(
    "wrong",
    [
        {"consistency": "MOST"},
        {"consistency": 0},
        {"consistency": 4},
        {"timeout": 0},
        {"timeout": -1.0},
    ],
)
def test_wrong_options_are_rejected(keyspace, wrong):
    with pytest.raises(quorate.InvalidArgument, match=next(iter(wrong))):
        keyspace.put("a", "1", **wrong)
    with pytest.raises(quorate.InvalidArgument, match=next(iter(wrong))):
        keyspace.get("a", **wrong)


@pytest.mark.parametrize(("key", "value"), [(1, "v"), (None, "v"), ("k", 1), ("k", None)])
def test_wrong_types_are_rejected(keyspace, key, value):
    with pytest.raises(quorate.InvalidArgument, match="str or bytes"):
        keyspace.put(key, value)


def test_keyspaces_are_created_and_found(shared):
    made = shared.keyspace("found", mode="quorum", replicas=2, read=ONE, write=ALL, read_repair="off")
    assert (made.name, made.replicas, made.read, made.write) == ("found", 2, ONE, ALL)
    assert shared.keyspace("found").info == made.info
    assert shared.keyspace("found", replicas=2, read=ONE, write=ALL, read_repair="off").info == made.info
    assert made.info in shared.keyspaces()
    assert made.info.overlapping
    with pytest.raises(quorate.KeyspaceExists, match="found"):
        shared.keyspace("found", mode="quorum", replicas=3)
    with quorate.connect(shared.endpoints) as connection:
        assert connection.keyspace("found").info == made.info


def test_invalid_keyspaces(shared):
    with pytest.raises(quorate.NotFound, match=r"'missing'.*create it"):
        shared.keyspace("missing")
    for settings, named in [
        ({"replicas": 4}, "replicas=4"),
        ({"replicas": 0}, "replicas=0"),
        ({"replicas": 3, "read": 4}, "4"),
        ({"replicas": 2, "write": "THREE"}, "THREE"),
        ({"mode": "both"}, "both"),
        ({"mode": "quorum", "read_repair": "sometimes"}, "sometimes"),
    ]:
        with pytest.raises(quorate.InvalidArgument, match=named):
            shared.keyspace("impossible", **settings)
    for name in ("", "a b", "x" * 65, "ä"):
        with pytest.raises(quorate.InvalidArgument, match="keyspace name"):
            shared.keyspace(name, mode="quorum")
    assert "impossible" not in [info.name for info in shared.keyspaces()]


def test_keyspaces_are_separate(shared):
    one, other = (shared.keyspace(name, mode="quorum") for name in ("one", "other"))
    one.put("a", "1")
    assert not other.get("a").found
    assert list(other.scan()) == []


def test_an_operation_is_traced_through_all_processes(keyspace):
    with pytest.raises(quorate.InvalidArgument, match="trace=True"):
        keyspace.put("a", "1").trace()
    written = keyspace.put("a", "1", consistency=ALL, trace=True)
    trace = written.trace()
    assert trace.trace_id == written.trace_id
    assert {"client", "n1", "n2", "n3"} <= set(trace.nodes)
    root = trace.spans[0]
    assert root.parent_id is None
    assert root.node == "client"
    assert all(span.parent_id is not None for span in trace.spans[1:])
    assert len(str(trace).splitlines()) > len(trace)
    entry = keyspace.get("a", trace=True)
    assert entry.trace_id != written.trace_id
    assert len(entry.trace()) > 1


@pytest.mark.parametrize("key", ["put", "delete"])
def test_a_write_replaces_its_context_or_else_its_coordinators_values(cluster, key):
    keyspace = cluster.keyspace("a", mode="quorum", replicas=3)
    stale = cluster.nodes_for_key("a", key)[0]
    keyspace.put(key, "old", consistency=ALL)
    cluster[stale].kill()
    keyspace.put(key, "missed", consistency=QUORUM)
    cluster[stale].restart()
    plain = keyspace.put(key, "plain") if key == "put" else keyspace.delete(key)
    assert plain.coordinator == stale
    entry = keyspace.get(key, consistency=ALL)
    left = {b"missed", b"plain"} if key == "put" else {b"missed"}
    assert set(entry.siblings) == left
    if key == "put":
        keyspace.put(key, "merged", context=entry.context)
        assert keyspace.get(key, consistency=ALL).text == "merged"
    else:
        keyspace.delete(key, context=entry.context)
        assert not keyspace.get(key, consistency=ALL).found
