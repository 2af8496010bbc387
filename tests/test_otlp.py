"""Spans are exported over OTLP, joined across processes, if the environment names a collector."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import quorate
from harness import eventually
from quorate import ALL


class Collector(BaseHTTPRequestHandler):
    """Keeps posted bodies."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["Content-Type"], body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.daemon_threads = True
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_trace_arrives_from_the_client_and_from_all_nodes(collector):
    with quorate.Cluster(nodes=3) as cluster:
        keyspace = cluster.keyspace("a", mode="quorum", replicas=3)
        written = keyspace.put("a", "1", consistency=ALL)
        assert written.trace_id is not None, "with a collector, operations are traced by default"
        trace = bytes.fromhex(written.trace_id)

        def bodies():
            return [body for _, _, body in collector.received if trace in body]

        def arrived():
            everything = b"".join(bodies())
            return all(name in everything for name in (b"quorate-client", b"quorum.put", b"n1", b"n2", b"n3"))

        eventually(arrived)
        assert {(path, kind) for path, kind, _ in collector.received} == {
            ("/v1/traces", "application/x-protobuf")
        }
        for span in written.trace():
            eventually(lambda span=span: any(bytes.fromhex(span.span_id) in body for body in bodies()))


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [("always_off", "", 0), ("traceidratio", "0.25", 5), ("parentbased_always_on", "", 20)],
)
def test_the_environment_sets_the_sampler(collector, monkeypatch, shared, sampler, argument, expected):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    with quorate.connect(shared.endpoints) as connection:
        keyspace = connection.keyspace("sampled", mode="quorum")
        traced = [keyspace.put("a", "1").trace_id for _ in range(20)]
        assert len([each for each in traced if each]) == expected
        assert keyspace.put("a", "1", trace=True).trace_id


def test_without_a_collector_only_requested_traces_are_kept(keyspace):
    assert keyspace.put("a", "1").trace_id is None
