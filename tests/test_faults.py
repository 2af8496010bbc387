"""Faults of links: their meaning, without processes, and their effect on a cluster of processes."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

import quorate
from harness import eventually
from quorate import (
    ALL,
    ConnectionLost,
    ConnectionRefused,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    faults,
    flow,
)
from quorate.cli.clusters import node_config
from quorate.faults_client import FaultsClient
from quorate.flow import Call, Now, Pause
from quorate.plan import Plan
from quorate.settings import Settings
from quorate.topology import Member, Topology

NAMES = ["n1", "n2", "n3", "n4", "n5"]


# Pure -----------------------------------------------------------------------------------------------------------------


def ways(fault):
    return sorted(fault.blocked)


def test_a_partition_blocks_only_the_links_between_its_groups():
    cut = faults.partition(({"n2", "n1"}, "n3"), False)(NAMES)
    assert cut.groups == (("n1", "n2"), ("n3",))
    assert ways(cut) == [("n1", "n3"), ("n2", "n3"), ("n3", "n1"), ("n3", "n2")]
    assert ways(faults.partition(("n1", "n3"), True)(NAMES)) == [("n1", "n3")]
    three = faults.partition(("n1", "n2", "n3"), False)(NAMES)
    assert len(ways(three)) == 6
    assert faults.severed([three]) == {frozenset(pair) for pair in (("n1", "n2"), ("n1", "n3"), ("n2", "n3"))}
    assert faults.isolate("n2")(["n1", "n2", "n3"]).groups == (("n2",), ("n1", "n3"))
    assert not faults.slow("n1", "n2", 0.1, 0, False)(NAMES).blocked


def test_faults_describe_themselves():
    slow = faults.slow("n1", ["n2", "n3"], 0.05, 0.01, True)(NAMES)
    assert (slow.kind, slow.between, slow.effect) == ("slow", "n1 -> n2,n3", "50 ms late, jitter 10 ms")
    lossy = faults.lossy("n1", "n2", 2.5, False)(NAMES)
    assert (lossy.kind, lossy.between, lossy.effect) == ("lossy", "n1 <-> n2", "2.5 % lost")
    cut = faults.partition(("n1", "n2"), False)(NAMES)
    assert (cut.kind, cut.effect) == ("partition", "blocked")
    table = str(faults.Faults((slow, cut), ("n3",)))
    assert slow.id in table
    assert "no answer from n3" in table
    assert str(faults.Faults(())) == "faults: nothing"


def test_a_fault_round_trips():
    for fault in (
        faults.slow("n1", ["n2", "n3"], 0.05, 0.01, True)(NAMES),
        faults.lossy("n1", "n2", 2.5, False)(NAMES),
        faults.partition(("n1", "n2"), False)(NAMES),
    ):
        assert faults.from_wire(json.loads(json.dumps(faults.to_wire(fault)))) == fault


def test_reports_of_nodes_are_combined():
    one, two = (faults.partition(("n1", "n2"), False)(NAMES) for _ in range(2))
    reports = {"n1": [faults.to_wire(one)], "n2": [*map(faults.to_wire, (one, two))]}
    assert {fault.id: fault.nodes for fault in faults.merged(reports)} == {
        one.id: ("n1", "n2"),
        two.id: ("n2",),
    }


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: faults.partition(("n1",), False), "at least two groups of nodes"),
        (lambda: faults.partition(("n1", "n2", "n3"), True), "name two groups, not 3"),
        (lambda: faults.partition(("n1", "n2"), 1), "one_way=1: use True or False"),
        (lambda: faults.partition(("n1", "n9"), False), "no node 'n9': this cluster has n1, n2, n3, n4, n5"),
        (lambda: faults.partition(("n1", 3), False), "a group of nodes is a list, not int"),
        (lambda: faults.partition((["n1", 7], "n2"), False), "no node 7"),
        (lambda: faults.partition(({"n1", "n2"}, {"n2"}), False), "n2 is named twice"),
        (lambda: faults.partition(("n1", []), False), "a group is empty"),
        (lambda: faults.isolate("x"), "no node 'x'"),
        (lambda: faults.isolate(["n1"]), "is not the name of a node"),
        (lambda: faults.slow("n1", "n2", -1, 0, False), "delay=-1: give seconds, from 0 to 3600"),
        (lambda: faults.slow("n1", "n2", 0, float("nan"), False), "jitter=nan: give seconds"),
        (lambda: faults.slow("n1", "n2", "1", 0, False), "delay='1': give seconds"),
        (lambda: faults.slow("n1", "n2", 0, 0, False), "no message would be delayed"),
        (
            lambda: faults.lossy("n1", "n2", 101, False),
            "percent=101: give of a hundred messages, from 0 to 100",
        ),
        (lambda: faults.lossy("n1", "n2", 0, False), "no message would be dropped"),
    ],
)
def test_invalid_faults_are_rejected_with_an_explanation(make, words):
    with pytest.raises(InvalidArgument, match=words):
        make()(NAMES)


def test_a_single_node_cannot_be_isolated():
    with pytest.raises(InvalidArgument, match="no node to isolate it from"):
        faults.isolate("n1")(["n1"])


class Nodes:
    """The faults of simulated nodes: runs the flows of the faults client."""

    def __init__(self, count=3):
        members = tuple(Member(f"n{n}", f"h:{n}", f"p:{n}", "", "r", "d") for n in range(1, count + 1))
        self.topology_ = Topology("0" * 32, 1, members, 150, "murmur3")
        self.kept = {member.number: {} for member in members}
        self.down = {}
        self.time = 0.0
        self.sent = []
        self.meanwhile = []

    def topology(self, timeout):
        return self.topology_
        yield

    def run(self, flow):
        step = next(flow)
        try:
            while True:
                try:
                    answer = self._answer(step) if isinstance(step, Call) else self._waited(step)
                except BaseException as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            return stop.value

    def _waited(self, step):
        assert isinstance(step, (Now, Pause))
        self.time += step.seconds if isinstance(step, Pause) else 0.0
        return self.time if isinstance(step, Now) else None

    def _answer(self, call):
        if call.method == "ask":
            everybody = [{"node": node, "up": True} for node in self.kept]
            return [{"peers": everybody} for _ in call.arguments[0]]
        numbers, change, _ = call.arguments
        # Changes by another client between two requests.
        if change is not None and self.meanwhile:
            self.meanwhile.pop(0)()
        return [self.down.get(number) or self._change(number, change) for number in numbers]

    def _change(self, number, change):
        kept = self.kept[number]
        if change is not None:
            self.sent.append((number, change))
            ((what, items),) = change.items()
            if what == "Replace":
                kept.clear()
            for item in items:
                if what == "Heal":
                    kept.pop(item, None)
                else:
                    kept[item["id"]] = item
        return list(kept.values())

    def end(self, *numbers):
        """End nodes; they have no faults after a restart."""
        for number in numbers or self.kept:
            self.kept[number].clear()
            self.down[number] = ConnectionRefused("connection refused")

    def ids(self, number):
        return {f"{each:08x}" for each in self.kept[number]}


def test_faults_are_set_on_all_nodes_and_healed_one_by_one_or_all():
    nodes = Nodes()
    board = FaultsClient(nodes)
    one = nodes.run(board.begin(faults.isolate("n1"), 1))
    two = nodes.run(board.begin(faults.slow("n1", "n2", 1, 0, False), 1))
    assert one.nodes == ("n1", "n2", "n3")
    assert nodes.run(board.severed(1)) == {frozenset(("n1", "n2")), frozenset(("n1", "n3"))}
    assert nodes.run(board.end([one.id], 1)).checked() == (one.id,)
    assert {fault.id for fault in nodes.run(board.report(1))} == {two.id}
    with pytest.raises(NotFound, match=f"active faults are {two.id}"):
        nodes.run(board.named([one.id], 1))
    assert nodes.run(board.end(None, 1)).checked() == (two.id,)
    assert not nodes.run(board.report(1)).faults


def test_a_fault_that_one_node_rejects_is_active_on_none():
    nodes = Nodes()
    nodes.down[3] = PermissionDenied("no faults here")
    board = FaultsClient(nodes)
    with pytest.raises(PermissionDenied):
        nodes.run(board.begin(faults.isolate("n1"), 1))
    assert not any(nodes.kept.values())


def test_a_client_that_does_not_know_which_nodes_are_up_skips_unresponsive_ones():
    nodes = Nodes()
    nodes.down[3] = ConnectionLost("gone")
    board = FaultsClient(nodes)
    assert nodes.run(board.begin(faults.isolate("n1"), 1)).nodes == ("n1", "n2")
    assert nodes.run(board.report(1)).missing == ("n3",)
    nodes.down |= {1: OutcomeUnknown("late"), 2: ConnectionLost("gone")}
    with pytest.raises(ConnectionLost, match="no node responds"):
        nodes.run(board.begin(faults.isolate("n1"), 1))
    board.awake = lambda: {"n1"}
    with pytest.raises(OutcomeUnknown):
        nodes.run(board.begin(faults.isolate("n1"), 1))


def test_a_restarted_node_receives_the_faults_of_the_others():
    nodes = Nodes()
    board = FaultsClient(nodes)
    one = nodes.run(board.begin(faults.isolate("n1"), 1))
    nodes.kept[3].clear()
    nodes.run(board.restore("n3", 1, fresh=True))
    assert nodes.ids(3) == {one.id}
    # Another client has healed it while n3 was paused.
    nodes.kept[1].clear()
    nodes.kept[2].clear()
    nodes.run(board.restore("n3", 1, fresh=False))
    assert nodes.ids(3) == set()
    # It stays healed when no other node is reachable.
    nodes.down |= {1: ConnectionLost("gone"), 2: ConnectionLost("gone")}
    nodes.run(board.restore("n3", 1, fresh=True))
    assert nodes.ids(3) == set()


def restart(nodes, board, number):
    board.starting(f"n{number}")
    del nodes.down[number]
    nodes.run(board.restore(f"n{number}", 1, fresh=True))


def test_own_faults_are_restored_after_all_nodes_ended():
    nodes = Nodes()
    board = FaultsClient(nodes)
    cut = nodes.run(board.begin(faults.isolate("n1"), 1))
    nodes.end()
    board.starting("n1")
    board.starting("n2")
    del nodes.down[1], nodes.down[2]
    # Two nodes that have just started have no faults, but these were not healed.
    assert not nodes.run(board.report(1)).faults
    for number in (1, 2):
        nodes.run(board.restore(f"n{number}", 1, fresh=True))
    restart(nodes, board, 3)
    assert all(nodes.ids(number) == {cut.id} for number in nodes.kept)


@pytest.mark.parametrize("which", ["all", "by its id"])
def test_faults_healed_while_all_nodes_are_down_stay_healed(which):
    nodes = Nodes()
    board = FaultsClient(nodes)
    board.awake = lambda: {f"n{number}" for number in nodes.kept if number not in nodes.down}
    cut = nodes.run(board.begin(faults.isolate("n1"), 1))
    nodes.end()
    if which == "by its id":
        nodes.run(board.named([cut.id], 1))
    assert nodes.run(board.end(None if which == "all" else [cut.id], 1)).checked() == (cut.id,)
    for number in (1, 2, 3):
        restart(nodes, board, number)
    assert not any(nodes.kept.values())


def test_faults_healed_by_another_client_stay_healed_after_all_nodes_ended():
    nodes = Nodes()
    board, other = FaultsClient(nodes), FaultsClient(nodes)
    cut = nodes.run(board.begin(faults.isolate("n1"), 1))
    assert nodes.run(other.end(None, 1)).checked() == (cut.id,)
    assert not nodes.run(board.report(1)).faults
    nodes.end()
    for number in (1, 2, 3):
        restart(nodes, board, number)
    assert not any(nodes.kept.values())


def test_healing_names_nodes_that_may_still_have_a_fault():
    nodes = Nodes()
    board = FaultsClient(nodes)
    cut = nodes.run(board.begin(faults.isolate("n1"), 1))
    nodes.end(2)
    nodes.down[3] = OutcomeUnknown("late")
    healed = nodes.run(board.end(None, 1))
    assert healed == faults.Healed((cut.id,), ("n2",), ("n3",))
    with pytest.raises(OutcomeUnknown, match=r"no answer from n3, where .* resume or restart"):
        healed.checked()
    # Each node that is known to be up must have healed.
    board.awake = lambda: {"n1", "n3"}
    nodes.down[3] = ConnectionRefused("connection refused")
    assert nodes.run(board.end([cut.id], 1)).missing == ("n3",)
    del nodes.down[3]
    assert nodes.run(board.end(None, 1)).checked() == (cut.id,)
    assert not any(nodes.kept.values())


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_an_interrupted_fault_is_active_nowhere(interruption):
    class Interrupted(Nodes):
        def _answer(self, call):
            answer = super()._answer(call)
            if call.arguments[1] and "Add" in call.arguments[1]:
                raise interruption
            return answer

    nodes = Interrupted()
    board = FaultsClient(nodes)
    with pytest.raises(interruption):
        nodes.run(board.begin(faults.isolate("n1"), 1))
    if interruption is not GeneratorExit:
        assert not any(nodes.kept.values())
    # Nor does it return.
    nodes.end()
    restart(nodes, board, 1)
    assert not nodes.ids(1)


class _Pending:
    """A call that is waited for or awaited."""

    def __init__(self, wait, start):
        self.wait = wait
        self._start = start

    def __await__(self):
        return self._start().__await__()


class Interruptible:
    """The extension's client for nodes; a call that adds a fault is interrupted once nodes have it."""

    def __init__(self, nodes, interruption=None):
        self._nodes = nodes
        self._interruption = interruption
        self.added = asyncio.Event()
        self.heal = asyncio.Event()

    def faults(self, *arguments):
        return _Pending(lambda: self._answer(*arguments), lambda: self._answer_async(*arguments))

    def _answer(self, *arguments):
        answer = self._nodes._answer(Call("faults", arguments))
        if "Add" in (arguments[1] or ()) and self._interruption is not None:
            raise self._interruption
        return answer

    async def _answer_async(self, *arguments):
        if "Heal" in (arguments[1] or ()):
            await self.heal.wait()
        answer = self._answer(*arguments)
        if "Add" in (arguments[1] or ()):
            self.added.set()
            while True:
                await asyncio.sleep(0)
        return answer


