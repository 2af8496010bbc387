"""Writes and linearizable reads while links and nodes fail at random."""

import collections
import random
import threading

import pytest

import quorate
from harness import eventually, patiently
from quorate import OutcomeUnknown, SessionExpired

KEYS = [f"k{number}" for number in range(4)]


class Clients:
    """Threads that write, append and read at all nodes, and check each response immediately.

    A write is newer, and a read not older, than everything that was acknowledged or read before it began.
    """

    def __init__(self, keyspace, nodes, seed):
        self._keyspace = keyspace
        self._nodes = nodes
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._floor = {key: keyspace.put(key, "0").version for key in KEYS}
        self.attempts = collections.Counter()
        self.appended = {}
        self.unknown = set()
        self.stale = []
        self.problems = []
        works = [self._write] * 3 + [self._read] * 2
        self._threads = [
            threading.Thread(target=self._run, args=(work, number, random.Random(f"{seed} {number}")))
            for number, work in enumerate(works)
        ]

    def _run(self, work, number, chance):
        while not self._stop.is_set():
            try:
                work(number, chance)
            except quorate.QuorateError:
                pass
            except Exception as error:
                self.problems.append(error)
                return
            self.attempts[number] += 1

    def _write(self, number, chance):
        key, text = chance.choice(KEYS), f"{number}-{self.attempts[number]}"
        if chance.random() < 0.5:
            self._seen(key, lambda: self._keyspace.put(key, text, timeout=2).version, least=1)
            return
        try:
            self.appended[text] = self._keyspace.append(text, source="s", timeout=2).entry_id
        except (OutcomeUnknown, SessionExpired):
            self.unknown.add(text)

    def _read(self, _, chance):
        key, node = chance.choice(KEYS), chance.choice([None, *self._nodes])
        self._seen(key, lambda: self._keyspace.get(key, node=node, timeout=0.5).version, least=0)

    def _seen(self, key, operation, least):
        floor = self._floor[key]
        version = operation()
        if version < floor + least:
            self.stale.append((key, version, floor))
        with self._lock:
            self._floor[key] = max(self._floor[key], version)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def continue_with(self, count):
        """Wait until this number of further operations has ended, with any outcome."""
        goal = self.attempts.total() + count
        eventually(lambda: self.attempts.total() >= goal)


class Nemesis:
    """Injects and heals faults at random; a majority of the nodes always runs."""

    def __init__(self, cluster, seed):
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._faults = []
        self._down = set()

    def strike(self):
        """Inject or heal a fault."""
        patiently(self._strike)

    def _strike(self):
        chance = self._chance
        names = [node.name for node in self._cluster]
        some = chance.sample(names, chance.randint(1, 2))
        others = [name for name in names if name not in some]
        match chance.choice(["cut", "way", "slow", "lossy", "kill", "pause", "heal", "heal", "back"]):
            case "cut":
                self._faults.append(self._cluster.partition(some, others))
            case "way":
                ways = chance.choice([(some, others), (others, some)])
                self._faults.append(self._cluster.partition(*ways, one_way=True))
            case "slow":
                self._faults.append(self._cluster.slow(some, others, delay=chance.random() / 10, jitter=0.05))
            case "lossy":
                self._faults.append(self._cluster.lossy(some, others, percent=chance.uniform(1, 40)))
            case "kill" if len(self._down) < 2:
                self._fall(lambda node: node.kill())
            case "pause" if len(self._down) < 2:
                self._fall(lambda node: node.pause())
            case "back":
                self._rise()
            case _ if self._faults:
                self._heal(chance.randrange(len(self._faults)))
        while len(self._faults) > 2:
            self._heal(0)

    def _heal(self, index):
        self._faults[index].heal()
        del self._faults[index]

    def _fall(self, how):
        name = self._chance.choice([node.name for node in self._cluster if node.name not in self._down])
        # It is down even if the others could not be asked whether they detected it.
        self._down.add(name)
        how(self._cluster[name])

    def _rise(self):
        for name in sorted(self._down):
            node = self._cluster[name]
            # It may be resumed but not have the active faults yet: then it is restarted.
            node.resume() if node.paused else node.restart()
            self._down.remove(name)

    def rest(self):
        """Heal everything."""
        patiently(self._rise)
        patiently(self._cluster.heal)


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_duplicated_or_stale_under_random_faults(seed):
    # Elections caused by a busy machine are not the subject of this test.
    with quorate.Cluster(nodes=5, raft_timing="conservative") as cluster:
        keyspace = cluster.keyspace("agreed", mode="consensus", replicas=5, shards=2, snapshot_every=200)
        nemesis = Nemesis(cluster, seed)
        with Clients(keyspace, [node.name for node in cluster], seed) as clients:
            for _ in range(15):
                nemesis.strike()
                clients.continue_with(10)
            nemesis.rest()
            assert keyspace.put("after", "1", timeout=10).version
        assert not clients.problems
        assert not clients.stale
        found = [(entry.text, entry.entry_id) for entry in keyspace.entries()]
        assert len(dict(found)) == len(found), "an entry was appended twice"
        assert clients.appended.items() <= dict(found).items()
        assert dict(found).keys() - clients.appended.keys() <= clients.unknown
        assert all(node.exit_code is None for node in cluster)
