"""Leaders of real processes: elected once, kept while they are healthy, replaced when they fail."""

import time

import pytest

import quorate
from harness import eventually


def elections(cluster):
    """The number of elections that each group's servers have started, by the timeline."""
    return [event for event in cluster.events() if event.name == "ElectionStarted"]


@pytest.fixture
def agreed(cluster):
    keyspace = cluster.keyspace("agreed", mode="consensus", replicas=3)
    keyspace.put("k", "0")
    return keyspace


def test_a_healthy_cluster_has_no_further_elections(cluster, agreed):
    before = elections(cluster)
    leader = agreed.get("k").leader
    until = time.monotonic() + 3
    number = 0
    while time.monotonic() < until:
        number += 1
        assert agreed.put("k", str(number)).leader == leader
    assert elections(cluster) == before
    assert agreed.get("k").text == str(number)


def test_a_restarted_leader_follows_and_causes_no_election(cluster, agreed):
    old = agreed.get("k").leader
    cluster[old].kill()
    new = agreed.put("k", "1").leader
    assert new != old
    before = [event for event in elections(cluster) if event.node != old]
    cluster[old].restart()
    written = agreed.put("k", "2")
    eventually(lambda: agreed.get("k", consistency="stale", node=old).version == written.version)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert agreed.put("k", "3").leader == new
    assert [event for event in elections(cluster) if event.node != old] == before
    assert not [event for event in elections(cluster) if event.node == old], (
        "it has started no election since its restart"
    )


def test_a_member_that_was_down_for_long_installs_a_snapshot(cluster):
    keyspace = cluster.keyspace("short", mode="consensus", replicas=3, snapshot_every=50)
    leader = keyspace.put("first", "1").leader
    behind = next(node for node in cluster if node.name != leader)
    last = []

    def applied():
        """Bytes of the leader's rows that are durable without its log."""
        return cluster.metrics().value("quorate_storage_used_bytes", node=leader, environment="state")

    def was_sent_a_snapshot():
        behind.kill()
        before = applied()
        for number in range(200):
            keyspace.append(f"{number}", source="s")
        keyspace.put_many({f"k{number:03}": "x" * 100 for number in range(200)})
        last.append(keyspace.put("last", str(len(last))))
        # The log is only truncated once the rows are durable without it.
        eventually(lambda: applied() > before)
        keyspace.append("one more")
        behind.restart()
        eventually(
            lambda: keyspace.get("last", consistency="stale", node=behind.name).version == last[-1].version
        )
        return any(e.name == "SnapshotInstalled" for e in cluster.events() if e.node == behind.name)

    eventually(was_sent_a_snapshot)
    stale = keyspace.get("k199", consistency="stale", node=behind.name)
    assert stale.value == b"x" * 100
    # Commands of this client are still executed once, by any leader.
    cluster[keyspace.get("last").leader].kill()
    assert keyspace.put("last", "over").version > last[-1].version
    ids = [entry.entry_id for entry in keyspace.entries()]
    assert ids == sorted(set(ids))
    assert len(ids) == 201 * len(last)


def test_rolling_restart_under_load_loses_nothing(cluster, agreed):
    written = {}
    for turn, node in enumerate(list(cluster) * 2):
        node.kill()
        for number in range(20):
            key = f"{turn}-{number}"
            written[key] = agreed.put(key, key, timeout=10).version
        node.restart()
        for number in range(20, 40):
            key = f"{turn}-{number}"
            written[key] = agreed.put(key, key, timeout=10).version
    found = agreed.get_many(written)
    assert {key: entry.version for key, entry in found.items()} == written


def test_every_claim_names_the_same_leader(cluster, agreed):
    leader = agreed.get("k").leader

    def claims():
        return [claim for claim in cluster.groups() if claim.name == "agreed"]

    eventually(lambda: {claim.leader for claim in claims()} == {leader})
    assert sum(claim.state == "leader" for claim in claims()) == 1
    assert quorate.connect(cluster.endpoints).leader("agreed") == leader