def test_ctrl_c_leaves_no_fault_behind():
    nodes = Nodes()
    with pytest.raises(KeyboardInterrupt):
        flow.run(
            Interruptible(nodes, KeyboardInterrupt()), FaultsClient(nodes).begin(faults.isolate("n1"), 1)
        )
    assert len(nodes.sent) == 6, "each node receives the fault and its end"
    assert not any(nodes.kept.values())


async def test_cancellation_leaves_no_fault_behind_even_if_it_comes_twice():
    nodes = Nodes()
    client = Interruptible(nodes)
    making = asyncio.ensure_future(flow.run_async(client, FaultsClient(nodes).begin(faults.isolate("n1"), 1)))
    await client.added.wait()
    assert all(nodes.kept.values())
    for _ in range(2):
        making.cancel()
        await asyncio.wait([making], timeout=0)
    client.heal.set()
    with pytest.raises(asyncio.CancelledError):
        await making
    while any(nodes.kept.values()):
        await asyncio.sleep(0)


def test_a_coroutine_that_is_closed_leaves_no_fault_behind():
    nodes = Nodes()
    making = flow.run_async(Interruptible(nodes), FaultsClient(nodes).begin(faults.isolate("n1"), 1))
    # As by a loop that ends without cancelling its tasks.
    making.send(None)
    assert all(nodes.kept.values())
    making.close()
    assert not any(nodes.kept.values())


