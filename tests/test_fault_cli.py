"""Fault injection from the shell, where only the nodes remember the faults."""

import json

import pytest

from harness import eventually
from shell import run


@pytest.fixture
def broken(cluster):
    """A cluster, and a function that runs `quorate fault` against it."""
    return lambda *arguments, **options: run("fault", *arguments, endpoints=cluster.endpoints, **options)


def documents(printed):
    return [json.loads(line) for line in printed.splitlines()]


def test_a_partition_is_created_listed_and_healed_from_the_shell(cluster, broken):
    (made,) = documents(broken("partition", "n1,n2", "n3", "--json"))
    assert (made["kind"], made["groups"]) == ("partition", [["n1", "n2"], ["n3"]])
    (listed,) = documents(broken("list", "--json"))
    assert listed == {**made, "nodes": ["n1", "n2", "n3"]}
    assert "n1,n2 <-> n3" in broken("list")
    eventually(
        lambda: not any(peer.up for node in cluster.status() if node.name == "n3" for peer in node.peers)
    )
    assert documents(broken("heal", "--json")) == [{"healed": [made["id"]]}]
    assert all(peer.up for node in cluster.status() for peer in node.peers)
    assert "no active faults" in broken("heal")


def test_links_are_slowed_and_lose_messages_from_the_shell(cluster, broken):
    assert "n1 -> n2,n3 50 ms late, jitter 5 ms" in broken(
        *("slow", "n1", "n2,n3", "--delay", 0.05, "--jitter", 0.005, "--one-way")
    )
    (lossy,) = documents(broken("lossy", "n1", "n2", "--percent", 10, "--json"))
    assert lossy["percent"] == 10
    assert "n3 <-> n1,n2 blocked" in broken("isolate", "n3")
    assert len(cluster.faults()) == 3
    assert lossy["id"] in broken("heal", lossy["id"])
    assert len(cluster.faults()) == 2
    assert f"no fault '{lossy['id']}'" in broken("heal", lossy["id"], check=1)
    # The other nodes are updated although one is down, which is named.
    cluster["n3"].kill()
    assert "no answer from n3" in broken("list")
    assert documents(broken("heal", "--json"))
    # The same for a node that does not respond, but it may still apply the change.
    cluster["n3"].restart()
    broken("isolate", "n3")
    cluster["n3"].pause()
    assert broken("heal", check=1).startswith("healed: ")
    assert "warning: no answer from n3, where faults may still be active" in broken("heal", check=1)
    cluster["n3"].resume()
    assert "no active faults" in broken("heal")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("partition", "n1"), "two groups of nodes or more: `quorate fault partition n1 n2,n3`"),
        (("partition", "n1", "n2", "n3", "--one-way"), "--one-way is from the first group to the second"),
        (("partition", "n1", "n7"), "no node 'n7': this cluster has n1, n2, n3"),
        (("partition", "n1", "n2", "--percent", 1), "--percent is for `fault lossy`, not for partition"),
        (("isolate", "n1", "n2"), "write it like `fault isolate n1`"),
        (("slow", "n1", "n2"), "give --delay SECONDS"),
        (("slow", "n1", "n2", "--delay", -1), "--delay -1.0: give seconds"),
        (("lossy", "n1", "n2"), "give --percent N"),
        (("list", "n1"), "write it like `fault list`"),
    ],
)
def test_wrong_usage_is_explained(shared, arguments, words):
    assert words in run("fault", *arguments, endpoints=shared.endpoints, check=2)


def test_a_node_allows_no_faults_by_default(tmp_path):
    from quorate.cli.parser import build

    parse = build().parse_args
    assert parse(["node"]).allow_faults is None
    assert parse(["node", "--allow-faults"]).allow_faults is True
    assert parse(["up", "--no-allow-faults"]).allow_faults is False
