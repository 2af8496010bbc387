# Generated from aio/connection.py by python/generate_sync.py: change that file, then run it.
"""A connection to a running cluster: its keyspaces, status, metrics, events and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from quorate import _quorate, arguments, flow, observation, operations
from quorate.consensus import ConsensusKeyspace
from quorate.fault_api import FaultControl
from quorate.faults_client import FaultsClient
from quorate.keyspace import Keyspace
from quorate.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from typing_extensions import Self

    from quorate.groups import Groups
    from quorate.levels import Consistency
    from quorate.metrics import Metrics
    from quorate.ring import Distribution
    from quorate.timeline import Timeline
    from quorate.topology import ClusterStatus, Health, KeyspaceInfo, Topology
    from quorate.trace import Trace

__all__ = ["Connection", "connect"]


class Connection(FaultControl):
    """A client of a cluster, returned by `connect`. It sends requests directly to replicas and discovers other nodes.

    It may be shared by threads. It does not survive a fork: connect again in the child.

    Parameters
    ----------
    client : _quorate.Client
        The extension's client.
    timeout : float
        Default timeout of an operation, in seconds.
    """

    def __init__(self, client: _quorate.Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._member_cache = operations.MemberCache()
        self._faults_client = FaultsClient(self._member_cache)

    @property
    def timeout(self) -> float:
        """Default timeout of an operation, in seconds."""
        return self._timeout

    @overload
    def keyspace(
        self,
        name: str,
        *,
        mode: Literal["quorum"],
        replicas: int | None = None,
        read: Consistency | None = None,
        write: Consistency | None = None,
        read_repair: str | None = None,
    ) -> Keyspace: ...

    @overload
    def keyspace(
        self,
        name: str,
        *,
        mode: Literal["consensus"],
        replicas: int | None = None,
        shards: int | None = None,
        snapshot_every: int | None = None,
    ) -> ConsensusKeyspace: ...

    @overload
    def keyspace(
        self,
        name: str,
        *,
        mode: str | None = None,
        replicas: int | None = None,
        read: Consistency | None = None,
        write: Consistency | None = None,
        read_repair: str | None = None,
        shards: int | None = None,
        snapshot_every: int | None = None,
    ) -> Keyspace | ConsensusKeyspace: ...

    def keyspace(
        self,
        name: str,
        *,
        mode: str | None = None,
        replicas: int | None = None,
        read: Consistency | None = None,
        write: Consistency | None = None,
        read_repair: str | None = None,
        shards: int | None = None,
        snapshot_every: int | None = None,
    ) -> Keyspace | ConsensusKeyspace:
        """Create a keyspace, or open an existing one. With a name alone it must exist.

        Parameters
        ----------
        name : str
            1 to 64 letters, digits, ``_``, ``-`` or ``.``.
        mode : str, optional
            ``"quorum"`` (the default): leaderless, with a consistency level per operation. ``"consensus"``:
            linearizable, with conditional writes, on Raft groups.
        replicas : int, optional
            N, the number of nodes that store each key; by default 3, or the number of nodes if that is smaller.
        read, write : Level, str or int, optional
            In mode quorum, the default levels of operations; QUORUM unless given.
        read_repair : str, optional
            In mode quorum, whether reads repair stale replicas: ``"async"`` (in the background, the default) or
            ``"off"``.
        shards : int, optional
            In mode consensus, the number of Raft groups that share the keys, 1 to 256; 1 by default.
        snapshot_every : int, optional
            In mode consensus, the number of entries after which a group's log is compacted; 10,000 by default.

        Returns
        -------
        Keyspace or ConsensusKeyspace
            The keyspace; its class depends on the mode.

        Raises
        ------
        KeyspaceExists
            A keyspace of this name exists with other settings.
        NotFound
            No setting was given and no keyspace has this name.
        InvalidArgument
            A setting is invalid, for example more replicas than nodes.
        Unavailable
            No majority of the nodes is reachable; keyspaces are agreed on by a majority.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus", shards=4)
        ...     cluster.keyspace("accounts").shards
        4
        """
        info = flow.run(
            self._client,
            operations.open_keyspace(
                name, mode, replicas, read, write, read_repair, shards, snapshot_every, self._timeout
            ),
        )
        ring_hash = flow.run(self._client, operations.ring_hash(info, self._timeout))
        return Keyspace(self, info) if ring_hash is None else ConsensusKeyspace(self, info, ring_hash)

    def keyspaces(self) -> tuple[KeyspaceInfo, ...]:
        """List the keyspaces by name.

        Returns
        -------
        tuple of KeyspaceInfo
            Their settings.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum")
        ...     [info.name for info in cluster.keyspaces()]
        ['users']
        """
        return flow.run(self._client, operations.keyspaces(self._timeout))

    def alter_keyspace(
        self,
        name: str,
        *,
        read: Consistency | None = None,
        write: Consistency | None = None,
        read_repair: str | None = None,
    ) -> KeyspaceInfo:
        """Change settings of a keyspace; settings that are not given stay.

        Parameters
        ----------
        name : str
            The keyspace.
        read, write : Level, str or int, optional
            The default levels of operations.
        read_repair : str, optional
            Whether reads repair stale replicas: ``"async"`` or ``"off"``.

        Returns
        -------
        KeyspaceInfo
            The new settings. Existing `Keyspace` objects show the old settings; their operations use the new ones.

        Raises
        ------
        NotFound
            No keyspace has this name.
        InvalidArgument
            No setting was given, or a level that the keyspace does not have.
        Unavailable
            No majority of the nodes is reachable; keyspaces are agreed on by a majority.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum")
        ...     cluster.alter_keyspace("users", read="ONE").read
        ONE
        """
        change = operations.alter_keyspace(name, read, write, read_repair, self._timeout)
        return flow.run(self._client, change)

    def drop_keyspace(self, name: str) -> KeyspaceInfo:
        """Drop a keyspace. Its data becomes unreachable, also through a new keyspace of this name.

        It is deleted from the disks in the background.

        Parameters
        ----------
        name : str
            The keyspace.

        Returns
        -------
        KeyspaceInfo
            Its last settings.

        Raises
        ------
        NotFound
            No keyspace has this name.
        Unavailable
            No majority of the nodes is reachable; keyspaces are agreed on by a majority.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum")
        ...     gone = cluster.drop_keyspace("users")
        ...     cluster.keyspaces()
        ()
        """
        return flow.run(self._client, operations.drop_keyspace(name, self._timeout))

    def groups(self, *, timeout: float = arguments.PROBE_TIMEOUT) -> Groups:
        """Ask every node about the Raft groups that it belongs to. Each reports only its own view.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the nodes; those that do not respond are left out.

        Returns
        -------
        Groups
            State, term, leader and progress as each node reports them; ``missing`` names the nodes that did not
            respond.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     leader = cluster.leader()
        ...     {claim.leader for claim in cluster.groups().where("control")} == {leader}
        True
        """
        limit = arguments.seconds(timeout, self._timeout)
        return flow.run(self._client, observation.groups(self._member_cache, limit))

    def leader(
        self,
        keyspace: str | None = None,
        *,
        key: str | bytes | None = None,
        shard: int | None = None,
        timeout: float = arguments.PROBE_TIMEOUT,
    ) -> str | None:
        """Find the leader of the control plane, or of a shard of a keyspace with ``mode="consensus"``.

        Parameters
        ----------
        keyspace : str, optional
            The keyspace; the control plane by default.
        key : str or bytes, optional
            The shard that this key is in.
        shard : int, optional
            The shard of this number; 0 by default.
        timeout : float
            Seconds to wait for the nodes; those that do not respond are left out.

        Returns
        -------
        str or None
            The node that claims to lead in the newest term, or ``None`` if there is none. It may change at any time.

        Raises
        ------
        NotFound
            The keyspace does not exist.
        InvalidArgument
            The keyspace has ``mode="quorum"``, or the shard does not exist.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster.leader() in cluster
        True
        """
        limit = arguments.seconds(timeout, self._timeout)
        return flow.run(self._client, observation.leader(self._member_cache, keyspace, key, shard, limit))

    def topology(self) -> Topology:
        """Fetch the cluster's members and ring settings.

        Returns
        -------
        Topology
            Names, addresses, and the ring's settings.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     [member.name for member in cluster.topology()]
        ['n1', 'n2', 'n3']
        """
        return flow.run(self._client, operations.topology(self._timeout))

    def ring(self) -> Ring:
        """Compute the cluster's ring.

        Returns
        -------
        Ring
            The same ring as on every node.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster.ring().nodes
        ('n1', 'n2', 'n3')
        """
        return Ring.of(self.topology())

    def nodes_for_key(self, keyspace: str, key: str | bytes) -> tuple[str, ...]:
        """List the nodes that store a key, the most preferred one first.

        Parameters
        ----------
        keyspace : str
            The keyspace.
        key : str or bytes
            The key.

        Returns
        -------
        tuple of str
            One name per replica.

        Raises
        ------
        NotFound
            The keyspace does not exist.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum", replicas=2)
        ...     len(cluster.nodes_for_key("users", "user-123"))
        2
        """
        return flow.run(self._client, operations.nodes_for_key(keyspace, key, self._timeout))

    def distribution(self, keyspace: str | None = None) -> Distribution:
        """Report how evenly the ring spreads keys and their copies.

        Parameters
        ----------
        keyspace : str, optional
            Use this keyspace's number of replicas; by default up to three.

        Returns
        -------
        Distribution
            Shares and balance of primary ownership and of stored copies.

        Raises
        ------
        NotFound
            The keyspace does not exist.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster.distribution().primary.deviation < 0.05
        True
        """
        return flow.run(self._client, operations.distribution(keyspace, self._timeout))

    def status(self, *, timeout: float = arguments.PROBE_TIMEOUT) -> ClusterStatus:
        """Fetch the status of every node. A node that does not respond counts as down; all of them may be.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the nodes; those that do not respond count as down.

        Returns
        -------
        ClusterStatus
            The status that each node reports.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     [node.name for node in cluster.status() if node.up]
        ['n1', 'n2', 'n3']
        """
        limit = arguments.seconds(timeout, self._timeout)
        return flow.run(self._client, observation.status(self._member_cache, limit))

    def health(self, keyspace: str | None = None, *, timeout: float = arguments.PROBE_TIMEOUT) -> Health:
        """Check whether a keyspace is available.

        Parameters
        ----------
        keyspace : str, optional
            Use this keyspace's number of replicas; by default up to three.
        timeout : float
            Seconds to wait for the nodes; those that do not respond count as down.

        Returns
        -------
        Health
            Status, number of nodes, whether every key has its quorum.

        Raises
        ------
        NotFound
            The keyspace does not exist.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     cluster.health().status
        'healthy'
        """
        limit = arguments.seconds(timeout, self._timeout)
        return flow.run(self._client, observation.health(self._member_cache, keyspace, limit))

    def metrics(self, *, timeout: float = arguments.PROBE_TIMEOUT) -> Metrics:
        """Read the metrics of all nodes that respond; ``missing`` names the others.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the nodes; those that do not respond are left out.

        Returns
        -------
        Metrics
            The metrics that each node serves at ``/metrics``.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     sorted({sample.node for sample in cluster.metrics()})
        ['n1', 'n2', 'n3']
        """
        limit = arguments.seconds(timeout, self._timeout)
        return flow.run(self._client, observation.metrics(self._member_cache, limit))

    def events(self, *, timeout: float = arguments.PROBE_TIMEOUT) -> Timeline:
        """Collect the events of all nodes that respond; ``missing`` names the others.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the nodes; those that do not respond are left out.

        Returns
        -------
        Timeline
            Events in order of time.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     sorted(event.node for event in cluster.events().where("NodeStarted"))
        ['n1', 'n2', 'n3']
        """
        limit = arguments.seconds(timeout, self._timeout)
        return flow.run(self._client, observation.events(self._member_cache, limit))

    def trace(self, trace_id: str) -> Trace:
        """Collect the spans of a trace from this client and all nodes.

        Parameters
        ----------
        trace_id : str
            32 hexadecimal digits.

        Returns
        -------
        Trace
            A waterfall of spans; drawn when printed or shown in a notebook.

        Raises
        ------
        NotFound
            No node keeps spans of this trace.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum")
        ...     written = users.put("user-123", "Ada", trace=True)
        ...     cluster.trace(written.trace_id).nodes[0]
        'client'
        """
        client = self._client
        limit = min(arguments.PROBE_TIMEOUT, self._timeout)
        return flow.run(client, observation.trace(self._member_cache, trace_id, client.spans, limit))

    def close(self) -> None:
        """Close the connections; later operations raise `Closed`. Closing twice is no error."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with a timeout of {self._timeout:g} s>"


