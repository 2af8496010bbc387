"""Keyspaces of both modes while the links between nodes are cut, one way or both, and healed."""

import threading
import time

import pytest

import quorate
from harness import eventually, struck
from quorate import ALL, ONE, QUORUM, STALE, OutcomeUnknown, ReadTimeout, Unavailable
from test_failover import Writers

REFUSED = (OutcomeUnknown, ReadTimeout, Unavailable)
# An election takes at most a timeout of 300 ms and a few rounds; a link counts as down after a second. The rest is a
# margin for a busy machine.
FAILOVER = 5.0


@pytest.fixture
def cluster(request):
    with quorate.Cluster(nodes=3, raft_timing=getattr(request, "param", "default")) as cluster:
        yield cluster


# For tests without an election: on a busy machine a leader may be silent for longer than usual.
calm = pytest.mark.parametrize("cluster", ["conservative"], indirect=True)


@pytest.fixture
def agreed(cluster):
    keyspace = cluster.keyspace("agreed", mode="consensus", replicas=3)
    keyspace.put("k", "0")
    return keyspace


@pytest.fixture
def five():
    with quorate.Cluster(nodes=5) as cluster:
        yield cluster


def claims(cluster, name="agreed"):
    return {claim.node: claim for claim in cluster.groups().where(name)}


def one_leader(cluster, leader):
    """Check that all members name this leader, and that no other claims to lead."""
    found = claims(cluster)
    return {claim.leader for claim in found.values()} == {leader} and [
        node for node, claim in found.items() if claim.state == "leader"
    ] == [leader]


def linearizable(keyspace, key, node):
    """Return the result of a linearizable read at this node, or ``None``."""
    try:
        return keyspace.get(key, node=node, timeout=0.3).version
    except REFUSED:
        return None


@calm
def test_an_isolated_leader_returns_nothing_stale_and_follows_after_healing(cluster, agreed):
    old = agreed.get("k").leader
    before = agreed.put("k", "before")
    begun = time.monotonic()
    with struck(cluster.isolate, old):
        written = agreed.put("k", "1", timeout=FAILOVER)
        assert time.monotonic() - begun < FAILOVER
        assert written.leader != old
        for number in range(50):
            written = agreed.put("k", str(number))
            # It cannot know the newest version, so the read must fail.
            if number % 10 == 0:
                assert linearizable(agreed, "k", old) is None
        stale = agreed.get("k", consistency=STALE, node=old)
        assert stale.version == before.version
        new = agreed.get("k").leader
        eventually(lambda: old in (found := claims(cluster)) and found[old].state != "leader")
        term = eventually(lambda: claims(cluster).get(new)).term
    eventually(lambda: agreed.get("k", consistency=STALE, node=old).version == written.version)
    eventually(lambda: one_leader(cluster, new))
    assert {claim.term for claim in claims(cluster).values()} == {term}, "no election since healing"
    assert agreed.get("k", node=old).version == written.version
    assert agreed.put("k", "after").leader == new


def test_reads_at_a_leader_during_isolation_are_never_stale(cluster, agreed):
    """A continuous reader at the old leader never sees less than was acknowledged before its read."""
    for _ in range(3):
        old = agreed.put("k", "0").leader
        acknowledged, stop, stale = [agreed.put("k", "0").version], threading.Event(), []

        def read(old=old, acknowledged=acknowledged, stop=stop, stale=stale):
            while not stop.is_set():
                floor = acknowledged[-1]
                found = linearizable(agreed, "k", old)
                if found is not None and found < floor:
                    stale.append((found, floor))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            with struck(cluster.isolate, old):
                for number in range(50):
                    acknowledged.append(agreed.put("k", str(number), timeout=FAILOVER).version)
            acknowledged.append(agreed.put("k", "healed").version)
        finally:
            stop.set()
            reader.join()
        assert not stale


def test_a_majority_continues_and_a_minority_waits(five):
    agreed = five.keyspace("agreed", mode="consensus", replicas=5)
    loose = five.keyspace("loose", mode="quorum", replicas=5)
    old = agreed.put("k", "0").leader
    loose.put("k", "0", consistency=ALL)
    minority = {old, next(node.name for node in five if node.name != old)}
    majority = {node.name for node in five} - minority
    with struck(five.partition, minority, majority):
        written = agreed.put("k", "1", timeout=FAILOVER)
        assert written.leader in majority
        assert agreed.get("k").version == written.version
        for node in minority:
            assert linearizable(agreed, "k", node) is None
            assert agreed.get("k", consistency=STALE, node=node).text == "0"
        # In mode quorum each side serves the levels that its own replicas can.
        eventually(lambda: all_see(five, minority) and all_see(five, majority))
        for node in minority:
            with pytest.raises(Unavailable) as caught:
                loose.get("k", consistency=QUORUM, node=node)
            assert (caught.value.required, caught.value.alive) == (3, 2)
            assert loose.get("k", consistency=ONE, node=node).text == "0"
        for node in majority:
            assert loose.get("k", consistency=QUORUM, node=node).text == "0"
            with pytest.raises(Unavailable):
                loose.get("k", consistency=ALL, node=node)
    eventually(lambda: agreed.get("k", consistency=STALE, node=old).version == written.version)
    assert loose.put("k", "1", consistency=ALL).replicas
    assert agreed.put("k", "2").leader in majority


