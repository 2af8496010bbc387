"""Consensus keyspaces while nodes are killed, stopped and restarted."""

import threading
import time

import pytest

import quorate
from harness import eventually
from quorate import STALE, ConditionFailed, OutcomeUnknown, ReadTimeout, SessionExpired, Unavailable

UNKNOWN = (OutcomeUnknown, SessionExpired)


@pytest.fixture
def agreed(cluster):
    """A keyspace of one shard on a cluster for failures."""
    return cluster.keyspace("agreed", mode="consensus", replicas=3)


class Writers:
    """Threads that write one key after the other and record acknowledged writes."""

    def __init__(self, keyspace, count=4):
        self._keyspace = keyspace
        self._stop = threading.Event()
        self.acknowledged = {}
        self.unknown = []
        self.problems = []
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(count)]

    def _work(self, number):
        turn = 0
        while not self._stop.is_set():
            key, turn = f"w{number}-{turn:06}", turn + 1
            try:
                self.acknowledged[key] = self._keyspace.put(key, key, timeout=5).version
            except UNKNOWN:
                self.unknown.append(key)
            except quorate.QuorateError as error:
                self.problems.append(error)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count=50):
        """Wait until this number of further writes is acknowledged."""
        goal = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= goal)


def test_no_acknowledged_write_is_lost_when_leaders_are_killed_under_load(cluster, agreed):
    with Writers(agreed) as writers:
        for _ in range(2):
            writers.more()
            leader = agreed.put("marker", "1").leader
            cluster[leader].kill()
            writers.more()
            cluster[leader].restart()
    assert not writers.problems
    found = agreed.get_many(writers.acknowledged)
    assert {key: entry.version for key, entry in found.items()} == writers.acknowledged
    assert all(entry.text == key for key, entry in found.items())
    assert len(writers.unknown) == 0, "writes are retried across leader changes"


def test_a_counter_of_conditional_writes_counts_each_success_once(cluster, agreed):
    agreed.put("counter", "0")
    counted, lock, stop = [0], threading.Lock(), threading.Event()

    def count():
        while not stop.is_set():
            entry = agreed.get("counter")
            try:
                agreed.put("counter", str(int(entry.text) + 1), if_version=entry.version)
            except ConditionFailed as error:
                assert error.current > entry.version  # noqa: PT017 - another writer was faster
            else:
                with lock:
                    counted[0] += 1

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: counted[0] >= 20)
        leader = agreed.put("marker", "1").leader
        cluster[leader].kill()
        goal = counted[0] + 20
        eventually(lambda: counted[0] >= goal)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # A retry that was executed twice would fail its own condition, or count twice.
    assert int(agreed.get("counter").text) == counted[0]


def test_entries_are_appended_once_across_a_failover(cluster, agreed):
    appended = []
    for number in range(60):
        if number == 20:
            cluster[appended[-1].leader].kill()
        appended.append(agreed.append(f"{number}", source="s"))
    ids = [result.entry_id for result in appended]
    assert ids == sorted(set(ids))
    assert [(entry.entry_id, entry.text) for entry in agreed.entries()] == [
        (entry_id, f"{number}") for number, entry_id in enumerate(ids)
    ]
    assert appended[-1].term > appended[0].term


def test_a_stopped_leader_does_not_use_up_the_deadline(cluster, agreed):
    leader = agreed.put("a", "1").leader
    cluster[leader].pause()
    begun = time.monotonic()
    written = agreed.put("a", "2", timeout=10)
    assert time.monotonic() - begun < 4
    assert written.leader != leader
    assert agreed.get("a").text == "2"
    cluster[leader].resume()
    assert agreed.get("a", node=leader).text == "2", "the previous leader returns nothing stale"


def test_all_nodes_are_killed_and_recover_their_data(cluster):
    keyspace = cluster.keyspace("agreed", mode="consensus", replicas=3, shards=4)
    written = keyspace.put_many({f"k{number}": str(number) for number in range(200)})
    entries = [keyspace.append(f"{number}", source=f"s{number % 3}").entry_id for number in range(20)]
    for node in cluster:
        node.kill(wait=False)
    for node in cluster:
        node.restart(wait=False)
    found = keyspace.get_many(written, timeout=20)
    assert {key: entry.version for key, entry in found.items()} == {
        key: result.version for key, result in written.items()
    }
    assert sorted(entry.entry_id for entry in keyspace.entries()) == sorted(entries)
    assert len(list(keyspace.scan())) == 200
    assert keyspace.put("after", "1", timeout=20).version


def test_a_minority_rejects_writes_quickly_and_serves_stale_reads(cluster, agreed):
    written = agreed.put("a", "1")
    others = [node for node in cluster if node.name != written.leader]
    last = cluster[written.leader]
    eventually(lambda: agreed.get("a", consistency=STALE, node=last.name).version == written.version)
    for node in others:
        node.kill()
    begun = time.monotonic()
    with pytest.raises((Unavailable, OutcomeUnknown)):
        agreed.put("a", "2")
    with pytest.raises((Unavailable, ReadTimeout)):
        agreed.get("a")
    with pytest.raises(Unavailable) as caught:
        agreed.put("a", "3")
    assert (caught.value.required, caught.value.alive) == (2, 1)
    assert time.monotonic() - begun < 4
    with quorate.connect(cluster.endpoints) as connection, pytest.raises(Unavailable):
        connection.keyspace("agreed").put("b", "1")
    stale = agreed.get("a", consistency=STALE)
    assert (stale.text, stale.node) == ("1", last.name)
    others[0].restart()
    assert agreed.put("a", "4").version > written.version
    assert agreed.get("a").text == "4"


def test_the_majority_continues_without_the_rest():
    with quorate.Cluster(nodes=5) as cluster:
        keyspace = cluster.keyspace("agreed", mode="consensus", replicas=5)
        for number in range(2):
            leader = keyspace.put("a", str(number)).leader
            cluster[leader].kill()
        assert keyspace.put("a", "2").version
        assert keyspace.get("a").text == "2"


def test_a_session_survives_a_rolling_restart(cluster, agreed):
    versions = [agreed.put("a", "0").version]
    for node in list(cluster):
        node.kill()
        versions.append(agreed.put("a", node.name).version)
        node.restart()
    assert versions == sorted(set(versions))
    assert agreed.get("a").version == versions[-1]
