"""Status, health, metrics, timeline and topology of a cluster."""

import re
import time
import urllib.request
from pathlib import Path

import pytest

import quorate
from harness import eventually
from quorate import ALL, ONE
from quorate.timeline import EVENTS


def test_the_topology(shared):
    topology = shared.topology()
    assert [member.name for member in topology] == ["n1", "n2", "n3"]
    shared.keyspace(f"of-{topology.generation}", mode="quorum")
    assert shared.topology().generation > topology.generation >= 1
    assert (topology.vnodes, topology.hash) == (150, "murmur3")
    assert [member.address for member in topology] == shared.endpoints.split(",")
    assert "murmur3" in str(topology)
    # A node may have learned of the first commit from others.
    eventually(lambda: shared.topology().version == 1)
    eventually(lambda: [member.control for member in shared.topology()] == ["voter"] * 3)
    assert "version 1" in str(shared.topology())


def test_every_node_reports_its_own_status(shared, keyspace):
    status = shared.status()
    assert status.connected
    for node in status:
        assert node.up
        assert node.version == quorate.__version__
        assert {peer.name for peer in node.peers} == {"n1", "n2", "n3"} - {node.name}
        assert all(peer.up for peer in node.peers)
        assert keyspace.name in node.keyspaces
        assert node.data_directory == str(shared[node.name].data_dir)
        assert node.stored_bytes > 0
    assert "3 of 3 nodes up" in str(status)
    assert status["n2"].to_dict()["name"] == "n2"


def test_health_reports_partitioned_nodes(cluster):
    def verdict():
        health = cluster.health()
        return health.status, health.healthy_nodes, health.has_quorum, health.parted

    with cluster.isolate("n3"):
        eventually(lambda: verdict() == ("degraded", 3, True, (("n1", "n3"), ("n2", "n3"))))
        assert "no link: n1-n3, n2-n3" in str(cluster.health())
        with cluster.partition("n1", "n2"):
            eventually(lambda: verdict()[:3] == ("unavailable", 3, False))
    eventually(lambda: verdict() == ("healthy", 3, True, ()))


def test_health_by_keyspace():
    with quorate.Cluster(nodes=3) as cluster:
        cluster.keyspace("one", mode="quorum", replicas=1)
        cluster.keyspace("three", mode="quorum", replicas=3)
        health = cluster.health()
        assert (health.status, health.total_nodes, health.healthy_nodes) == ("healthy", 3, 3)
        assert (health.required_for_quorum, health.has_quorum, health.replication_enabled) == (2, True, True)
        cluster["n3"].kill()
        assert cluster.health("three").status == "degraded"
        assert cluster.health("one").status == "unavailable"
        assert not cluster.health("one").replication_enabled
        assert not cluster.status().connected
        assert cluster.status()["n3"].error in " ".join(str(cluster.status()).split())
        assert "down: n3" in str(cluster.health("three"))
        cluster["n2"].kill()
        health = cluster.health("three")
        assert (health.status, health.has_quorum, health.healthy_nodes) == ("unavailable", False, 1)
        with pytest.raises(quorate.NotFound):
            cluster.health("missing")


def test_health_of_a_consensus_keyspace_depends_on_its_groups():
    with quorate.Cluster(nodes=5) as cluster:
        members = cluster.keyspace("agreed", mode="consensus", replicas=3).info.groups[0].members
        for node in cluster:
            if node.name not in members:
                node.kill()
        # Some keys of the ring have lost two of their three copies; the group has lost no member.
        health = cluster.health("agreed")
        assert (health.status, health.has_quorum, health.healthy_nodes) == ("degraded", True, 3)
        assert cluster.health().status == "unavailable"


def test_health_of_a_consensus_keyspace_whose_group_has_lost_its_majority():
    with quorate.Cluster(nodes=5) as cluster:
        members = cluster.keyspace("agreed", mode="consensus", replicas=3).info.groups[0].members
        for name in members[1:]:
            cluster[name].kill()
        assert cluster.health("agreed").status == "unavailable"