def all_see(cluster, side):
    """Check that the nodes of one side see only each other."""
    status = {node.name: {peer.name for peer in node.peers if peer.up} for node in cluster.status()}
    return all(status[node] == side - {node} for node in side)


@calm
@pytest.mark.parametrize("hears", [True, False], ids=["cannot speak", "cannot hear"])
def test_a_leader_with_a_one_way_partition_is_replaced(cluster, agreed, hears):
    old = agreed.put("k", "0").leader
    others = {node.name for node in cluster} - {old}
    ways = (old, others) if hears else (others, old)
    with struck(cluster.partition, *ways, one_way=True):
        written = agreed.put("k", "1", timeout=FAILOVER)
        # A leader that can send may keep its followers until the link counts as down; it commits nothing meanwhile.
        eventually(lambda: agreed.put("k", "2", timeout=FAILOVER).leader != old)
        written = agreed.put("k", "3")
        assert linearizable(agreed, "k", old) is None
        new = agreed.get("k").leader
    eventually(lambda: one_leader(cluster, new))
    assert agreed.get("k", node=old).version == written.version


@calm
def test_a_cut_between_two_of_three_nodes_is_tolerated(cluster, agreed):
    """The third node sees both: there is always a leader, and it does not change repeatedly."""
    leader = agreed.put("k", "0").leader
    other = next(node.name for node in cluster if node.name != leader)
    with struck(cluster.partition, leader, other):
        for number in range(100):
            agreed.put("k", str(number), timeout=FAILOVER)
        elections = max(claim.term for claim in claims(cluster).values())
        for number in range(100):
            agreed.put("k", str(number), timeout=FAILOVER)
        assert max(claim.term for claim in claims(cluster).values()) <= elections + 1
    last = agreed.put("k", "healed")
    for node in cluster:
        eventually(
            lambda node=node: agreed.get("k", consistency=STALE, node=node.name).version == last.version
        )


def test_no_acknowledged_write_is_lost_when_partitions_come_and_go_under_load(five):
    agreed = five.keyspace("agreed", mode="consensus", replicas=5)
    agreed.put("marker", "0")
    names = {node.name for node in five}
    with Writers(agreed) as writers:
        for turn in range(6):
            leader = agreed.get("marker").leader
            followers = sorted(names - {leader})
            # In turn: the leader alone, the leader with another node, and a follower.
            side = ({leader}, {leader, followers[turn % 4]}, {followers[turn % 4]})[turn % 3]
            with struck(five.partition, side, names - side):
                writers.more(30)
            writers.more(10)
    assert not writers.problems
    found = agreed.get_many(writers.acknowledged)
    assert {key: entry.version for key, entry in found.items()} == writers.acknowledged
    assert all(entry.text == key for key, entry in found.items())
    versions = list(writers.acknowledged.values())
    assert len(set(versions)) == len(versions), "nothing is acknowledged twice"
    assert not writers.unknown, "writes are retried across leader changes"


def test_entries_are_appended_once_while_leaders_are_isolated(cluster, agreed):
    appended = []
    for turn in range(3):
        leader = agreed.append(f"{turn}-first", source="s")
        appended.append((leader.entry_id, f"{turn}-first"))
        with struck(cluster.isolate, leader.leader):
            for number in range(20):
                result = agreed.append(f"{turn}-{number}", source="s", timeout=FAILOVER)
                appended.append((result.entry_id, f"{turn}-{number}"))
    assert [(entry.entry_id, entry.text) for entry in agreed.entries()] == appended


def test_writes_continue_over_lossy_and_slow_links(cluster, agreed):
    leader = agreed.put("k", "0").leader
    others = {node.name for node in cluster} - {leader}
    with (
        struck(cluster.lossy, leader, others, percent=20),
        struck(cluster.slow, leader, others, delay=0.01, jitter=0.01),
    ):
        written = [agreed.put("k", str(number), timeout=FAILOVER).version for number in range(30)]
    assert written == sorted(set(written))
    assert agreed.get("k").text == "29"
