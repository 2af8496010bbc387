"""Fault injection on the links between nodes: the operations of `Cluster` and `Connection`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from quorate import faults, flow
from quorate.aio.opening import Opening
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
    """An injected fault, returned by `Cluster.partition` for example. `heal` or the end of a ``with`` block ends it.

    Examples
    --------
    >>> import quorate
    >>> async with quorate.aio.Cluster(nodes=3) as cluster:
    ...     fault = await cluster.partition({"n1"}, {"n2", "n3"})
    ...     fault.groups
    ...     await fault.heal()
    ...     fault.healed
    (('n1',), ('n2', 'n3'))
    True
    """

    def __init__(self, control: FaultControl, made: LinkFault) -> None:
        super().__init__(made)
        self._control = control

    async def heal(self) -> None:
        """Heal this fault; other faults stay. Healing twice is no error.

        Returns when the nodes see each other again, after at most five seconds.

        Raises
        ------
        OutcomeUnknown
            A node did not respond, and the fault may still be active there. Paused nodes of a `Cluster` are excluded:
            ``resume()`` updates their faults.

        Examples
        --------
        >>> import quorate
        >>> async with quorate.aio.Cluster(nodes=3) as cluster:
        ...     fault = await cluster.isolate("n1")
        ...     await fault.heal()
        ...     fault.healed
        True
        """
        if not self._healed:
            await self._control._end([self.id])
            self._healed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A closed client cannot heal anything.
        with contextlib.suppress(Closed):
            await self.heal()


class FaultControl:
    """Injects and heals faults of the links between nodes."""

    _client: _quorate.Client
    _timeout: float
    _faults_client: FaultsClient

    def partition(self, *groups: str | Iterable[str], one_way: bool = False) -> Opening[Fault]:
        """Partition groups of nodes: no message between two groups is delivered.

        Clients still reach all nodes. Links within a group, and to nodes in no group, are not affected. Nodes detect
        the partition like a broken network: after a second without messages (``idle_ms``).

        Parameters
        ----------
        *groups : str or iterable of str
            Names of nodes, at least two groups; a single name is a group of one.
        one_way : bool
            Drop only messages from the first of two groups to the second. A connection needs both directions: after
            ``idle_ms`` the other direction fails too.

        Returns
        -------
        Fault
            The active fault; heal it, or use it as a context manager.

        Raises
        ------
        InvalidArgument
            A node does not exist, or groups overlap.
        PermissionDenied
            The nodes do not allow fault injection (``quorate node`` without ``--allow-faults``).

        Examples
        --------
        >>> import quorate
        >>> async with quorate.aio.Cluster(nodes=5) as cluster:
        ...     accounts = await cluster.keyspace("accounts", mode="consensus", replicas=5)
        ...     async with cluster.partition({"n1", "n2"}, {"n3", "n4", "n5"}):
        ...         (await accounts.put("ada", "100")).leader in ("n3", "n4", "n5")
        True
        """
        make = faults.partition(groups, one_way)
        return Opening(lambda: self._begin(make))

    def isolate(self, node: str) -> Opening[Fault]:
        """Partition one node from all others, in both directions; clients still reach it.

        Parameters
        ----------
        node : str
            Its name.

        Returns
        -------
        Fault
            The active fault; heal it, or use it as a context manager.

        Raises
        ------
        InvalidArgument
            The node does not exist.
        PermissionDenied
            The nodes do not allow fault injection.

        Examples
        --------
        >>> import quorate
        >>> async with quorate.aio.Cluster(nodes=3) as cluster:
        ...     accounts = await cluster.keyspace("accounts", mode="consensus")
        ...     leader = (await accounts.put("ada", "100")).leader
        ...     async with cluster.isolate(leader):
        ...         (await accounts.put("ada", "90")).leader == leader
        False
        """
        make = faults.isolate(node)
        return Opening(lambda: self._begin(make))

    def slow(
        self,
        first: str | Iterable[str],
        second: str | Iterable[str],
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        one_way: bool = False,
    ) -> Opening[Fault]:
        """Delay all messages between nodes; they stay in order, and none is lost.

        Parameters
        ----------
        first, second : str or iterable of str
            Names of nodes.
        delay : float
            Seconds that each message is delayed. Above ``idle_ms`` the link is repeatedly considered down.
        jitter : float
            Maximum random additional delay, in seconds.
        one_way : bool
            Only messages from ``first`` to ``second``.

        Returns
        -------
        Fault
            The active fault; heal it, or use it as a context manager.

        Raises
        ------
        InvalidArgument
            A node does not exist, or a delay is invalid.
        PermissionDenied
            The nodes do not allow fault injection.

        Examples
        --------
        >>> import quorate
        >>> from quorate import ALL
        >>> async with quorate.aio.Cluster(nodes=3) as cluster:
        ...     users = await cluster.keyspace("users", mode="quorum")
        ...     async with cluster.slow({"n1", "n2"}, "n3", delay=0.05, jitter=0.01):
        ...         (await users.put("user-1", "Ada", consistency=ALL)).latency > 0.05
        True
        """
        make = faults.slow(first, second, delay, jitter, one_way)
        return Opening(lambda: self._begin(make))

    def lossy(
        self,
        first: str | Iterable[str],
        second: str | Iterable[str],
        *,
        percent: float,
        one_way: bool = False,
    ) -> Opening[Fault]:
        """Drop messages between nodes at random. Heartbeats of links are delivered: the link stays up.

        Parameters
        ----------
        first, second : str or iterable of str
            Names of nodes.
        percent : float
            Percentage of messages that are dropped.
        one_way : bool
            Only messages from ``first`` to ``second``.

        Returns
        -------
        Fault
            The active fault; heal it, or use it as a context manager.

        Raises
        ------
        InvalidArgument
            A node does not exist, or the percentage is invalid.
        PermissionDenied
            The nodes do not allow fault injection.

        Examples
        --------
        >>> import quorate
        >>> async with quorate.aio.Cluster(nodes=3) as cluster:
        ...     users = await cluster.keyspace("users", mode="quorum")
        ...     async with cluster.lossy("n1", {"n2", "n3"}, percent=10):
        ...         written = await users.put("user-1", "Ada")
        ...     (await users.get("user-1")).text
        'Ada'
        """
        make = faults.lossy(first, second, percent, one_way)
        return Opening(lambda: self._begin(make))

    async def heal(self, *ids: str) -> tuple[str, ...]:
        """Heal all faults, including those of other clients, or only some.

        Returns when the nodes see each other again, after at most five seconds. Nodes that do not run have no faults
        when they restart; faults of paused nodes of a `Cluster` are updated by ``resume()``.

        Parameters
        ----------
        *ids : str
            Heal only the faults with these ids, as listed by `faults`.

        Returns
        -------
        tuple of str
            The ids of the faults that were healed.

        Raises
        ------
        NotFound
            No active fault has such an id.
        OutcomeUnknown
            A node, named in the message, did not respond, and the faults may still be active there. They are healed on
            all others.
        ConnectionLost
            No node responds.

        Examples
        --------
        >>> import quorate
        >>> async with quorate.aio.Cluster(nodes=3) as cluster:
        ...     fault = await cluster.isolate("n1")
        ...     await cluster.heal() == (fault.id,)
        True
        """
        return (await self._heal(ids)).checked()

    async def faults(self) -> Faults:
        """List the active faults, as reported by all nodes.

        Returns
        -------
        Faults
            A table; ``missing`` names the nodes that did not respond.

        Examples
        --------
        >>> import quorate
        >>> async with quorate.aio.Cluster(nodes=3) as cluster:
        ...     async with cluster.slow("n1", "n2", delay=0.05):
        ...         [(fault.between, fault.effect) for fault in await cluster.faults()]
        [('n1 <-> n2', '50 ms late')]
        """
        return await flow.run_async(self._client, self._faults_client.report(self._timeout))

    async def _begin(self, make: Maker) -> Fault:
        return Fault(self, await flow.run_async(self._client, self._faults_client.begin(make, self._timeout)))

    async def _end(self, ids: list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
        return (await flow.run_async(self._client, self._faults_client.end(ids, self._timeout))).checked()

    async def _heal(self, ids: tuple[str, ...] | list[str]) -> Healed:
        if ids:
            await flow.run_async(self._client, self._faults_client.named(ids, self._timeout))
        return await flow.run_async(self._client, self._faults_client.end(ids or None, self._timeout))