def test_metrics_of_all_nodes(shared, keyspace):
    name = "quorate_operations_total"
    before = shared.metrics().value(name, op="put", outcome="ok")
    for number in range(20):
        keyspace.put(f"k{number}", "1", consistency=ALL)
    metrics = shared.metrics()
    assert metrics.missing == ()
    assert metrics.value(name, op="put", outcome="ok") - before == 20
    assert {sample.node for sample in metrics} == {"n1", "n2", "n3"}
    assert name in metrics.names
    assert name in str(metrics)
    assert {sample.labels["op"] for sample in metrics.where(name)} >= {"put"}


def test_the_metrics_of_raft_groups(shared):
    name = f"counted-{shared.topology().generation}"
    counted = shared.keyspace(name, mode="consensus", replicas=3)
    for number in range(20):
        counted.put(f"k{number}", "1")

    def value(metric):
        return shared.metrics().value(f"quorate_{metric}", group=name)

    # Claims are updated with the next heartbeat.
    eventually(lambda: value("raft_commands_total") >= 20)
    assert value("raft_commands_total") < 40, "each counts once, on its leader; opened sessions count too"
    eventually(lambda: value("raft_heartbeats_answered_total") >= 10)
    assert value("raft_heartbeats_answered_total") <= value("raft_heartbeats_sent_total")
    assert value("elections_total") >= value("elections_won_total") >= 1
    assert value("election_duration_seconds_count") >= 1
    puts = shared.metrics().where(
        "quorate_operation_duration_seconds_bucket", op="put", consistency="linearizable"
    )
    assert puts.samples, "the P99 of writes comes from these"
    (leading,) = (claim for claim in shared.groups().where(name) if claim.state == "leader")
    assert 0.8 < leading.heartbeat_ratio <= 1
    assert 20 <= leading.commands < 40
    assert 0 <= leading.election < 5


