# Generated from aio/fault_api.py by python/generate_sync.py: change that file, then run it.
"""Breaking the links between nodes, and healing them: what `Cluster` and `Connection` have for it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from quorate import faults, flow
from quorate.errors import Closed
from quorate.fault_view import FaultView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from quorate import _quorate
    from quorate.faults import Faults, Healed, LinkFault, Maker
    from quorate.faults_client import FaultsClient

__all__ = ["Fault", "FaultControl"]


class Fault(FaultView):
    """A fault that was made, by `Cluster.partition` for example: heal it, or let the end of a ``with`` block do that.

    Examples
    --------
    >>> import quorate
    >>> with quorate.Cluster(nodes=3) as cluster:
    ...     fault = cluster.partition({"n1"}, {"n2", "n3"})
    ...     fault.groups
    ...     fault.heal()
    ...     fault.healed
    (('n1',), ('n2', 'n3'))
    True
    """

    def __init__(self, control: FaultControl, made: LinkFault) -> None:
        super().__init__(made)
        self._control = control

    def heal(self) -> None:
        """End it; other faults stay. Healing twice is no error.

        Returns when the nodes see each other again, after five seconds at most.

        Raises
        ------
        OutcomeUnknown
            A node did not answer, and may have it in force still; a node of a `Cluster` that was paused here does not
            count, as ``resume()`` tells it.
        """
        if not self._healed:
            self._control._end([self.id])
            self._healed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A client that was closed meanwhile cannot heal anything.
        with contextlib.suppress(Closed):
            self.heal()


class FaultControl:
    """Makes and heals faults of the links between nodes."""

    _client: _quorate.Client
    _timeout: float
    _faults_client: FaultsClient

    def partition(self, *groups: str | Iterable[str], one_way: bool = False) -> Fault:
        """Cut groups of nodes off from each other: nothing that one sends arrives at another.

        Clients still reach all nodes. Within a group, and between a group and nodes that are in none, all is well.
        Nodes notice as they would notice a broken network: after a second of silence (``idle_ms``).

        Parameters
        ----------
        *groups : str or iterable of str
            Names of nodes, two groups or more; a name alone is a group of one.
        one_way : bool
            Of two groups, only what the first sends to the second is lost. A connection needs both ways, so that after
            ``idle_ms`` nothing passes the other way either.

        Returns
        -------
        Fault
            It is in force. To be healed, or used by ``with``.

        Raises
        ------
        InvalidArgument
            There is no such node, or groups overlap.
        PermissionDenied
            The nodes allow no faults (``quorate node`` without ``--allow-faults``).

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=5) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus", replicas=5)
        ...     with cluster.partition({"n1", "n2"}, {"n3", "n4", "n5"}):
        ...         accounts.put("ada", "100").leader in ("n3", "n4", "n5")
        True
        """
        make = faults.partition(groups, one_way)
        return self._begin(make)

    def isolate(self, node: str) -> Fault:
        """Cut one node off from all others, in both directions; clients still reach it.

        Parameters
        ----------
        node : str
            Its name.

        Returns
        -------
        Fault
            It is in force. To be healed, or used by ``with``.

        Raises
        ------
        InvalidArgument
            There is no such node.
        PermissionDenied
            The nodes allow no faults.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     accounts = cluster.keyspace("accounts", mode="consensus")
        ...     leader = accounts.put("ada", "100").leader
        ...     with cluster.isolate(leader):
        ...         accounts.put("ada", "90").leader == leader
        False
        """
        make = faults.isolate(node)
        return self._begin(make)

    def slow(
        self,
        first: str | Iterable[str],
        second: str | Iterable[str],
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        one_way: bool = False,
    ) -> Fault:
        """Let everything between nodes arrive late; its order stays, and nothing is lost.

        Parameters
        ----------
        first, second : str or iterable of str
            Names of nodes.
        delay : float
            Seconds that everything is late. Beyond ``idle_ms`` the link counts as broken, again and again.
        jitter : float
            Seconds that it is later still, at most, by chance.
        one_way : bool
            Only what ``first`` sends to ``second``.

        Returns
        -------
        Fault
            It is in force. To be healed, or used by ``with``.

        Raises
        ------
        InvalidArgument
            There is no such node, or a delay makes no sense.
        PermissionDenied
            The nodes allow no faults.

        Examples
        --------
        >>> import quorate
        >>> from quorate import ALL
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum")
        ...     with cluster.slow({"n1", "n2"}, "n3", delay=0.05, jitter=0.01):
        ...         users.put("user-1", "Ada", consistency=ALL).latency > 0.05
        True
        """
        make = faults.slow(first, second, delay, jitter, one_way)
        return self._begin(make)

    def lossy(
        self,
        first: str | Iterable[str],
        second: str | Iterable[str],
        *,
        percent: float,
        one_way: bool = False,
    ) -> Fault:
        """Lose some of the messages between nodes, by chance. Heartbeats of links arrive: the link stays up.

        Parameters
        ----------
        first, second : str or iterable of str
            Names of nodes.
        percent : float
            How many of a hundred messages are lost.
        one_way : bool
            Only what ``first`` sends to ``second``.

        Returns
        -------
        Fault
            It is in force. To be healed, or used by ``with``.

        Raises
        ------
        InvalidArgument
            There is no such node, or the percentage makes no sense.
        PermissionDenied
            The nodes allow no faults.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     users = cluster.keyspace("users", mode="quorum")
        ...     with cluster.lossy("n1", {"n2", "n3"}, percent=10):
        ...         written = users.put("user-1", "Ada")
        ...     users.get("user-1").text
        'Ada'
        """
        make = faults.lossy(first, second, percent, one_way)
        return self._begin(make)

    def heal(self, *ids: str) -> tuple[str, ...]:
        """End all faults, whoever has made them, or only some.

        Returns when the nodes see each other again, after five seconds at most. Nodes that do not run have no faults
        when they are back; nodes of a `Cluster` that were paused are told by ``resume()``.

        Parameters
        ----------
        *ids : str
            Only the faults of these ids, as `faults` lists them.

        Returns
        -------
        tuple of str
            The ids of the faults that were healed.

        Raises
        ------
        NotFound
            No fault of such an id is in force.
        OutcomeUnknown
            A node did not answer, and may have them in force still; the message names it. All others have healed them.
        ConnectionLost
            No node answers.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     fault = cluster.isolate("n1")
        ...     cluster.heal() == (fault.id,)
        True
        """
        return (self._heal(ids)).checked()

    def faults(self) -> Faults:
        """Ask every node which faults are in force.

        Returns
        -------
        Faults
            A table; ``missing`` names the nodes that did not answer.

        Examples
        --------
        >>> import quorate
        >>> with quorate.Cluster(nodes=3) as cluster:
        ...     with cluster.slow("n1", "n2", delay=0.05):
        ...         [(fault.between, fault.effect) for fault in cluster.faults()]
        [('n1 <-> n2', '50 ms late')]
        """
        return flow.run(self._client, self._faults_client.report(self._timeout))

    def _begin(self, make: Maker) -> Fault:
        return Fault(self, flow.run(self._client, self._faults_client.begin(make, self._timeout)))

    def _end(self, ids: list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
        return (flow.run(self._client, self._faults_client.end(ids, self._timeout))).checked()

    def _heal(self, ids: tuple[str, ...] | list[str]) -> Healed:
        if ids:
            flow.run(self._client, self._faults_client.named(ids, self._timeout))
        return flow.run(self._client, self._faults_client.end(ids or None, self._timeout))
