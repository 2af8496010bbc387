"""The synchronous and the asynchronous client are one body, which also runs on a stepper."""

import ast
import asyncio
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import quorate
from quorate import aio, faults
from quorate.topology import KeyspaceInfo
from stepping import PendingCall, Stepper

ROOT = Path(__file__).parents[1]


def test_generated_modules_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "python" / "generate_sync.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def public(kind):
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


@pytest.mark.parametrize("name", [name for name in aio.__all__ if inspect.isclass(getattr(aio, name))])
def test_both_clients_have_the_same_members_parameters_and_docstrings(name):
    mine, twin = public(getattr(quorate, name)), public(getattr(aio, name))
    # A cluster is started by its constructor, or by being entered.
    assert set(twin) - set(mine) <= {"start"}
    for member, method in mine.items():
        assert inspect.getdoc(method), f"{name}.{member} has no docstring"
        assert "see `quorate" not in inspect.getdoc(twin[member])
        if (name, member) == ("Cluster", "close"):
            # Only the asynchronous one can be cancelled.
            continue
        sections = [
            line for line in inspect.getdoc(method).splitlines() if not line.startswith((">>>", "..."))
        ]
        others = [
            line for line in inspect.getdoc(twin[member]).splitlines() if not line.startswith((">>>", "..."))
        ]
        assert sections == others
        if inspect.isfunction(method):
            parameters = inspect.signature(method).parameters
            assert list(parameters) == list(inspect.signature(twin[member]).parameters)


def test_both_clusters_document_the_same_parameters():
    def parameters(kind):
        return inspect.getdoc(kind).split("Parameters\n")[1].split("Raises\n")[0]

    assert parameters(quorate.Cluster) == parameters(aio.Cluster)
    mine, twin = inspect.signature(quorate.Cluster), inspect.signature(aio.Cluster)
    assert str(mine) == str(twin)


class SimulatedKeyspace:
    """The calls of a keyspace that is a dictionary: each takes a virtual millisecond."""

    def __init__(self, items):
        self.items = items

    def _call(self, answer):
        return PendingCall(answer, 0.001)

    def put(self, key, value, _context, _level, _timeout, _trace):
        def answer():
            self.items[key if isinstance(key, tuple) else (key, None)] = value
            return self._raw(acked=[1, 2], micros=1)

        return self._call(answer)

    def get(self, key, _level, _timeout, _trace, _node):
        return self._call(lambda: self._entry(self.items.get((key, None))))

    def get_many(self, keys, _level, _timeout, _node):
        return self._call(lambda: [self._entry(self.items.get((key, None))) for key in keys])

    def scan(self, start, _end, after, limit, _level, _timeout):
        def answer():
            first = (start, None) if isinstance(start, bytes) else start
            place = lambda key: (key[0], key[1] is not None, key[1] or b"")  # noqa: E731
            found = sorted(self.items, key=place)
            if first is not None:
                found = [key for key in found if place(key) >= place(first) and (not after or key != first)]
            page, more = found[:limit], found[limit:]
            entries = [(key, self._entry(self.items[key])) for key in page]
            return SimpleNamespace(entries=entries, next=page[-1] if more else None)

        return self._call(answer)

    def _entry(self, value):
        values = [] if value is None else [value]
        return self._raw(values=values, answered=[1, 2])

    def _raw(self, **fields):
        return SimpleNamespace(seconds=0.001, trace_id=None, level="QUORUM", coordinator=1, **fields)


class SimulatedClient(Stepper):
    """A client of a simulated cluster, with its own time."""

    def __init__(self):
        super().__init__()
        self.keyspaces = {}
        self.broken = {}
        self.ready_at = 0.0

    def quorum(self, number, _name, _replicas):
        return self.keyspaces.setdefault(number, SimulatedKeyspace({}))

    def topology(self, _timeout):
        members = [
            {
                "id": number,
                "client_address": f"h:{number}",
                "peer_address": "",
                "http_address": "",
                "rack": "r",
                "datacenter": "d",
            }
            for number in (1, 2)
        ]
        ring = {"vnodes": 8, "hash": "Murmur3"}
        topology = {"cluster": "1", "generation": 1, "members": members, "ring": ring}
        answer = {"topology": topology, "voters": [1, 2], "learners": [], "version": 1}
        return PendingCall(lambda: answer, 0.001)

    def faults(self, numbers, change, _timeout):
        def answer():
            for number in numbers:
                self._change(self.broken.setdefault(number, {}), change)
            return [list(self.broken[number].values()) for number in numbers]

        return PendingCall(answer, 0.001)

    def _change(self, kept, change):
        ((what, items),) = (change or {"Add": []}).items()
        for item in items:
            if what == "Heal":
                kept.pop(item, None)
                self.ready_at = self.time + 3.0
            else:
                kept[item["id"]] = item

    def ask(self, numbers, _what, _argument, _timeout):
        def answer():
            up = self.time >= self.ready_at
            return [{"peers": [{"node": node, "up": up} for node in (1, 2)]} for _ in numbers]

        return PendingCall(answer, 0.001)


