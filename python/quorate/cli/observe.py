"""Commands that observe: ``status``, ``topology``, ``groups``, ``leader``, ``ring``, ``events``, ..."""

from __future__ import annotations

import sys
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING

from quorate.cli.data import connection
from quorate.cli.output import document, show
from quorate.errors import InvalidArgument, NotFound
from quorate.rendering import unanswered
from quorate.ring import Ring
from quorate.timeline import EVENTS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from quorate.rendering import Rendered
    from quorate.settings import Settings

__all__ = [
    "distribution",
    "events",
    "groups",
    "leader",
    "metrics",
    "nodes_for_key",
    "ring",
    "status",
    "topology",
    "trace",
]


def status(arguments: Namespace, settings: Settings) -> int:
    """Show the status of the nodes; the exit status is 1 unless every key has its quorum."""
    with connection(settings) as client:
        health = client.health(arguments.keyspace)
        view = client.status()
    if arguments.json:
        document({**health.to_dict(), "nodes": [node.to_dict() for node in view]})
    else:
        show(view)
        show(health)
    return 0 if health.has_quorum else 1


def topology(arguments: Namespace, settings: Settings) -> int:
    """Show the members."""
    with connection(settings) as client:
        shape = client.topology()
    if arguments.json:
        document(asdict(shape))
    else:
        show(shape)
    return 0


def groups(arguments: Namespace, settings: Settings) -> int:
    """Show each node's claims about its Raft groups; as JSON one document per line."""
    with connection(settings) as client:
        everything = client.groups()
    found = everything.where(arguments.name)
    if not found.claims and arguments.name is not None and not everything.missing:
        names = sorted({claim.name for claim in everything})
        raise NotFound(f"there is no Raft group of {arguments.name!r}: there are {', '.join(names)}")
    if not arguments.json:
        return _shown(found)
    for claim in found:
        document(claim.to_dict())
    _warn(found.missing)
    return 0


def leader(arguments: Namespace, settings: Settings) -> int:
    """Show the leader; the exit status is 1 if there is none."""
    with connection(settings) as client:
        found = client.leader(arguments.keyspace, key=arguments.key, shard=arguments.shard)
    if arguments.json:
        document({"leader": found})
    elif found is None:
        print("quorate: no leader", file=sys.stderr)
    else:
        print(found)
    return 0 if found else 1


def ring(arguments: Namespace, settings: Settings) -> int:
    """Show the balance of a ring: a cluster's, or one computed here."""
    if arguments.nodes is not None:
        computed = Ring(arguments.nodes, vnodes=settings["vnodes"], hash=settings["hash"])
    elif arguments.vnodes is not None or arguments.hash is not None:
        raise InvalidArgument("--vnodes and --hash describe a computed ring: give --nodes too")
    else:
        with connection(settings) as client:
            computed = client.ring()
    if arguments.tokens:
        for token, node in computed.tokens:
            document({"token": token, "node": node}) if arguments.json else print(f"{token:016x} {node}")
        return 0
    replicas = min(3, len(computed.nodes)) if arguments.replicas is None else arguments.replicas
    report = computed.distribution(replicas)
    if arguments.json:
        document(report.to_dict())
    else:
        show(report)
    return 0


def distribution(arguments: Namespace, settings: Settings) -> int:
    """Show the balance of a keyspace."""
    with connection(settings) as client:
        report = client.distribution(arguments.keyspace)
    if arguments.json:
        document(report.to_dict())
    else:
        show(report)
    return 0


def nodes_for_key(arguments: Namespace, settings: Settings) -> int:
    """Show the nodes that store a key, in order of preference."""
    with connection(settings) as client:
        nodes = client.nodes_for_key(arguments.keyspace, arguments.key)
    if arguments.json:
        document(list(nodes))
    else:
        print(*nodes)
    return 0


def events(arguments: Namespace, settings: Settings) -> int:
    """Show the events; as JSON one document per line."""
    if arguments.name not in (None, *EVENTS):
        raise InvalidArgument(f"--name {arguments.name!r}: there are {', '.join(EVENTS)}")
    with connection(settings) as client:
        timeline = client.events().where(arguments.name, group=arguments.group)
    if arguments.json:
        for event in timeline:
            document(event.to_dict())
        _warn(timeline.missing)
        return 0
    return _shown(timeline)


def metrics(arguments: Namespace, settings: Settings) -> int:
    """Show the metrics; as JSON one document per line."""
    with connection(settings) as client:
        everything = client.metrics()
    found = everything.where(arguments.name)
    if not found.samples and arguments.name is not None:
        near = get_close_matches(arguments.name, everything.names, n=3, cutoff=0.5)
        raise NotFound(
            f"no node reports the metric {arguments.name!r}: "
            + (f"the nearest are {', '.join(near)}" if near else "list all with `quorate metrics`")
        )
    if arguments.json:
        for sample in found:
            document(asdict(sample))
        _warn(found.missing)
        return 0
    return _shown(found)


def trace(arguments: Namespace, settings: Settings) -> int:
    """Draw a trace."""
    with connection(settings) as client:
        found = client.trace(arguments.trace_id)
    if arguments.json:
        document(found.to_dict())
        return 0
    return _shown(found)


def _warn(missing: Sequence[str]) -> None:
    """Report missing nodes on standard error, as the documents on standard output cannot."""
    if missing:
        print(f"quorate: warning: {unanswered(missing)}", file=sys.stderr)


def _shown(report: Rendered) -> int:
    show(report)
    return 0
