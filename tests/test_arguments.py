"""Wrong arguments: every error is one of ours, and names a valid value."""

import pytest

import quorate
from quorate import ALL, Context, InvalidArgument, Ring, aio, answers, arguments
from quorate.plan import Plan

# Wrong values; some calls accept some of them.
WRONG = [
    None,
    5,
    2.5,
    True,
    float("nan"),
    -1,
    10**400,
    1e-9,
    "x",
    "\ud800",
    "a\0b",
    b"junk",
    [],
    [1],
    ["a"],
    [("a",)],
    {},
    {"a": 1},
    object(),
]


def attempts(cluster, keyspace, wrong):
    """Yield a name and a call for every argument."""
    ring, status, node = Ring(3), cluster.status(), cluster["n1"]
    events, metrics = cluster.events(), cluster.metrics()
    yield "Context.from_bytes", lambda: Context.from_bytes(wrong)
    yield "Ring", lambda: Ring(wrong)
    for name in ("vnodes", "hash", "racks", "datacenters"):
        yield f"Ring {name}", lambda name=name: Ring(3, **{name: wrong})
    for method in ("nodes_for_key", "replica_sets", "distribution", "moved", "token_of"):
        yield f"Ring.{method}", lambda method=method: getattr(ring, method)(wrong)
    yield "Plan", lambda: Plan(wrong)
    for name in (
        *("data_dir", "racks", "datacenters", "host", "port", "log_level", "secret", "insecure", "settings"),
        *("vnodes", "hash", "name"),
    ):
        yield f"Plan {name}", lambda name=name: Plan(3, **{name: wrong})
    for connect in (quorate.connect, aio.connect):
        if wrong != "x" or connect is aio.connect:
            yield "connect", lambda connect=connect: connect(wrong, timeout=0.1)
    for method in ("put", "put_many", "get", "get_many", "delete"):
        more = ("v",) if method == "put" else ()
        yield method, lambda method=method, more=more: getattr(keyspace, method)(wrong, *more)
    yield "value", lambda: keyspace.put("k", wrong)
    yield "values", lambda: keyspace.put_many({"k": wrong})
    for name in ("context", "consistency", "timeout", "trace"):
        yield f"put {name}", lambda name=name: keyspace.put("k", "v", **{name: wrong})
    for name in ("consistency", "timeout", "trace", "node"):
        yield f"get {name}", lambda name=name: keyspace.get("k", **{name: wrong})
    for name in ("start", "end", "prefix", "consistency", "timeout", "limit", "page_size"):
        yield f"scan {name}", lambda name=name: list(keyspace.scan(**{name: wrong}))
    for name in ("mode", "replicas", "read", "write", "read_repair"):
        if (name, wrong) != ("mode", None):
            yield f"keyspace {name}", lambda name=name: cluster.keyspace("wrong", **{name: wrong})
    for method in ("keyspace", "health", "distribution", "trace"):
        yield method, lambda method=method: getattr(cluster, method)(wrong)
    for method in ("status", "health", "metrics", "events"):
        yield f"{method} timeout", lambda method=method: getattr(cluster, method)(timeout=wrong)
    yield "partition", lambda: cluster.partition(wrong, "n2")
    for method in ("isolate", "heal"):
        yield method, lambda method=method: getattr(cluster, method)(wrong)
    for name in ("delay", "jitter", "one_way"):
        given = {"delay": 0.001, name: wrong}
        yield f"slow {name}", lambda given=given: cluster.slow("n1", "n2", **given).heal()
    yield "lossy percent", lambda: cluster.lossy("n1", "n2", percent=wrong).heal()
    yield "nodes_for_key", lambda: cluster.nodes_for_key(wrong, "k")
    yield "cluster[]", lambda: cluster[wrong]
    yield "status[]", lambda: status[wrong]
    yield "log", lambda: node.log(wrong)
    yield "events.where", lambda: events.where(wrong)
    yield "metrics.where", lambda: metrics.where(wrong)
    if wrong is not None and not isinstance(wrong, (int, float)):
        yield "stop timeout", lambda: node.stop(timeout=wrong)
        yield "restart timeout", lambda: node.restart(timeout=wrong)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong!r:.12}")
