"""The ring: the placement of keys on nodes, and its balance.

Everything here is computed from the members and the settings; nodes compute the same ring from the same input.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from quorate import _quorate
from quorate.arguments import elements, key_bytes, mapping, node_number, text, whole_number
from quorate.errors import InvalidArgument
from quorate.rendering import Rendered, listing, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

    from quorate.topology import Topology

__all__ = ["Balance", "Distribution", "NodeShare", "Ring"]

MAX_NODES = 65535
"""Maximum number of nodes."""
_EVERYONE = "default"


@dataclass(frozen=True, slots=True)
class NodeShare:
    """One node's share of the keys.

    Attributes
    ----------
    node : str
        The node.
    tokens : int
        The number of its tokens on the ring.
    primary : float
        Share of the keys of which it is the primary replica; 1 over all nodes.
    stored : float
        Share of the keys of which it stores a copy; the number of replicas over all nodes.
    """

    node: str
    tokens: int
    primary: float
    stored: float


@dataclass(frozen=True, slots=True)
class Balance:
    """The balance of shares.

    Attributes
    ----------
    mean : float
        The share of each node in perfect balance.
    deviation : float
        Standard deviation over mean.
    score : float
        100 minus the deviation in percent.
    most_loaded, least_loaded : str
        The nodes with the largest and the smallest share.
    """

    mean: float
    deviation: float
    score: float
    most_loaded: str
    least_loaded: str


@dataclass(frozen=True, slots=True, repr=False)
class Distribution(Rendered):
    """How evenly a ring spreads keys and their copies.

    Attributes
    ----------
    replicas : int
        Copies of each key.
    vnodes : int
        Tokens per node.
    nodes : tuple of NodeShare
        The share of each node.
    primary, stored : Balance
        Balance of primary replicas, and of all copies.
    random_deviation : float
        Expected deviation with random tokens, ``sqrt((N - 1) / (N V + 1))``.
    """

    replicas: int
    vnodes: int
    nodes: tuple[NodeShare, ...]
    primary: Balance
    stored: Balance
    random_deviation: float

    def to_dict(self) -> dict[str, Any]:
        """Describe the distribution as plain data, as ``--json`` prints it."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        title = f"ring · {len(self.nodes)} nodes · {self.vnodes} vnodes each · {self.replicas} copies"
        caption = (
            f"primary: score {self.primary.score:.2f}, deviation {percent(self.primary.deviation, 2)}"
            f" (random tokens: {percent(self.random_deviation, 2)})\n"
            f"copies: score {self.stored.score:.2f}, deviation {percent(self.stored.deviation, 2)}"
        )
        table = listing("node", title=title, caption=caption)
        table.add_column("tokens", justify="right")
        table.add_column("primary", justify="right")
        table.add_column("copies", justify="right")
        table.add_column("", min_width=30)
        largest = max(share.stored for share in self.nodes)
        for share in self.nodes:
            table.add_row(
                share.node,
                str(share.tokens),
                percent(share.primary, 2),
                percent(share.stored, 2),
                f"[cyan]{'█' * round(30 * share.stored / largest)}[/]",
            )
        return table