def keyspace_of(client, number=1):
    info = KeyspaceInfo("sim", number, "quorum", 2, quorate.QUORUM, quorate.QUORUM, "async")
    return aio.Keyspace(aio.Connection(client, 5.0), info)


def test_the_body_runs_on_virtual_time():
    client = SimulatedClient()
    keyspace = keyspace_of(client)
    order = []

    async def writer():
        for number in range(3):
            await keyspace.put(f"k{number}", str(number))
            order.append(("written", number, client.now()))

    async def reader():
        await client.sleep(0.0015)
        entry = await keyspace.get("k0")
        order.append(("read", entry.text, client.now()))
        return [key async for key, _ in keyspace.scan(page_size=1)]

    _, found = client.run(writer(), reader())
    assert [what for what, *_ in order] == ["written", "written", "read", "written"]
    assert order[2][1] == "0"
    assert found == ["k0", "k1", "k2"]
    again = SimulatedClient()
    keyspace, order_before, order = keyspace_of(again), order, []
    client = again
    client.run(writer(), reader())
    assert order == order_before


def test_operations_of_many_steps_wait_in_virtual_time():
    client = SimulatedClient()
    connection = aio.Connection(client, 5.0)

    async def work():
        async with connection.isolate("n1") as fault:
            before = client.now()
        return fault, before, client.now()

    ((fault, before, after),) = client.run(work())
    assert fault.healed
    # Healing waited for the links, which took three virtual seconds.
    assert 3.0 <= after - before < 3.1


def test_the_same_flow_runs_blocking_on_asyncio_and_on_a_stepper():
    def reported(run):
        client = SimulatedClient()
        connection = aio.Connection(client, 5.0)
        run(client, connection._faults_client.begin(faults.isolate("n2"), 1.0))
        return [fault.between for fault in run(client, connection._faults_client.report(1.0))]

    blocking = reported(quorate.flow.run)
    stepped = reported(lambda client, flow: client.run(quorate.flow.run_async(client, flow))[0])
    assert blocking == stepped == ["n2 <-> n1"]


def test_a_scan_keeps_sort_keys():
    client = SimulatedClient()
    keyspace = keyspace_of(client)
    items = client.keyspaces[1].items
    for sort in (None, b"1", b"2", b"3"):
        items[b"log", sort] = sort or b"-"
    items[b"other", None] = b"o"

    async def scan(size):
        return [(key, entry.sort_key, entry.text) async for key, entry in keyspace.scan(page_size=size)]

    wanted = [("log", None, "-"), *(("log", n, n) for n in "123"), ("other", None, "o")]
    for size in (1, 2, 3, 100):
        assert client.run(scan(size)) == [wanted]


def test_a_scan_of_another_clients_sort_keys(shared):
    for mode in ("quorum", "consensus"):
        keyspace = shared.keyspace(f"sorted-{mode}", mode=mode, replicas=3)
        put = keyspace._calls.put
        for sort in (None, b"a", b"b", b"c"):
            key, value = (b"log", sort), sort or b"-"
            (
                put(key, value, None, None, 5.0, False)
                if mode == "quorum"
                else put(key, value, None, 5.0, False)
            ).wait()
        keyspace.put("zz", "z")
        for size in (1, 2, 100):
            found = [(key, entry.sort_key, entry.text) for key, entry in keyspace.scan(page_size=size)]
            assert found == [("log", None, "-"), *(("log", n, n) for n in "abc"), ("zz", None, "z")]
        assert keyspace.get("log").text == "-"
        shared.drop_keyspace(keyspace.name)


async def shown(examples):
    """Run examples with top-level `await`, and compare what they show."""
    environment, values = {}, []
    hook = sys.displayhook
    for example in examples:
        values.clear()
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(example.source, "example", "single", flags, dont_inherit=True)
        sys.displayhook = values.append
        try:
            result = eval(code, environment)
            if inspect.iscoroutine(result):
                await result
        finally:
            sys.displayhook = hook
        printed = "".join(f"{value!r}\n" for value in values if value is not None)
        assert printed == example.want, example.source


def documented():
    for module in pkgutil.iter_modules(aio.__path__, "quorate.aio."):
        for test in doctest.DocTestFinder().find(importlib.import_module(module.name), module.name):
            if test.examples:
                yield pytest.param(test.examples, id=test.name)


@pytest.mark.parametrize("found", list(documented()))
async def test_asynchronous_examples_show_what_they_say(found):
    await asyncio.wait_for(shown(found), 50)