def test_links_with_a_delay_beyond_the_idle_timeout_count_as_cut():
    def slow(delay, jitter, **options):
        return faults.slow("n1", "n2", delay, jitter, options.get("one_way", False))(NAMES)

    pair = {frozenset(("n1", "n2"))}
    assert faults.severed([slow(0.9, 0.2)]) == pair
    assert faults.severed([slow(0.5, 0, one_way=True), slow(0.5, 0)]) == pair
    assert not faults.severed([slow(0.5, 0.4)])
    assert not faults.severed([slow(1, 0.4)], 2.0)
    assert faults.severed([slow(0.1, 0)], Plan(3, settings={"idle_ms": 100, "heartbeat_ms": 20}).idle) == pair
    assert Plan(3).idle == 1.0


def test_a_node_is_updated_again_after_a_concurrent_change():
    nodes = Nodes()
    board, other = FaultsClient(nodes), FaultsClient(nodes)
    cut = nodes.run(board.begin(faults.isolate("n1"), 1))
    nodes.kept[3].clear()
    # The other client heals after the others were asked, and before n3 is updated.
    nodes.meanwhile.append(lambda: nodes.run(other.end([cut.id], 1)))
    nodes.run(board.restore("n3", 1, fresh=True))
    assert not any(nodes.kept.values())
    # The same id with another effect is another fault.
    cut = nodes.run(board.begin(faults.isolate("n1"), 1))
    nodes.kept[3][int(cut.id, 16)]["impairment"]["block"] = False
    nodes.run(board.restore("n3", 1, fresh=False))
    assert nodes.kept[3] == nodes.kept[1]


