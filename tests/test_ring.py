"""The ring, computed without a cluster."""

import pytest

from quorate import InvalidArgument, Ring


def test_a_key_has_distinct_nodes_and_shorter_lists_begin_longer_ones():
    ring = Ring(nodes=5)
    for number in range(200):
        nodes = ring.nodes_for_key(f"key-{number}", count=5)
        assert sorted(nodes) == ["n1", "n2", "n3", "n4", "n5"]
        assert ring.nodes_for_key(f"key-{number}", count=3) == nodes[:3]


def test_the_first_node_owns_the_arc_of_the_token():
    ring = Ring(nodes=4, vnodes=16)
    tokens = ring.tokens
    assert len(tokens) == 64
    assert tokens == sorted(tokens)
    for number in range(200):
        token = ring.token_of(f"key-{number}")
        owner = next((node for end, node in tokens if end >= token), tokens[0][1])
        assert ring.nodes_for_key(f"key-{number}", count=1) == (owner,)


def test_text_and_its_bytes_are_the_same_key():
    ring = Ring(nodes=3)
    assert ring.token_of("grün") == ring.token_of("grün".encode())


@pytest.mark.parametrize("hash_name", ["murmur3", "md5", "xxh3"])
def test_tokens_are_allocated_for_balance(hash_name):
    for nodes in range(3, 10):
        report = Ring(nodes=nodes, hash=hash_name).distribution(replicas=3)
        assert report.primary.deviation < 0.05
        assert report.primary.score > 95
        assert report.random_deviation > report.primary.deviation
        assert sum(share.primary for share in report.nodes) == pytest.approx(1)
        assert sum(share.stored for share in report.nodes) == pytest.approx(3)


def test_racks_share_the_copies():
    racks = {"n1": "a", "n2": "a", "n3": "b", "n4": "b"}
    ring = Ring(nodes=4, racks=racks)
    for number in range(100):
        nodes = ring.nodes_for_key(f"key-{number}", count=2)
        assert {racks[node] for node in nodes} == {"a", "b"}


def test_one_more_node_moves_about_its_share():
    assert 0.15 < Ring(nodes=4).moved(Ring(nodes=5), replicas=1) < 0.25


def test_replica_sets_match_the_keys():
    ring = Ring(nodes=5)
    sets = set(ring.replica_sets(3))
    assert {ring.nodes_for_key(f"key-{number}") for number in range(500)} <= sets


def test_a_distribution_has_a_repr():
    report = Ring(nodes=3).distribution()
    assert "primary: score" in str(report)
    assert "<pre" in report._repr_html_()
    assert report.to_dict()["nodes"][0]["node"] == "n1"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"nodes": 0}, "nodes=0|at least one node"),
        ({"nodes": ["n1", "n1"]}, "n1"),
        ({"nodes": ["one"]}, "one"),
        ({"vnodes": 0}, "vnodes=0"),
        ({"vnodes": -1}, "vnodes=-1"),
        ({"vnodes": 65_535}, "lower vnodes"),
        ({"hash": "sha1"}, "sha1"),
        ({"racks": {"n9": "a"}}, "n9"),
    ],
)
def test_invalid_rings(arguments, named):
    with pytest.raises(InvalidArgument, match=named):
        Ring(**{"nodes": 3, **arguments})


@pytest.mark.parametrize("count", [0, -1, 4, 300])
def test_more_copies_than_nodes_are_rejected(count):
    with pytest.raises(InvalidArgument):
        Ring(nodes=3).nodes_for_key("a", count=count)
