"""The control plane: its leader, the claims of its members, and creation, change and drop of keyspaces."""

import json
import threading

import pytest

import quorate
from harness import eventually
from quorate import ALL, ONE, InvalidArgument, NotFound, OutcomeUnknown, Unavailable, aio
from shell import run


def test_every_node_reports_its_own_claim(shared):
    groups = eventually(
        lambda: (
            (claims := shared.groups().where("control")).leader
            and all(claim.leader == claims.leader for claim in claims)
            and claims
        )
    )
    assert [claim.node for claim in groups] == ["n1", "n2", "n3"]
    assert groups.missing == ()
    assert {claim.group for claim in groups} == {1}
    assert sorted(claim.state for claim in groups) == ["follower", "follower", "leader"]
    for claim in groups:
        assert claim.voters == ("n1", "n2", "n3")
        assert claim.learners == ()
        assert claim.snapshot <= claim.applied <= claim.commit <= claim.last
        assert claim.problem is None
    (leading,) = (claim for claim in groups if claim.state == "leader")
    assert leading.node == shared.leader() == groups.leader
    assert leading.heard == 0
    assert set(leading.lag) == {"n1", "n2", "n3"} - {leading.node}
    assert "leader" in str(groups)
    assert "control" in groups._repr_html_()
    assert [claim.node for claim in groups.where(node="n2")] == ["n2"]
    assert groups[0].to_dict()["node"] == "n1"


def test_beyond_seven_voters_members_of_the_control_plane_are_learners():
    with quorate.Cluster(nodes=9) as cluster:

        def settled():
            claims = cluster.groups().where("control")
            return len(claims) == 9 and all(claim.leader for claim in claims) and claims

        claims = eventually(settled)
        assert {claim.node for claim in claims if claim.state == "learner"} == {"n8", "n9"}
        assert {claim.voters for claim in claims} == {tuple(f"n{number}" for number in range(1, 8))}
        # Learners follow: they serve the keyspaces of the control plane.
        agreed = cluster.keyspace("agreed", mode="consensus", replicas=3)
        agreed.put("a", "1")
        for node in ("n8", "n9"):
            assert agreed.get("a", node=node).text == "1"


def test_the_timeline_names_the_groups(cluster):
    sharded = cluster.keyspace("sharded", mode="consensus", replicas=3, shards=2)
    sharded.put_many({f"k{number}": "v" for number in range(20)})
    events = cluster.events()
    for group in ("control", "sharded/0", "sharded/1"):
        elected = events.where("LeaderElected", group=group)
        assert [event.detail["name"] for event in elected] == [group]
        assert events.where("LeaderElected", group=elected[0].detail["group"]) == elected
        assert f"group={group}" in str(elected)
    assert len(events.where("LeaderElected", group="sharded")) == 2
    assert not events.where("LeaderElected", group="shard")
    shown = run(
        "events", "--group", "sharded/1", "--name", "LeaderElected", "--json", endpoints=cluster.endpoints
    )
    assert json.loads(shown)["detail"]["name"] == "sharded/1"


def test_an_existing_keyspace_is_described_by_the_settings_of_its_mode(shared):
    shared.keyspace("described", mode="consensus", replicas=3, shards=2)
    with pytest.raises(quorate.KeyspaceExists, match=r"replicas=3 shards=2 snapshot_every=10000\)"):
        shared.keyspace("described", mode="consensus", replicas=3, shards=3)
    complaint = run(
        *("keyspace", "create", "described", "--mode", "consensus"), endpoints=shared.endpoints, check=1
    )
    assert "--shards 2" in complaint
    assert "NotFound" in run("groups", "nosuch", endpoints=shared.endpoints, check=1)