async def test_nodes_are_paused_and_resumed_without_blocking_the_event_loop():
    threads = []
    stub = SimpleNamespace(
        pause=lambda _: threads.append(threading.get_ident()),
        resume=lambda _: threads.append(threading.get_ident()),
    )
    board = SimpleNamespace(restore=lambda *_, **__: (_ for _ in ()))
    node = quorate.aio.Node(SimpleNamespace(_processes=stub, _faults_client=board, _client=None), "n1")
    await node.pause()
    await node.resume()
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def test_where_faults_are_allowed():
    def config(**environment):
        given = {"QUORATE_DATA": "/d", **environment}
        return node_config(Settings(_arguments(), given))

    assert "allow_faults" not in config()
    assert config(QUORATE_ALLOW_FAULTS="yes")["allow_faults"] is True
    with pytest.raises(InvalidArgument, match="QUORATE_ALLOW_FAULTS='maybe'"):
        config(QUORATE_ALLOW_FAULTS="maybe")
    with pytest.raises(InvalidArgument, match="allow_faults='x'"):
        Plan(3, settings={"allow_faults": "x"})


def _arguments():
    from argparse import Namespace

    return Namespace(command="node")


# Processes ------------------------------------------------------------------------------------------------------------


def sees(cluster, node, other):
    status = next(each for each in cluster.status() if each.name == node)
    return any(peer.name == other and peer.up for peer in status.peers)


