"""The members and keyspaces of a cluster, their status and health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from quorate.errors import NotFound
from quorate.levels import Level
from quorate.rendering import Rendered, listing, milliseconds, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

__all__ = [
    "ClusterStatus",
    "Health",
    "KeyspaceInfo",
    "Member",
    "NodeStatus",
    "PeerStatus",
    "ShardGroup",
    "Topology",
]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster.

    Attributes
    ----------
    name : str
        ``n1``, ``n2``, …; never renumbered.
    address : str
        ``host:port`` for clients.
    peer_address : str
        ``host:port`` for the other nodes.
    http_address : str
        ``host:port`` for ``/metrics``.
    rack, datacenter : str
        Its location, for the placement of copies.
    control : str or None
        Its role in the control plane's group: ``voter``, or ``learner`` without a vote; ``None`` while the responding
        node does not know.
    """

    name: str
    address: str
    peer_address: str
    http_address: str
    rack: str
    datacenter: str
    control: str | None = None

    @property
    def number(self) -> int:
        """The number in its name."""
        return int(self.name[1:])


@dataclass(frozen=True, slots=True, repr=False)
class Topology(Rendered):
    """The members and the settings that all nodes agree on.

    Attributes
    ----------
    cluster : str
        The cluster's id, 32 hexadecimal digits.
    generation : int
        Increases with each change.
    members : tuple of Member
        Sorted by number.
    vnodes : int
        Tokens per node on the ring.
    hash : str
        Hash function from keys to tokens: ``murmur3``, ``md5`` or ``xxh3``.
    version : int
        The version of the control plane's commands that all members support. 0 before the members have agreed for the
        first time.
    """

    cluster: str
    generation: int
    members: tuple[Member, ...]
    vnodes: int
    hash: str
    version: int = 0

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __rich__(self) -> RenderableType:
        title = (
            f"topology {self.cluster[:8]} · generation {self.generation} · version {self.version} · "
            f"{self.vnodes} vnodes · {self.hash}"
        )
        table = listing("node", "clients", "peers", "http", "rack", "datacenter", "control", title=title)
        for member in self.members:
            table.add_row(
                member.name,
                member.address,
                _beside(member.peer_address, member.address),
                _beside(member.http_address, member.address),
                member.rack,
                member.datacenter,
                member.control or "-",
            )
        return table


def _beside(address: str, other: str) -> str:
    """Format an address for a column beside another one: only the port if the host is the same."""
    host, _, port = address.rpartition(":")
    return f":{port}" if port and host == other.rpartition(":")[0] else address