def connect(
    endpoints: str | Iterable[str],
    *,
    timeout: float = arguments.DEFAULT_TIMEOUT,
    secret: str | None = None,
) -> Connection:
    """Connect to a running cluster.

    Parameters
    ----------
    endpoints : str or iterable of str
        ``"host1:7400,host2:7400"``; one reachable node is enough. The default port is 7400.
    timeout : float
        Connect timeout and default timeout of operations, in seconds.
    secret : str, optional
        The cluster's secret, if it has one.

    Returns
    -------
    Connection
        A client; also a context manager.

    Raises
    ------
    ConnectionLost
        None of the nodes is reachable.
    Refused
        The server speaks another protocol or version, or requires a secret.

    Examples
    --------
    >>> import quorate
    >>> with quorate.Cluster(nodes=3) as cluster:
    ...     with quorate.connect(cluster.endpoints) as connection:
    ...         len(connection.topology())
    3
    """
    limit = arguments.seconds(timeout, arguments.DEFAULT_TIMEOUT)
    addresses = arguments.parse_endpoints(endpoints)
    known = arguments.secret_text(secret)
    return _connect(addresses, limit, known)


def _connect(addresses: list[str], timeout: float, secret: str | None) -> Connection:
    client = _quorate.Client.connect(addresses, timeout, secret).wait()
    try:
        connection = Connection(client, timeout)
        flow.run(client, connection._member_cache.learn(timeout))
    except BaseException:
        # No other reference to it exists.
        client.close()
        raise
    return connection