def test_wrong_arguments_raise_only_our_errors(shared, keyspace, wrong):
    for name, attempt in attempts(shared, keyspace, wrong):
        try:
            attempt()
        except quorate.QuorateError:
            continue
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize(
    ("attempt", "named"),
    [
        (lambda keyspace: keyspace.put("a", "1", context=b"junk"), r"entry\.context, not bytes"),
        (lambda keyspace: keyspace.delete("a", context={"n1": 1}), r"entry\.context, not dict"),
        (lambda keyspace: keyspace.put_many(["a"]), "pairs of key and value, not 'a'"),
        (lambda keyspace: keyspace.put_many("ab"), "a list, not str"),
        (lambda keyspace: keyspace.get_many("abc"), r"a list, not str: write \['abc'\]"),
        (lambda keyspace: keyspace.get_many(None), "a list, not None$"),
        (lambda keyspace: keyspace.put("\ud800", "1"), "cannot be encoded as UTF-8"),
        (lambda keyspace: keyspace.put("a", "\ud800"), "the value cannot be encoded as UTF-8"),
        (lambda keyspace: keyspace.put("a", "1", timeout=1e-9), "at least 0.001 seconds"),
        (lambda keyspace: keyspace.get("a", timeout=86_401), "timeout 86401: give at most 86400 seconds"),
        (lambda keyspace: keyspace.put("a", "1", trace=1), "trace=1: use True or False"),
        (
            lambda _: quorate.connect(None),
            'text like "host1:7400,host2:7400", or a list of such addresses, not None$',
        ),
        (lambda _: quorate.connect("127.0.0.1", secret=5), "secret is a str"),
        (lambda _: Context.from_bytes(b"\0\0"), "not a context"),
        (lambda _: quorate.Cluster(nodes="5"), "nodes='5': a cluster has a whole number"),
        (lambda _: quorate.Cluster(nodes=True), "nodes=True"),
        (lambda _: quorate.Cluster(nodes=100_000), "nodes=100000"),
        (
            lambda _: quorate.Cluster(log_level="x"),
            "log_level='x': use off, error, warn, info, debug, trace, or",
        ),
        (lambda _: quorate.Cluster(log_level="info,x"), "log_level='info,x'"),
        (lambda _: quorate.Cluster(settings={"spans": object()}), "spans=<object"),
        (
            lambda _: quorate.Cluster(settings={"map_size_bytes": "x"}),
            "map_size_bytes='x': give a number from",
        ),
        (
            lambda _: quorate.Cluster(settings={"worker_threads": 2.5}),
            "worker_threads=2.5: give a number from 1",
        ),
        (lambda _: quorate.Cluster(settings={"record_dir": 5}), "record_dir=5: give the path of a directory"),
        (
            lambda _: quorate.Cluster(settings={"span": 5}),
            "unknown setting span: there are allow_faults, generation",
        ),
        (lambda _: quorate.Cluster(data_dir=""), "data_dir=''"),
        (lambda _: quorate.Cluster(data_dir="a\0b"), "the path of a directory"),
    ],
)
def test_the_error_names_a_valid_value(keyspace, attempt, named):
    with pytest.raises(quorate.InvalidArgument, match=named):
        attempt(keyspace)


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/none/below"])
def test_an_invalid_directory_is_rejected(tmp_path, where):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(quorate.DataDirectoryError, match="cannot be used") as caught:
        quorate.Cluster(nodes=1, data_dir=tmp_path / where)
    assert where.removeprefix("file/") in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unwritable_log_fails_the_start(tmp_path):
    (tmp_path / "n1.log").mkdir()
    with pytest.raises(quorate.ClusterStartError, match=r"n1 does not start.*n1\.log"):
        quorate.Cluster(nodes=1, data_dir=tmp_path)


def test_keys_that_are_not_text_are_bytes_in_results(keyspace):
    keyspace.put_many([(bytearray(b"a"), "1")])
    assert keyspace.get_many([bytearray(b"a"), "b"], consistency=ALL)[b"a"].text == "1"


def test_stopping_a_node_times_out(cluster):
    cluster["n1"].pause()
    processes = cluster._processes
    process = processes.process("n1")
    # It cannot receive the signal that resumes it, as if it hung.
    process.signal, process.wait = (lambda number: None), (lambda timeout: False)
    with pytest.raises(quorate.StopTimeout, match=r"n1 still runs 0\.1 s after SIGTERM"):
        cluster["n1"].stop(timeout=0.1)
    assert issubclass(quorate.StopTimeout, TimeoutError)
    del process.signal, process.wait


def test_a_node_logs_at_the_given_level():
    assert [arguments.log_filter(level) for level in ("WARN", "info,quorate_node=debug")]
    with quorate.Cluster(nodes=1, log_level="off,quorate_node=info") as cluster:
        assert "quorate_node" in cluster["n1"].log()


def test_pages_end_with_the_limit_or_with_the_keys():
    pages = arguments.Pages("a", None, None, 5, 2)
    assert pages.request() == (b"a", None, False, 2)
    assert pages.advance(2, b"c")
    assert pages.request() == (b"c", None, True, 2)
    assert pages.advance(2, b"e")
    assert pages.request() == (b"e", None, True, 1)
    assert not pages.advance(1, b"f")
    assert not arguments.Pages(None, None, None, 0, 2).wanted
    assert not arguments.Pages(None, None, "p", None, 2).advance(1, None)


def test_election_timings_have_names():
    with pytest.raises(
        quorate.InvalidArgument, match=r"raft_timing='hasty': use default, conservative or aggressive"
    ):
        quorate.Cluster(nodes=1, raft_timing="hasty")
    with quorate.Cluster(nodes=1, raft_timing="aggressive") as cluster:
        assert cluster.keyspace("a", mode="quorum", replicas=1).put("a", "b")


class Turning(dict):
    """A mapping whose order differs from one iteration to the next, as another thread may change it meanwhile."""

    def items(self):
        found = list(super().items())
        self.turned = not getattr(self, "turned", False)
        return found[::-1] if self.turned else found

    def __iter__(self):
        return iter([key for key, _ in self.items()])

    def values(self):
        return [value for _, value in self.items()]


def test_the_values_of_a_mapping_remain_with_their_keys():
    named, batches = arguments.put_batches(Turning(a="1", b="2", c="3"))
    pairs = [pair for batch in batches for pair in batch]
    assert sorted(pairs) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert [(name.encode(), raw) for name, raw in zip(*named, strict=True)] == [
        (key, key) for key, _ in pairs
    ]


@pytest.mark.parametrize("value", [5, None, "\ud800"])
def test_an_invalid_value_of_a_batch_is_named_by_its_key(value):
    with pytest.raises(InvalidArgument, match="key 'b': "):
        arguments.put_batches({"a": "1", "b": value})


def test_a_batch_has_a_result_for_each_key():
    named, _ = arguments.get_batches(["a", "b", "a"])
    assert answers.batch("reads", lambda *parts: parts, named, [1, 2], None) == {
        "a": (1, b"a", None),
        "b": (2, b"b", None),
    }
    for raws in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match="results of 2 reads"):
            answers.batch("reads", lambda *parts: parts, named, raws, None)