@dataclass(frozen=True, slots=True)
class ShardGroup:
    """The Raft group of one shard of a consensus keyspace.

    Attributes
    ----------
    id : int
        The group's number, never reused.
    members : tuple of str
        Its initial members, in the ring's order of preference.
    """

    id: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyspaceInfo:
    """A keyspace's settings.

    Attributes
    ----------
    name : str
        Its name.
    id : int
        Its number, never reused.
    mode : str
        ``quorum`` or ``consensus``.
    replicas : int
        N, the number of nodes that store each key.
    read, write : Level or int
        The default levels of operations.
    read_repair : str
        ``off`` or ``async``.
    shards : int
        The number of Raft groups that share the keys of a consensus keyspace; otherwise 1.
    snapshot_every : int
        The number of entries after which the log of a consensus keyspace's group is compacted.
    groups : tuple of ShardGroup
        The Raft groups of a consensus keyspace, by shard.
    """

    name: str
    id: int
    mode: str
    replicas: int
    read: Level | int
    write: Level | int
    read_repair: str
    shards: int = 1
    snapshot_every: int = 10_000
    groups: tuple[ShardGroup, ...] = ()

    @property
    def overlapping(self) -> bool:
        """Whether R + W > N at the default levels, so that a read sees every acknowledged write."""
        return self._required(self.read) + self._required(self.write) > self.replicas

    def _required(self, level: Level | int) -> int:
        return level.required(self.replicas) if isinstance(level, Level) else level


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A node's view of one peer.

    Attributes
    ----------
    name : str
        The peer.
    up : bool
        Whether the link is up.
    round_trip : float
        Round-trip time of the last heartbeat, in seconds; 0 before the first.
    queued_bytes : int
        Bytes that are queued for it.
    """

    name: str
    up: bool
    round_trip: float
    queued_bytes: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's own view of itself and its peers.

    Attributes
    ----------
    name : str
        The node.
    address : str
        Its address for clients.
    up : bool
        Whether it responded; if not, only ``name``, ``address`` and ``error`` are valid.
    error : str or None
        Why it did not respond.
    uptime : float
        Seconds since it started.
    version : str
        The version of the program.
    generation : int
        Its topology generation.
    peers : tuple of PeerStatus
        The other nodes, as it sees them.
    keyspaces : tuple of str
        The names of the keyspaces that it knows.
    data_directory : str
        Its data directory.
    stored_bytes : int
        Size of its data.
    in_flight : int
        Client requests in flight.
    full : str or None
        Why it rejects writes, and the remedy, while its disk is full.
    """

    name: str
    address: str
    up: bool
    error: str | None = None
    uptime: float = 0.0
    version: str = ""
    generation: int = 0
    peers: tuple[PeerStatus, ...] = ()
    keyspaces: tuple[str, ...] = ()
    data_directory: str = ""
    stored_bytes: int = 0
    in_flight: int = 0
    full: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Describe the status as plain data, as ``--json`` prints it."""
        from dataclasses import asdict

        return asdict(self)


@dataclass(frozen=True, slots=True, repr=False)
class ClusterStatus(Rendered):
    """The status of every member, as reported by itself.

    Attributes
    ----------
    nodes : tuple of NodeStatus
        Sorted by number.
    """

    nodes: tuple[NodeStatus, ...]

    def __iter__(self) -> Iterator[NodeStatus]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> NodeStatus:
        for node in self.nodes:
            if node.name == name:
                return node
        raise NotFound(f"no node {name!r}: there are {', '.join(node.name for node in self.nodes)}")

    @property
    def connected(self) -> bool:
        """Whether all nodes are up and see each other."""
        return all(
            node.up and sum(peer.up for peer in node.peers) == len(self.nodes) - 1 for node in self.nodes
        )

    def __rich__(self) -> RenderableType:
        from rich.markup import escape

        alive = sum(node.up for node in self.nodes)
        title = f"{alive} of {len(self.nodes)} nodes up"
        columns = ("node", "state", "clients", "uptime", "sees", "slowest peer", "stored", "in flight")
        reasons = ((node.name, node.error or node.full) for node in self.nodes)
        caption = "\n".join(f"{name}: {escape(reason)}" for name, reason in reasons if reason)
        table = listing(*columns, title=title, caption=caption or None)
        # Addresses are copied: other columns give way.
        table.columns[columns.index("clients")].no_wrap = True
        for node in self.nodes:
            if not node.up:
                table.add_row(node.name, "[bold red]down[/]", node.address, style="dim")
                continue
            seen = [peer for peer in node.peers if peer.up]
            slowest = max((peer.round_trip for peer in seen), default=0.0)
            table.add_row(
                node.name,
                "[green]up[/]" if node.full is None else "[bold yellow]full[/]",
                node.address,
                f"{node.uptime:.0f} s",
                f"{len(seen)} of {len(node.peers)}",
                milliseconds(slowest),
                size(node.stored_bytes),
                str(node.in_flight),
            )
        return table


@dataclass(frozen=True, slots=True, repr=False)
class Health(Rendered):
    """The health of a keyspace, or of the cluster.

    Attributes
    ----------
    status : str
        ``healthy`` (all nodes up and linked), ``degraded`` (some are down, full or partitioned, every key still has its
        quorum) or ``unavailable``.
    replication_enabled : bool
        Whether keys have more than one copy.
    total_nodes, healthy_nodes : int
        The number of members, and of those that respond.
    required_for_quorum : int
        The number of a key's replicas that is a majority.
    has_quorum : bool
        Whether every key has a majority of its replicas up and linked to one of them.
    nodes : tuple of NodeStatus
        Each member's status.
    parted : tuple of pairs of str
        Pairs of nodes that are up but partitioned.
    """

    status: Literal["healthy", "degraded", "unavailable"]
    replication_enabled: bool
    total_nodes: int
    healthy_nodes: int
    required_for_quorum: int
    has_quorum: bool
    nodes: tuple[NodeStatus, ...]
    parted: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Describe the health as plain data, as ``--json`` prints it."""
        return {
            "status": self.status,
            "replication_enabled": self.replication_enabled,
            "total_nodes": self.total_nodes,
            "healthy_nodes": self.healthy_nodes,
            "required_for_quorum": self.required_for_quorum,
            "has_quorum": self.has_quorum,
            "nodes": [{"name": n.name, "address": n.address, "healthy": n.up} for n in self.nodes],
            "parted": [list(pair) for pair in self.parted],
        }

    def __rich__(self) -> RenderableType:
        colour = {"healthy": "green", "degraded": "yellow", "unavailable": "red"}[self.status]
        quorum = "every key has its" if self.has_quorum else "some keys have lost their"
        down = ", ".join(node.name for node in self.nodes if not node.up)
        full = ", ".join(node.name for node in self.nodes if node.full is not None)
        parted = ", ".join("-".join(pair) for pair in self.parted)
        return (
            f"[bold {colour}]{self.status}[/]: {self.healthy_nodes} of {self.total_nodes} nodes up"
            + (f" (down: {down})" if down else "")
            + (f" (disk full: {full})" if full else "")
            + (f" (no link: {parted})" if parted else "")
            + f", {quorum} quorum of {self.required_for_quorum} replica(s)"
        )