def test_faults_of_one_link_add_up_and_end_one_by_one(cluster):
    first = cluster.partition("n1", "n2")
    with cluster.isolate("n1") as second:
        assert {fault.id for fault in cluster.faults()} == {first.id, second.id}
        eventually(lambda: not sees(cluster, "n1", "n2") and not sees(cluster, "n1", "n3"))
        assert sees(cluster, "n2", "n3")
    assert second.healed
    assert sees(cluster, "n1", "n3"), "healing waits until the nodes are connected"
    assert not sees(cluster, "n1", "n2")
    first.heal()
    first.heal()
    assert sees(cluster, "n1", "n2")
    assert not cluster.faults().faults
    events = [event for event in cluster.events() if event.name == "Fault"]
    assert len(events) == 12, "on each of three nodes each of two faults begins and ends"
    assert cluster.metrics().value("quorate_timeline_events_total", event="Fault", node="n1") == 4


def test_a_node_that_was_killed_or_paused_has_the_faults_of_the_others(cluster):
    cluster["n3"].kill()
    cut = cluster.isolate("n3")
    assert cut.nodes == ("n1", "n2")
    cluster["n3"].restart()
    assert cluster.faults()[0].nodes == ("n1", "n2", "n3")
    assert not sees(cluster, "n3", "n1")
    cluster["n3"].pause()
    cut.heal()
    cluster["n3"].resume()
    assert not cluster.faults().faults
    eventually(lambda: sees(cluster, "n3", "n1") and sees(cluster, "n1", "n3"))
    # All of them at once: no other node has the faults.
    cut = cluster.isolate("n1")
    for node in cluster:
        node.kill(wait=False)
    for node in cluster:
        node.restart(wait=False)
    assert [(fault.id, fault.nodes) for fault in cluster.faults()] == [(cut.id, ("n1", "n2", "n3"))]
    cluster.heal()


