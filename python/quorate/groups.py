"""Raft groups as their members report them: leaders, terms and progress."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from quorate.rendering import Rendered, listing, milliseconds, of_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

__all__ = ["CONTROL", "CONTROL_GROUP", "GroupClaim", "Groups"]

CONTROL = "control"
"""The name of the control plane's group."""
CONTROL_GROUP = 1
"""Its number; all other groups have greater ones."""
_STYLES = {"leader": "bold green", "candidate": "yellow", "recovering": "yellow", "broken": "bold red"}


@dataclass(frozen=True, slots=True)
class GroupClaim:
    """One node's report on a Raft group that it belongs to. Reports of other nodes may differ at the same time.

    Attributes
    ----------
    group : int
        The group's number.
    name : str
        The group's name: ``control``, or a keyspace and the number of its shard as in ``accounts/0``.
    node : str
        The reporting node.
    state : str
        ``leader``, ``follower``, ``learner`` (no vote), ``candidate``, ``recovering`` (it reads its log) or ``broken``
        (it does not participate).
    term : int
        The latest term that it has seen.
    leader : str or None
        The leader that it knows.
    heard : float or None
        Seconds since it heard from the leader; 0 if it leads, ``None`` if it knows none.
    commit, applied, last, snapshot : int
        Indexes of the last entry of the log that it knows to be committed, that it has applied, that it has stored, and
        that its snapshot includes.
    voters, learners : tuple of str
        The group's members, with and without a vote.
    lag : mapping of str to int
        If it leads: the number of entries that each other member is not known to have durably.
    elections : int
        The number of elections that it has started since its own start.
    problem : str or None
        Why it does not participate, if it is broken.
    heartbeats_sent, heartbeats_answered : int
        Numbers of heartbeats that it has sent as a leader since its start, each to one member, and of those that were
        answered.
    commands : int
        Number of commands that it has proposed and committed as a leader since its start: writes, and the opening and
        closing of sessions.
    elections_won : int
        The number of elections that it has won.
    election : float
        Duration of the last one in seconds, from its detection that there is no leader.
    """

    group: int
    name: str
    node: str
    state: str
    term: int
    leader: str | None
    heard: float | None
    commit: int
    applied: int
    last: int
    snapshot: int
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    lag: Mapping[str, int]
    elections: int
    problem: str | None
    heartbeats_sent: int = 0
    heartbeats_answered: int = 0
    commands: int = 0
    elections_won: int = 0
    election: float = 0.0

    @property
    def heartbeat_ratio(self) -> float | None:
        """The share of its heartbeats that were answered; ``None`` if it has sent none.

        The last ones may be in flight, and a member that is down answers none.
        """
        return self.heartbeats_answered / self.heartbeats_sent if self.heartbeats_sent else None

    def to_dict(self) -> dict[str, Any]:
        """Describe the claim as plain data, as ``--json`` prints it."""
        return {**asdict(self), "heartbeat_ratio": self.heartbeat_ratio}


@dataclass(frozen=True, slots=True, repr=False)
class Groups(Rendered):
    """The claims of all nodes about their Raft groups.

    Attributes
    ----------
    claims : tuple of GroupClaim
        Sorted by group, then by node.
    missing : tuple of str
        The nodes that did not respond.
    """

    claims: tuple[GroupClaim, ...]
    missing: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[GroupClaim]:
        return iter(self.claims)

    def __len__(self) -> int:
        return len(self.claims)

    def __getitem__(self, index: int) -> GroupClaim:
        return self.claims[index]

    def where(self, name: str | None = None, *, group: int | None = None, node: str | None = None) -> Groups:
        """Select claims.

        Parameters
        ----------
        name : str, optional
            Only claims about ``control``, the groups of a keyspace, or one of them as in ``accounts/0``.
        group : int, optional
            Only claims about the group with this number.
        node : str, optional
            Only claims of this node.

        Returns
        -------
        Groups
            The matching claims.
        """
        chosen = (
            claim
            for claim in self.claims
            if name in (None, claim.name, claim.name.partition("/")[0])
            and group in (None, claim.group)
            and node in (None, claim.node)
        )
        return Groups(tuple(chosen), self.missing)

    @property
    def leader(self) -> str | None:
        """The node that claims to lead in the newest term; ``None`` if there is none.

        A partitioned node may still claim an older term: only the newest counts. Meant for the claims of one group, as
        `where` selects them.
        """
        leaders = [claim for claim in self.claims if claim.state == "leader"]
        return max(leaders, key=lambda claim: claim.term).node if leaders else None

    def __rich__(self) -> RenderableType:
        from rich.markup import escape

        # As many as fit into 80 columns; `to_dict` has the rest.
        columns = ("group", "node", "state", "term", "leader", "heard", "commit", "applied", "behind")
        problems = [f"{claim.node}: {escape(claim.problem)}" for claim in self.claims if claim.problem]
        caption = "\n".join(problems) or None
        table = listing(*columns, title="Raft groups", caption=caption)
        for claim in self.claims:
            behind = ", ".join(f"{node} {count}" for node, count in claim.lag.items() if count)
            table.add_row(
                escape(claim.name),
                claim.node,
                f"[{_STYLES.get(claim.state, 'default')}]{claim.state}[/]",
                str(claim.term),
                claim.leader or "-",
                "-" if claim.heard is None else milliseconds(claim.heard),
                str(claim.commit),
                str(claim.applied),
                behind or "-",
            )
        return of_nodes(table, self.missing)