def test_pending_operations_on_a_dropped_keyspace_fail(shared):
    doomed = shared.keyspace("doomed", mode="consensus", replicas=3)
    doomed.put("a", "1")
    ends = []

    def write():
        try:
            while True:
                doomed.put("a", "1", timeout=30)
        except (NotFound, OutcomeUnknown) as error:
            ends.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    shared.drop_keyspace("doomed")
    for thread in threads:
        thread.join(timeout=10)
    assert len(ends) == 4, "each fails immediately, not at its deadline"
    with pytest.raises(NotFound, match="open the keyspace again by its name"):
        doomed.put("a", "1")


def test_another_node_leads_after_the_leader_is_killed(cluster):
    first = cluster.leader()
    term = max(claim.term for claim in cluster.groups())
    cluster[first].kill()
    second = eventually(lambda: (found := cluster.leader()) != first and found)
    groups = cluster.groups()
    assert groups.missing == (first,)
    assert first in str(groups)
    assert max(claim.term for claim in groups) > term
    assert cluster.keyspace("after", mode="quorum", replicas=3).put("a", "b")
    elected = [event for event in cluster.events().where("LeaderElected") if event.node == second]
    assert elected[-1].detail["term"] > term
    followed = cluster.events().where("LeaderChanged")
    assert second in {event.detail["leader"] for event in followed}
    cluster[first].restart()
    eventually(lambda: all(claim.leader == second for claim in cluster.groups()))
    assert [info.name for info in cluster.keyspaces()] == ["after"]
    eventually(lambda: cluster.status()[first].keyspaces == ("after",))


def test_without_a_majority_there_is_no_leader_and_no_change(cluster):
    cluster.keyspace("before", mode="quorum", replicas=3)
    for name in ("n1", "n2"):
        cluster[name].kill()
    with quorate.connect(cluster["n3"].address, timeout=1.0) as lonely:
        with pytest.raises((Unavailable, quorate.OutcomeUnknown)):
            lonely.keyspace("never", mode="quorum", replicas=1)
        assert [info.name for info in lonely.keyspaces()] == ["before"]
        eventually(lambda: lonely.leader() is None)
        # Nothing was proposed without a leader: the error is about the control plane, not about levels.
        with pytest.raises(Unavailable, match=r"the control plane needs 2 of its 3 voter") as raised:
            lonely.keyspace("never", mode="quorum", replicas=1)
        assert (raised.value.required, raised.value.alive) == (2, 1)
        assert lonely.keyspace("before").get("a", consistency=ONE).value is None


def test_altering_a_keyspace_reaches_all_nodes(shared, keyspace):
    info = shared.alter_keyspace(keyspace.name, read=ONE, write=ALL, read_repair="off")
    assert (info.read, info.write, info.read_repair) == (ONE, ALL, "off")
    assert shared.keyspace(keyspace.name).info == info
    assert shared.alter_keyspace(keyspace.name, read_repair="async").read == ONE
    assert keyspace.put("a", "b").level == ALL
    with pytest.raises(InvalidArgument, match="no setting to change"):
        shared.alter_keyspace(keyspace.name)
    with pytest.raises(InvalidArgument, match="4"):
        shared.alter_keyspace(keyspace.name, read=4)
    with pytest.raises(InvalidArgument, match="read_repair 'never'"):
        shared.alter_keyspace(keyspace.name, read_repair="never")
    with pytest.raises(NotFound, match="missing"):
        shared.alter_keyspace("missing", read=ONE)


def test_a_dropped_keyspace_stays_dropped_under_its_old_name(shared, keyspace):
    keyspace.put("a", "b")
    assert shared.drop_keyspace(keyspace.name) == keyspace.info
    with pytest.raises(NotFound):
        keyspace.get("a")
    with pytest.raises(NotFound):
        shared.drop_keyspace(keyspace.name)
    again = shared.keyspace(keyspace.name, mode="quorum", replicas=3)
    assert again.info.id != keyspace.info.id
    assert again.get("a").value is None
    assert keyspace.name in {event.detail["keyspace"] for event in shared.events().where("KeyspaceDropped")}