def test_a_node_under_a_delay_beyond_its_deadline_can_be_restarted(cluster):
    with cluster.slow("n3", {"n1", "n2"}, delay=30):
        cluster["n3"].restart(timeout=10)
        assert cluster.faults()[0].nodes == ("n1", "n2", "n3")
    assert sees(cluster, "n3", "n1")


def test_nodes_that_allow_no_faults_reject_them():
    with quorate.Cluster(nodes=2, settings={"allow_faults": False}) as cluster:
        with pytest.raises(PermissionDenied, match="--allow-faults"):
            cluster.isolate("n1")
        assert not cluster.faults().faults
        cluster["n1"].restart()
        cluster["n2"].pause()
        cluster["n2"].resume()


def test_slow_and_lossy_links(cluster):
    users = cluster.keyspace("users", mode="quorum", replicas=3)
    with cluster.slow({"n1", "n2"}, "n3", delay=0.1, jitter=0.02):
        assert users.put("a", "1", consistency=ALL).latency > 0.1
    # Messages in flight are still late, and later ones stay behind them.
    eventually(lambda: users.put("a", "2", consistency=ALL).latency < 0.1)
    with cluster.lossy({"n1", "n2"}, "n3", percent=100) as fault:
        assert fault.nodes == ("n1", "n2", "n3")
        with pytest.raises(OutcomeUnknown):
            users.put("a", "3", consistency=ALL, timeout=0.3)
        assert sees(cluster, "n1", "n3"), "heartbeats are not lost"
    assert users.put("a", "4", consistency=ALL).replicas


def test_two_clients_do_not_undo_each_others_faults(cluster):
    mine = cluster.partition("n1", "n2")
    with quorate.connect(cluster.endpoints) as other, other.slow("n2", "n3", delay=0.01):
        assert len(cluster.faults()) == 2
    assert [fault.id for fault in cluster.faults()] == [mine.id]
    with quorate.connect(cluster.endpoints) as other:
        assert other.heal(mine.id) == (mine.id,)
        with pytest.raises(NotFound, match="active faults are none"):
            other.heal(mine.id)
    mine.heal()


async def test_faults_of_the_asynchronous_twin():
    async with quorate.aio.Cluster(nodes=3) as cluster:
        async with cluster.partition("n1", {"n2", "n3"}) as fault:
            found = await cluster.faults()
            assert [each.id for each in found] == [fault.id]
        assert fault.healed
        slow = await cluster.slow("n1", "n2", delay=0.01)
        assert await cluster.heal(slow.id) == (slow.id,)
        await cluster.lossy("n1", "n2", percent=1, one_way=True)
        await cluster.isolate("n3")
        await cluster["n3"].restart()
        assert all(each.nodes == ("n1", "n2", "n3") for each in await cluster.faults())
        await cluster["n3"].pause()
        assert len(await cluster.heal()) == 2
        await cluster["n3"].resume()
        assert not (await cluster.faults()).faults