class Ring:
    """A ring of virtual nodes, computed without a cluster.

    Parameters
    ----------
    nodes : int or iterable of str
        The number of nodes (``n1`` to ``nN``), or their names.
    vnodes : int
        Tokens per node.
    hash : str
        ``murmur3``, ``md5`` or ``xxh3``.
    racks, datacenters : mapping, optional
        Locations of nodes; nodes that are left out share one location.

    Raises
    ------
    InvalidArgument
        For an invalid ring: no nodes, a duplicate node, no or too many vnodes, an unknown hash.

    Examples
    --------
    >>> from quorate import Ring
    >>> ring = Ring(nodes=5)
    >>> len(ring.nodes_for_key("user-123", count=3))
    3
    >>> ring.distribution(replicas=3).primary.deviation < 0.05
    True
    """

    def __init__(
        self,
        nodes: int | Iterable[str] = 5,
        *,
        vnodes: int = 150,
        hash: str = "murmur3",  # noqa: A002 - the setting's name everywhere
        racks: Mapping[str, str] | None = None,
        datacenters: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(nodes, (int, float)):
            count = whole_number(nodes, "nodes", 1, MAX_NODES)
            names = [f"n{number}" for number in range(1, count + 1)]
        else:
            names = elements(nodes, "nodes")
        racks, datacenters = mapping(racks, "racks"), mapping(datacenters, "datacenters")
        for place in (*racks.values(), *datacenters.values()):
            text(place, "the name of a rack or datacenter")
        for name in (*racks, *datacenters):
            if name not in names:
                raise InvalidArgument(
                    f"{name!r} has a location but is not among the nodes {', '.join(names)}"
                )
        members = [
            (node_number(name), racks.get(name, _EVERYONE), datacenters.get(name, _EVERYONE))
            for name in names
        ]
        self._nodes = tuple(sorted(names, key=node_number))
        self._vnodes = vnodes
        self._hash = hash
        self._racks = racks
        self._datacenters = datacenters
        self._ring = _quorate.Ring(members, whole_number(vnodes, "vnodes", 1, 65535), text(hash, "hash"))

    @classmethod
    def of(cls, topology: Topology) -> Ring:
        """Compute the ring of a running cluster.

        Parameters
        ----------
        topology : Topology
            The result of ``cluster.topology()``.
        """
        return cls(
            [member.name for member in topology.members],
            vnodes=topology.vnodes,
            hash=topology.hash,
            racks={member.name: member.rack for member in topology.members},
            datacenters={member.name: member.datacenter for member in topology.members},
        )

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return self._nodes

    @property
    def vnodes(self) -> int:
        """Tokens per node."""
        return self._vnodes

    @property
    def hash(self) -> str:
        """The hash function from keys to tokens."""
        return self._hash

    @property
    def tokens(self) -> list[tuple[int, str]]:
        """Tokens and their owners, in ring order."""
        return [(token, f"n{node}") for token, node in self._ring.tokens]

    def token_of(self, key: str | bytes) -> int:
        """Hash a key to its position on the ring, a number below 2**64."""
        return self._ring.token_of(key_bytes(key))

    def nodes_for_key(self, key: str | bytes, count: int = 3) -> tuple[str, ...]:
        """Compute the preference list of a key.

        Parameters
        ----------
        key : str or bytes
            The key.
        count : int
            The number of nodes; for a keyspace, its number of replicas.

        Returns
        -------
        tuple of str
            Their names.
        """
        return tuple(
            f"n{node}" for node in self._ring.preference_list(key_bytes(key), _copies(count, "count"))
        )

    def replica_sets(self, replicas: int = 3) -> list[tuple[str, ...]]:
        """List the different sets of nodes that store some key together.

        Parameters
        ----------
        replicas : int
            Copies of each key.

        Returns
        -------
        list of tuple of str
            Each set once.
        """
        return [tuple(f"n{node}" for node in nodes) for nodes in self._ring.replica_sets(_copies(replicas))]

    def distribution(self, replicas: int = 3) -> Distribution:
        """Compute the balance of keys and copies.

        Parameters
        ----------
        replicas : int
            Copies of each key.

        Returns
        -------
        Distribution
            Shares and balance of primary ownership and of stored copies.
        """
        found = self._ring.balance(_copies(replicas))
        shares = tuple(
            NodeShare(f"n{share['node']}", share["vnodes"], share["primary"], share["stored"])
            for share in found["nodes"]
        )
        return Distribution(
            found["replicas"],
            self._vnodes,
            shares,
            _balance(found["primary"]),
            _balance(found["stored"]),
            found["random_sd_percent"] / 100,
        )

    def moved(self, after: Ring, replicas: int = 3) -> float:
        """Compute the share of copies that move on a change to another ring.

        Parameters
        ----------
        after : Ring
            The other ring.
        replicas : int
            Copies of each key.

        Returns
        -------
        float
            Share of all copies; at least 1/N if a node joins N - 1 others.
        """
        if not isinstance(after, Ring):
            raise InvalidArgument(f"after is a Ring, not {type(after).__name__}")
        return self._ring.moved(after._ring, _copies(replicas))

    def __repr__(self) -> str:
        return f"<Ring of {', '.join(self._nodes)}: {self._vnodes} vnodes each, {self._hash}>"


def _copies(replicas: int, name: str = "replicas") -> int:
    return whole_number(replicas, name, 1, 255)


def _balance(found: Mapping[str, Any]) -> Balance:
    return Balance(
        found["mean"],
        found["sd_percent"] / 100,
        found["score"],
        f"n{found['most_loaded']['node']}",
        f"n{found['least_loaded']['node']}",
    )