def test_a_quorum_keyspace_has_no_leader(shared, keyspace):
    with pytest.raises(InvalidArgument, match="it has no leader"):
        shared.leader(keyspace.name)
    with pytest.raises(InvalidArgument, match="name the keyspace"):
        shared.leader(shard=0)
    with pytest.raises(InvalidArgument, match="not both"):
        shared.leader(keyspace.name, key="a", shard=0)
    with pytest.raises(NotFound):
        shared.leader("missing")


def test_every_shard_of_a_consensus_keyspace_has_a_leader(shared):
    accounts = shared.keyspace("led", mode="consensus", replicas=3, shards=2)
    for key in ("a", "b", "c", "d"):
        accounts.put(key, "1")
        led = eventually(lambda key=key: shared.leader("led", key=key))
        assert led == shared.leader("led", shard=accounts.shard_of(key))
    claims = shared.groups().where("led")
    assert {claim.group for claim in claims} == {group.id for group in accounts.info.groups}
    assert len(claims) == 6
    assert "led/0" in str(claims)
    with pytest.raises(InvalidArgument, match="shard=2"):
        shared.leader("led", shard=2)
    with pytest.raises(InvalidArgument, match="its settings cannot be altered"):
        shared.alter_keyspace("led", read=ONE)
    shared.drop_keyspace("led")
    eventually(lambda: not len(shared.groups().where("led")))


async def test_the_asynchronous_twin(shared):
    async with aio.connect(shared.endpoints) as connection:
        assert await connection.leader() in shared
        assert len((await connection.groups()).where("control")) == 3
        await connection.keyspace("twin", mode="quorum")
        assert (await connection.alter_keyspace("twin", read="ALL")).read == ALL
        assert (await connection.drop_keyspace("twin")).name == "twin"


def test_the_command_line(shared):
    def at(*words, check=0):
        return run(*words, endpoints=shared.endpoints, check=check)

    assert at("leader").strip() == json.loads(at("leader", "--json"))["leader"]
    assert {json.loads(line)["node"] for line in at("groups", "control", "--json").splitlines()} == {
        "n1",
        "n2",
        "n3",
    }
    assert "control" in at("groups", "control")
    at("keyspace", "create", "spoken")
    assert "read ONE" in at("keyspace", "alter", "spoken", "--read", "ONE")
    assert "no effect" in at("keyspace", "alter", "spoken", "--replicas", 2, check=2)
    assert "no effect" in at("keyspace", "drop", "spoken", "--read", "ONE", check=2)
    assert "dropped" in at("keyspace", "drop", "spoken")
    assert "spoken" in at("keyspace", "drop", "spoken", check=1)
    assert "no leader" in at("leader", "--keyspace", at_quorum(shared), check=2)


def at_quorum(shared):
    shared.keyspace("leaderless", mode="quorum")
    return "leaderless"


def test_the_data_of_a_dropped_keyspace_is_removed(cluster):
    def used():
        return [
            cluster.metrics().value("quorate_storage_used_bytes", node=node.name, environment="state")
            for node in cluster
        ]

    value = b"x" * 100_000
    for mode in ("consensus", "quorum"):
        before = used()
        kept = cluster.keyspace(f"kept-{mode}", mode=mode, replicas=3)
        kept.put("a", "1")
        filled = cluster.keyspace(f"filled-{mode}", mode=mode, replicas=3)
        for first in range(0, 100, 10):
            filled.put_many({f"k{number}": value for number in range(first, first + 10)})
        eventually(
            lambda before=before: all(now > then + 8e6 for now, then in zip(used(), before, strict=True))
        )
        cluster.drop_keyspace(filled.name)
        # A node that is killed meanwhile continues after its restart.
        cluster["n3"].kill()
        cluster["n3"].restart()
        eventually(
            lambda before=before: all(now < then + 4e6 for now, then in zip(used(), before, strict=True))
        )
        assert kept.get("a").text == "1"
