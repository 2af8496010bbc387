"""The identity of a data directory: after power cuts, after failed starts, with two programs at once."""

import contextlib
import copy
import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import quorate
from harness import eventually
from quorate import readiness
from quorate.data_directory import Claim, DataDirectory, DirectoryLock, Disk, Mark, Shape, decide, replace
from quorate.processes import Processes

THREE, FIVE = Shape(3, 150, "murmur3"), Shape(5, 20, "md5")
FOLDER = Path("/home/data")
FORMED = Claim(formed=("ours", THREE))


# What a start decides -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "claims", "found"),
    [
        # Empty, or never ready: created as requested.
        (None, {}, Mark(False, "fresh", FIVE)),
        (None, {"n1": Claim()}, Mark(False, "fresh", FIVE)),
        (Mark(False, "ours", THREE), {}, Mark(False, "ours", FIVE)),
        (Mark(False, "ours", THREE), {"n1": Claim(), "n2": Claim(problem="cut")}, Mark(False, "ours", FIVE)),
        # A cluster that was ready, according to its mark, its nodes, or both.
        (Mark(True, "ours", FIVE), {}, Mark(True, "ours", FIVE)),
        (Mark(True, "ours", FIVE), {"n1": Claim(), "n2": Claim(problem="cut")}, Mark(True, "ours", FIVE)),
        (None, {"n1": Claim(formed=("ours", FIVE)), "n2": Claim()}, Mark(True, "ours", FIVE)),
        (None, {"n1": Claim(formed=("ours", FIVE)), "n2": Claim(problem="cut")}, Mark(True, "ours", FIVE)),
        # The nodes have the data: a mark that disagrees is wrong.
        (Mark(True, "theirs", THREE), {"n1": Claim(formed=("ours", FIVE))}, Mark(True, "ours", FIVE)),
        (Mark(False, "theirs", THREE), {"n1": Claim(formed=("ours", FIVE))}, Mark(True, "ours", FIVE)),
        # One node was replaced: it reports that when it starts.
        (
            Mark(True, "ours", FIVE),
            {"n1": Claim(formed=("ours", FIVE)), "n2": Claim(formed=("theirs", FIVE))},
            Mark(True, "ours", FIVE),
        ),
    ],
)
def test_a_start_decides_what_a_directory_is(mark, claims, found):
    assert decide(mark, claims, None, "fresh", FIVE) == found


@pytest.mark.parametrize(
    ("mark", "claims", "name", "words"),
    [
        (Mark(True, "ours", THREE), {}, None, r"nodes=3 \(not 5\), vnodes=150 \(not 20\), hash='murmur3'"),
        (None, {"n1": FORMED}, None, r"nodes=3 \(not 5\)"),
        (Mark(True, "ours", FIVE), {}, "theirs", r"cluster 'ours', not to 'theirs': leave name out"),
        (None, {"n1": FORMED, "n2": Claim(formed=("theirs", THREE))}, None, r"n1 'ours', n2 'theirs'"),
        (
            None,
            {"n1": Claim(problem="n1/identity is corrupt")},
            None,
            r"cluster\.json .*n1/identity is corrupt",
        ),
        (
            Mark(False, "ours", FIVE),
            {"n1": FORMED, "n2": Claim(problem="version 1, this program reads 3", other_version=True)},
            None,
            "version 1, this program reads 3",
        ),
    ],
)
def test_a_conflicting_directory_is_rejected(mark, claims, name, words):
    with pytest.raises(quorate.DataDirectoryError, match=words):
        decide(mark, claims, name, "fresh", FIVE)


def test_a_name_may_be_given_to_a_cluster_that_was_never_ready():
    assert decide(Mark(False, "ours", THREE), {}, "theirs", "fresh", FIVE).name == "theirs"
    assert decide(
        Mark(True, "ours", FIVE), {"n1": FORMED._replace(formed=("ours", FIVE))}, "ours", "fresh", FIVE
    )


