"""The availability table: writes and reads at each level, by the number of nodes that are down.

For a keyspace with a replica on every node. In quorum mode each level needs as many replicas as it names; in
consensus mode writes and linearizable reads need a majority, and a stale read needs any one node.
"""

import time

import pytest

import quorate
from harness import eventually
from quorate import ALL, LINEARIZABLE, ONE, QUORUM, STALE, OutcomeUnknown, ReadTimeout, Unavailable

CELLS = [(3, 0), (3, 1), (3, 2), (5, 0), (5, 1), (5, 2), (5, 3)]
UNDONE = (Unavailable, OutcomeUnknown, ReadTimeout)


def works(operation):
    """Whether an operation succeeds after the remaining nodes have detected the failures."""
    try:
        operation()
    except UNDONE:
        return False
    return True


def expected(nodes, down):
    """The row of the table: the operations that must succeed with this number of nodes."""
    left, majority = nodes - down, nodes // 2 + 1
    agreed = left >= majority
    return {
        "quorum": {
            "write ONE": left >= 1,
            "write QUORUM": agreed,
            "write ALL": left == nodes,
            "read ONE": left >= 1,
            "read QUORUM": agreed,
            "read ALL": left == nodes,
        },
        "consensus": {
            "write": agreed,
            "read linearizable": agreed,
            "read stale": left >= 1,
        },
    }


@pytest.mark.parametrize(("nodes", "down"), CELLS, ids=[f"{down}-of-{nodes}-down" for nodes, down in CELLS])
def test_operations_with_nodes_down(nodes, down):
    with quorate.Cluster(nodes=nodes) as cluster:
        loose = cluster.keyspace("loose", mode="quorum", replicas=nodes)
        strict = cluster.keyspace("strict", mode="consensus", replicas=nodes)
        loose.put("k", "before", consistency=ALL)
        leader = strict.put("k", "before").leader
        for node in cluster:
            # Followers learn with the next heartbeat that it is committed; a stale read returns what they have learned.
            eventually(lambda name=node.name: strict.get("k", consistency=STALE, node=name).text == "before")
        # The leader is killed first: the remaining nodes must elect another, if they can.
        for name in sorted((node.name for node in cluster), key=lambda name: name != leader)[:down]:
            cluster[name].kill()
        begun = time.monotonic()
        found = {
            "quorum": {
                f"{kind} {level}": works(operation)
                for level in (ONE, QUORUM, ALL)
                for kind, operation in (
                    ("write", lambda level=level: loose.put(f"new {level}", "after", consistency=level)),
                    ("read", lambda level=level: loose.get("k", consistency=level)),
                )
            },
            "consensus": {
                "write": works(lambda: strict.put("k", "after")),
                "read linearizable": works(lambda: strict.get("k", consistency=LINEARIZABLE)),
                "read stale": works(lambda: strict.get("k", consistency=STALE)),
            },
        }
        assert found == expected(nodes, down)
        assert time.monotonic() - begun < 8, "impossible operations fail without waiting"
        if expected(nodes, down)["consensus"]["write"]:
            assert strict.get("k").text == "after"
        else:
            assert strict.get("k", consistency=STALE).text == "before"
        assert loose.get("k", consistency=ONE).text == "before"


def test_writes_resume_automatically_when_a_majority_is_back(cluster):
    strict = cluster.keyspace("strict", mode="consensus", replicas=3)
    strict.put("k", "1")
    cluster["n1"].kill()
    cluster["n2"].kill()
    assert not works(lambda: strict.put("k", "2"))
    cluster["n2"].restart()
    assert strict.put("k", "3", timeout=10).version
    assert strict.get("k").text == "3"