def test_metrics_are_served_over_http(shared, keyspace):
    keyspace.put("a", "1")
    for node in shared:
        with urllib.request.urlopen(f"http://{node.http_address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert quorate.metrics.parse(node.name, text).where("quorate_operations_total").samples or node


def test_the_timeline_of_a_failure():
    with quorate.Cluster(nodes=3) as cluster:
        cluster.keyspace("a", mode="quorum", replicas=3)
        events = cluster.events()
        assert [event.node for event in events.where("NodeStarted")].count("n1") == 1
        assert {event.node for event in events.where("KeyspaceCreated")} == {"n1", "n2", "n3"}
        assert list(events) == sorted(events, key=lambda event: event.time)
        cluster["n2"].kill()
        events = cluster.events()
        assert events.missing == ("n2",)
        assert str(events).endswith("no answer from n2")
        seen = events.where("PeerDown")
        assert {event.node for event in seen if event.detail["peer"] == "n2"} == {"n1", "n3"}
        assert all(event.detail["reason"] for event in seen)
        cluster["n2"].restart()
        eventually(lambda: cluster.events().where("PeerUp", node="n2"))
        assert "PeerDown" in str(cluster.events())
        assert cluster.events()[0].to_dict()["event"]


def test_observing_a_cluster_without_a_running_node():
    with quorate.Cluster(nodes=2) as cluster, quorate.connect(cluster.endpoints) as connection:
        for node in cluster:
            node.kill(wait=False)
        for client in (cluster, connection):
            events, metrics = client.events(timeout=0.2), client.metrics(timeout=0.2)
            assert events.missing == metrics.missing == ("n1", "n2")
            assert repr(events) == "timeline: nothing\nno answer from n1, n2"
            assert repr(metrics) == "metrics: nothing\nno answer from n1, n2"
            assert [node.up for node in client.status(timeout=0.2)] == [False, False]
            health = client.health(timeout=0.2)
            assert (health.status, health.healthy_nodes) == ("unavailable", 0)
        cluster["n1"].restart(wait=False)
        eventually(lambda: cluster.events().where("NodeStarted", node="n1"))
        assert cluster.events().missing == ("n2",)


def test_observing_is_not_counted_as_a_request(shared):
    assert [node.in_flight for node in shared.status()] == [0, 0, 0]


def test_an_unknown_event_is_rejected(shared):
    events = shared.events()
    with pytest.raises(quorate.InvalidArgument, match=r"'PeerDwn': events are NodeStarted.*PeerDown"):
        events.where("PeerDwn")
    source = Path(__file__).parents[1] / "rust" / "protocol" / "src" / "telemetry.rs"
    (body,) = re.findall(r"pub enum TimelineEvent \{\n(.*?)\n\}", source.read_text(), re.DOTALL)
    assert set(EVENTS) == set(re.findall(r"^    (\w+)(?: \{|,)$", body, re.MULTILINE))


def test_reads_repair_a_stale_replica():
    with quorate.Cluster(nodes=3) as cluster:
        keyspace = cluster.keyspace("a", mode="quorum", replicas=3)
        keyspace.put("a", "old", consistency=ALL)
        cluster["n3"].kill()
        keyspace.put("a", "new")
        cluster["n3"].restart()
        assert keyspace.get("a", consistency=ONE, node="n3").text == "old"
        assert keyspace.get_many(["a"], consistency=ONE, node="n1")["a"].text == "new"
        assert keyspace.get("a", consistency=ALL).text == "new"
        eventually(lambda: keyspace.get("a", consistency=ONE, node="n3").text == "new")
        # A read at ONE may ask all replicas, always if it is slow: then its node repairs n3 too, and reports it once.
        repaired = cluster.events().where("ReadRepaired")
        repairing = [event.node for event in repaired]
        assert repairing
        assert len(repairing) == len(set(repairing)), repairing
        assert all(event.detail == {"keyspace": "a", "replicas": ["n3"]} for event in repaired), repaired
        with pytest.raises(quorate.InvalidArgument, match="n0"):
            keyspace.get("a", node="n0")
        with pytest.raises(quorate.NotFound, match="n4"):
            keyspace.get("a", node="n4")


def test_placement(shared, keyspace):
    nodes = shared.nodes_for_key(keyspace.name, "user-123")
    assert sorted(nodes) == ["n1", "n2", "n3"]
    assert keyspace.nodes_for_key(b"user-123") == nodes
    assert shared.ring().nodes_for_key("user-123", 3) == nodes
    assert keyspace.put("user-123", "1", consistency=ONE).coordinator == nodes[0]
    report = shared.distribution(keyspace.name)
    assert report.primary.deviation < 0.05
    assert report.replicas == 3
    with pytest.raises(quorate.NotFound):
        shared.nodes_for_key("missing", "a")
    with pytest.raises(quorate.NotFound):
        shared.distribution("missing")


def test_connecting(shared):
    node = shared["n2"].address
    with quorate.connect(node, timeout=3) as connection:
        assert connection.timeout == 3
        assert len(connection.topology()) == 3
        assert connection.keyspace("connected", mode="quorum").put("a", "1", consistency=ALL).replicas
    with quorate.connect(["127.0.0.1:1", node]) as connection:
        assert connection.status().connected


def test_connecting_without_a_listener():
    begun = time.monotonic()
    with pytest.raises(quorate.ConnectionLost, match="127\\.0\\.0\\.1:1"):
        quorate.connect("127.0.0.1:1", timeout=1.0)
    assert time.monotonic() - begun < 5
    for wrong in ("", "a:b", []):
        with pytest.raises(quorate.InvalidArgument):
            quorate.connect(wrong)


def test_a_trace_that_is_not_kept(shared):
    with pytest.raises(quorate.NotFound, match="no node keeps"):
        shared.trace("1" * 32)
    with pytest.raises(quorate.InvalidArgument, match="trace id"):
        shared.trace("x")


def test_a_wrong_secret_is_rejected():
    with quorate.Cluster(nodes=2, secret="sesame") as cluster:
        cluster.keyspace("a", mode="quorum").put("a", "1", consistency=ALL)
        with quorate.connect(cluster.endpoints, secret="sesame") as connection:
            assert connection.keyspace("a").get("a").text == "1"
        for wrong in (None, "", "open"):
            with pytest.raises(quorate.Refused, match="secret"):
                quorate.connect(cluster.endpoints, secret=wrong, timeout=2.0)
        for node in cluster:
            node.restart()
        assert cluster.keyspace("a").get("a", consistency=ALL).text == "1"