@pytest.mark.parametrize("mark", [Mark(True, 'a"\n', THREE), Mark(False, "é", FIVE)])
def test_a_mark_is_read_completely_or_rejected(mark):
    content = mark.render()
    assert Mark.parse(content) == mark
    assert [Mark.parse(content[:length]) for length in range(len(content) - 1)] == [None] * (len(content) - 1)
    for damaged in (b"", b"[]", b"null", b"\xff", b'{"version": 2}', content.replace(b"form", b"dorm")):
        assert Mark.parse(damaged) is None
    # Marks of earlier versions, and of possible later ones.
    assert Mark.parse(b'{"cluster": "ours", "nodes": 3, "vnodes": 150, "hash": "murmur3"}') is None
    with pytest.raises(quorate.DataDirectoryError, match="version 3, this program reads 2"):
        Mark.parse(content.replace(b'"version": 2', b'"version": 3'))


# Power cuts -----------------------------------------------------------------------------------------------------------


class PowerCutError(Exception):
    """The machine is off."""


class Memory(Disk):
    """A disk that keeps synced data after a power cut, and an arbitrary part of the rest."""

    def __init__(self, steps):
        self.steps = steps
        """Steps until the power is cut."""
        self.entries = {Path("/"): {}}
        """The entries of each folder, as programs see them: numbers of files, or None for a folder."""
        self.durable = {Path("/"): {}}
        self.contents = {}
        self.synced = {}
        self.identities = {}
        """Files of the nodes, which are replaced atomically."""
        self.held = False

    def step(self):
        if self.steps == 0:
            raise PowerCutError
        self.steps -= 1

    def lock(self, path):
        assert path.parent in self.entries
        return self

    def release(self):
        pass

    def claims(self, directory):
        return dict(self.identities)

    def make_folder(self, path):
        self.step()
        self.entries[path.parent][path.name] = None
        self.entries[path] = {}
        self.durable[path] = {}

    def is_folder(self, path):
        return path in self.entries

    def read(self, path):
        number = self.entries[path.parent].get(path.name)
        return None if number is None else self.contents[number]

    def write(self, path, content):
        self.step()
        # An existing file is truncated and rewritten.
        number = self.entries[path.parent].get(path.name, len(self.contents))
        self.entries[path.parent][path.name] = number
        self.contents[number] = content
        self.synced[number] = b""

    def rename(self, path, target):
        self.step()
        folder = self.entries[path.parent]
        folder[target.name] = folder.pop(path.name)

    def remove(self, path):
        self.entries[path.parent].pop(path.name, None)

    def sync(self, path):
        self.step()
        if path in self.entries:
            self.durable[path] = dict(self.entries[path])
        else:
            number = self.entries[path.parent][path.name]
            self.synced[number] = self.contents[number]

    def unharmed(self):
        """The disk after a program was killed: everything that it wrote."""
        after = copy.deepcopy(self)
        after.steps = -1
        return after

    def survivors(self):
        """Yield the possible disks after a power cut: with or without unsynced entries, contents cut anywhere."""
        folders = [path for path in self.entries if self.entries[path] != self.durable[path]]
        unsynced = [number for number in self.contents if self.synced[number] != self.contents[number]]
        cuts = [{0, 1, len(self.contents[number]) // 2, len(self.contents[number])} for number in unsynced]
        for kept in itertools.product((False, True), repeat=len(folders)):
            for lengths in itertools.product(*cuts):
                after = Memory(-1)
                after.contents = dict(self.contents)
                for number, length in zip(unsynced, lengths, strict=True):
                    after.contents[number] = self.contents[number][:length]
                after.synced = dict(after.contents)
                seen = dict(zip(folders, kept, strict=True))
                for path, entries in self.entries.items():
                    # A folder without an entry in its parent is lost with its contents.
                    if path in after.entries:
                        chosen = entries if seen.get(path, True) else self.durable[path]
                        after.entries[path] = dict(chosen)
                        for name, number in chosen.items():
                            if number is None:
                                after.entries.setdefault(path / name, {})
                after.identities = dict(self.identities) if FOLDER in after.entries else {}
                after.durable = {path: dict(entries) for path, entries in after.entries.items()}
                yield after


class Machine:
    """A machine on which programs start clusters of simulated nodes."""

    def __init__(self, disk):
        self.disk = disk
        self.acknowledged = None
        """The cluster that has acknowledged a write."""

    def start(self, name, shape):
        """Start a cluster as its processes do."""
        directory = DataDirectory(FOLDER, self.disk)
        mark = directory.claim(None, name, shape)
        nodes = [f"n{number + 1}" for number in range(shape.nodes)]
        for node in nodes:
            self.disk.step()
            if not mark.formed:
                assert not self.disk.identities.get(node, Claim()).formed, "a formed node is never reset"
                self.disk.identities[node] = Claim()
                assert self.acknowledged is None, "a write is lost"
            elif self.acknowledged is not None:
                assert (mark.name, mark.shape) == self.acknowledged
        if not mark.formed:
            directory.form(mark)
        for node in nodes:
            self.disk.step()
            self.disk.identities[node] = Claim(formed=(mark.name, mark.shape))
            # From now on it accepts keyspaces.
            self.acknowledged = (mark.name, mark.shape)
        return mark

    def breaks_off(self, steps, name, shape):
        """Start a cluster; return whether it was stopped after this number of steps, before it succeeded."""
        self.disk.steps = steps
        try:
            self.start(name, shape)
        except PowerCutError:
            return True
        return False

    def after_power_cut(self):
        """Yield the possible machines after a power cut."""
        for disk in self.disk.survivors():
            yield self.on(disk)

    def copy(self):
        """Make a copy."""
        return self.on(self.disk.unharmed())

    def on(self, disk):
        """Make a copy with another disk."""
        machine = Machine(disk)
        machine.acknowledged = self.acknowledged
        return machine


def after_one_cut(machine, name, shape):
    """Yield the possible machines after a power cut at any step of a start."""
    for broken in after_one_kill(machine, name, shape):
        yield from broken.after_power_cut()


def after_one_kill(machine, name, shape):
    """Yield the machines after a kill of the program at any step of a start."""
    for steps in itertools.count():
        broken = machine.copy()
        if not broken.breaks_off(steps, name, shape):
            return
        yield broken.copy()


def judge(machine):
    """Check that a machine starts a cluster after power cuts, and that nothing acknowledged is lost."""
    if machine.disk.is_folder(FOLDER):
        content = machine.disk.read(FOLDER / "cluster.json")
        assert content is None or Mark.parse(content), "the mark is complete"
    if machine.acknowledged is None:
        for shape in (THREE, FIVE):
            try:
                machine.copy().start("later", shape)
            except quorate.DataDirectoryError:
                # That the cluster was ready became durable just before the nodes were notified.
                assert "formed" in str(machine.disk.read(FOLDER / "cluster.json"))
        return
    name, shape = machine.acknowledged
    assert machine.copy().start("later", shape) == Mark(True, name, shape)
    with pytest.raises(quorate.DataDirectoryError, match="holds a cluster with"):
        machine.copy().start("later", FIVE if shape == THREE else THREE)


def test_a_power_cut_at_any_step_of_the_first_starts():
    first = second = 0
    acknowledged = set()
    for once in after_one_cut(Machine(Memory(-1)), "one", THREE):
        first += 1
        judge(once)
        # The next start may request another shape, and be cut too.
        try:
            for twice in after_one_cut(once, "two", FIVE):
                second += 1
                judge(twice)
                acknowledged.add(twice.acknowledged)
        except quorate.DataDirectoryError:
            assert "formed" in str(once.disk.read(FOLDER / "cluster.json"))
    assert first > 20
    assert second > 400
    assert acknowledged == {None, ("one", FIVE), ("two", FIVE)}


def test_a_power_cut_after_a_kill_at_any_step():
    count = 0
    for killed in after_one_kill(Machine(Memory(-1)), "one", THREE):
        judge(killed)
        shape = FIVE if killed.acknowledged is None else THREE
        with contextlib.suppress(quorate.DataDirectoryError):
            killed.start("two", shape)
            assert killed.acknowledged is not None
        for after in killed.after_power_cut():
            count += 1
            judge(after)
    assert count > 10


def test_a_lost_or_damaged_mark_beside_data():
    machine = Machine(Memory(-1))
    mark = machine.start("one", THREE)._replace(formed=True)
    path = FOLDER / "cluster.json"
    content = machine.disk.read(path)
    for length in range(len(content)):
        damaged = machine.copy()
        replace(damaged.disk, path, content[:length])
        assert damaged.copy().start("later", THREE) == mark
    lost = machine.copy()
    lost.disk.remove(path)
    lost.disk.sync(path.parent)
    judge(lost.copy())
    assert lost.start("later", THREE) == mark
    assert lost.disk.read(path) == content


def test_a_failed_write_leaves_the_old_mark(tmp_path):
    class Full(Disk):
        def sync(self, path):
            raise OSError(28, "No space left on device", str(path))

    directory = DataDirectory(tmp_path)
    mark = directory.claim(None, "fresh", THREE)
    before = (tmp_path / "cluster.json").read_bytes()
    directory._disk = Full()
    with pytest.raises(quorate.DataDirectoryError, match="No space left"):
        directory.form(mark)
    assert (tmp_path / "cluster.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster.json", "cluster.lock"]
    directory.release()


# The lock -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_directory_is_locked_for_one_program(tmp_path):
    path = tmp_path / "cluster.lock"
    lock = DirectoryLock(path)
    with pytest.raises(quorate.DataDirectoryError, match="in use by this program"):
        DirectoryLock(path)
    other = [sys.executable, "-c", f"from quorate.data_directory import *; DirectoryLock({str(path)!r})"]
    done = subprocess.run(other, capture_output=True, text=True, check=False)
    assert f"in use by process {os.getpid()}: connect" in done.stderr
    # Neither a spawned nor a forked child keeps it.
    with subprocess.Popen(["sleep", "60"], close_fds=False) as started:
        forked = os.fork()
        if forked == 0:
            signal_pause()
        try:
            lock.release()
            DirectoryLock(path).release()
        finally:
            started.kill()
            os.kill(forked, 9)
            os.waitpid(forked, 0)
    path.write_text("garbage")
    assert subprocess.run(other, check=False).returncode == 0


def signal_pause():
    """Wait to be killed."""
    import signal

    while True:
        signal.pause()


RACER = """
import sys, quorate
sys.stdin.readline()
try:
    cluster = quorate.Cluster(2, data_dir=sys.argv[1])
except quorate.DataDirectoryError as error:
    sys.exit(f"refused: {error}")
cluster.keyspace("a", mode="quorum", replicas=2).put("a", "kept")
print("won", flush=True)
sys.stdin.readline()
cluster.close()
"""


def test_two_programs_at_once_on_one_fresh_directory(tmp_path):
    for number in range(3):
        folder = str(tmp_path / str(number))
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for program in pair:
            program.stdin.write("go\n")
            program.stdin.flush()
        loser = eventually(lambda pair=pair: next((p for p in pair if p.poll() is not None), None))
        winner = pair[1 - pair.index(loser)]
        _, complaint = loser.communicate()
        assert winner.stdout.readline() == "won\n"
        assert f"in use by process {winner.pid}" in complaint or "in use by another program" in complaint
        winner.communicate("\n", timeout=30)
        with quorate.Cluster(2, data_dir=folder) as cluster:
            assert cluster.keyspace("a").get("a").text == "kept"


# Clusters -------------------------------------------------------------------------------------------------------------


def test_a_first_start_that_failed_does_not_fix_the_settings(tmp_path, monkeypatch):
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        port = thief.getsockname()[1]
        if port > 65000:
            pytest.skip("the system gave a port that is too high")
        with pytest.raises(quorate.AddressInUse):
            quorate.Cluster(3, data_dir=tmp_path, port=port)
    with pytest.raises(quorate.ClusterStartError, match="in time"):
        quorate.Cluster(2, data_dir=tmp_path, start_timeout=0.001, vnodes=9)
    # Also one whose nodes already serve, but find no leader in time.
    with monkeypatch.context() as patch:
        patch.setattr(readiness, "started", lambda _processes, _timeout: flow_of(False))
        with pytest.raises(quorate.ClusterStartError, match="do not all see each other"):
            quorate.Cluster(2, data_dir=tmp_path, name="other", hash="md5")
    with quorate.Cluster(1, data_dir=tmp_path, name="third") as cluster:
        cluster.keyspace("a", mode="quorum").put("a", "1")
    with pytest.raises(quorate.DataDirectoryError, match=r"nodes=1 \(not 2\)"):
        quorate.Cluster(2, data_dir=tmp_path)


def flow_of(result):
    """Make an operation without a call."""
    return result
    yield


def test_nothing_is_acknowledged_before_the_cluster_is_formed(tmp_path, monkeypatch):
    form = Processes.form
    seen = []

    def late(processes):
        mark = json.loads((processes.directory / "cluster.json").read_text())
        with quorate.connect(processes.endpoints, timeout=1.0) as early:
            for mode in ("quorum", "consensus"):
                with pytest.raises(quorate.Unavailable, match="first time"):
                    early.keyspace("early", mode=mode)
            seen.append((mark["state"], early.keyspaces()))
        form(processes)
        seen.append(json.loads((processes.directory / "cluster.json").read_text())["state"])

    monkeypatch.setattr(Processes, "form", late)
    with quorate.Cluster(2, data_dir=tmp_path) as cluster:
        assert seen == [("forming", ()), "formed"]
        for node in cluster:
            with quorate.connect(node.address) as connection:
                connection.keyspace(f"at-{node.name}", mode="quorum").put("a", "1")
        cluster["n1"].restart()
        assert len(cluster.keyspaces()) == 2


def test_a_mark_is_rebuilt_from_the_nodes(tmp_path):
    with quorate.Cluster(2, data_dir=tmp_path, name="ours", vnodes=40) as cluster:
        cluster.keyspace("a", mode="quorum", replicas=2).put("a", "1")
    mark = tmp_path / "cluster.json"
    whole = mark.read_bytes()
    for damaged in (b"", b'{"clus', whole.replace(b'"ours"', b'"theirs"'), None):
        if damaged is None:
            mark.unlink()
        else:
            mark.write_bytes(damaged)
        with pytest.raises(quorate.DataDirectoryError, match=r"nodes=2 \(not 3\), vnodes=40 \(not 150\)"):
            quorate.Cluster(3, data_dir=tmp_path)
        with quorate.Cluster(2, data_dir=tmp_path, vnodes=40) as cluster:
            assert cluster.name == "ours"
            assert cluster.keyspace("a").get("a").text == "1"
        assert mark.read_bytes() == whole


def test_data_of_another_version_is_rejected_with_both_versions(tmp_path):
    folder = tmp_path / "n1"
    folder.mkdir()
    (folder / "identity").write_text("quorate-identity 1\ncluster 00000000000000000123456789abcdef\n")
    (tmp_path / "cluster.json").write_text(
        '{"cluster": "ours", "nodes": 1, "vnodes": 150, "hash": "murmur3"}\n'
    )
    with pytest.raises(quorate.DataDirectoryError, match=r"format version 1, this program reads 3"):
        quorate.Cluster(1, data_dir=tmp_path)
