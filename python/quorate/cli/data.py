"""Commands that read and write: ``put``, ``get``, ``delete``, ``scan``, ``append``, ``entries``, ``keyspace``."""

from __future__ import annotations

import base64
import os
import sys
from typing import TYPE_CHECKING, Any

from quorate._quorate import Context
from quorate.answers import shorten
from quorate.arguments import scan_limit
from quorate.cli.output import document, show
from quorate.connection import connect
from quorate.consensus import ConsensusKeyspace
from quorate.errors import InvalidArgument
from quorate.levels import ReadLevel, checked
from quorate.rendering import listing
from quorate.results import ConsensusEntry

if TYPE_CHECKING:
    from argparse import Namespace

    from quorate.connection import Connection
    from quorate.results import Appended, Commit, Entry, WriteResult
    from quorate.settings import Settings
    from quorate.topology import KeyspaceInfo

__all__ = ["append", "delete", "entries", "get", "keyspace", "put", "scan"]


def connection(settings: Settings) -> Connection:
    """Connect with the endpoints, timeout and secret of the settings."""
    return connect(settings["endpoints"], timeout=settings["timeout"], secret=settings["secret"])


def keyspace(arguments: Namespace, settings: Settings) -> int:
    """Create, alter, list or drop keyspaces."""
    if (arguments.action == "list") != (arguments.name is None):
        raise InvalidArgument("use `keyspace create NAME`, `alter NAME`, `drop NAME` or `keyspace list`")
    for flag in ("read", "write"):
        try:
            checked(getattr(arguments, flag))
        except InvalidArgument as error:
            raise InvalidArgument(str(error).replace("consistency", f"--{flag}", 1)) from error
    _refuse_idle_flags(arguments)
    chosen = {"read": arguments.read, "write": arguments.write, "read_repair": arguments.read_repair}
    with connection(settings) as client:
        match arguments.action:
            case "list":
                return _list_keyspaces(client, as_json=arguments.json)
            case "alter":
                info = client.alter_keyspace(arguments.name, **chosen)
            case "drop":
                info = client.drop_keyspace(arguments.name)
            case _:
                made = client.keyspace(
                    arguments.name,
                    mode=arguments.mode or "quorum",
                    replicas=arguments.replicas,
                    shards=arguments.shards,
                    snapshot_every=arguments.snapshot_every,
                    **chosen,
                )
                info = made.info
    if arguments.json:
        document(_plain(info))
    elif arguments.action == "drop":
        show(f"keyspace [bold]{info.name}[/] dropped")
    elif info.mode == "quorum":
        show(f"keyspace [bold]{info.name}[/]: {info.replicas} replicas, read {info.read}, write {info.write}")
    else:
        of = "shard" if info.shards == 1 else "shards"
        show(f"keyspace [bold]{info.name}[/]: consensus, {info.replicas} replicas, {info.shards} {of}")
    return 0


def _refuse_idle_flags(arguments: Namespace) -> None:
    """Reject flags that would have no effect."""
    fixed, changeable = ("mode", "replicas", "shards", "snapshot_every"), ("read", "write", "read_repair")
    idle = {"create": (), "alter": fixed}.get(arguments.action, fixed + changeable)
    for name in idle:
        if getattr(arguments, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise InvalidArgument(f"{flag} has no effect on `keyspace {arguments.action}`: leave it out")


def _list_keyspaces(client: Connection, *, as_json: bool) -> int:
    known = client.keyspaces()
    if as_json:
        document([_plain(info) for info in known])
        return 0
    table = listing("keyspace", "mode", "replicas", "read", "write", "read repair", "R + W > N", "shards")
    for info in known:
        if info.mode == "consensus":
            table.add_row(info.name, info.mode, str(info.replicas), "", "", "", "", str(info.shards))
            continue
        overlap = "[green]yes[/]" if info.overlapping else "[yellow]no[/]"
        levels = (str(info.read), str(info.write))
        table.add_row(info.name, info.mode, str(info.replicas), *levels, info.read_repair, overlap)
    show(table)
    return 0


def _plain(info: KeyspaceInfo) -> dict[str, Any]:
    if info.mode == "consensus":
        return {
            "name": info.name,
            "id": info.id,
            "mode": info.mode,
            "replicas": info.replicas,
            "shards": info.shards,
            "snapshot_every": info.snapshot_every,
            "groups": [{"id": group.id, "members": list(group.members)} for group in info.groups],
        }
    return {
        "name": info.name,
        "id": info.id,
        "mode": info.mode,
        "replicas": info.replicas,
        "read": str(info.read),
        "write": str(info.write),
        "read_repair": info.read_repair,
    }


def put(arguments: Namespace, settings: Settings) -> int:
    """Write a value."""
    value = _value(arguments.value)
    context, level = _context(arguments.context), _level(arguments, settings)
    with connection(settings) as client:
        opened = client.keyspace(arguments.keyspace)
        result: WriteResult | Commit
        if isinstance(opened, ConsensusKeyspace):
            _only_in_quorum(arguments, "consistency", "context")
            result = opened.put(
                arguments.key,
                value,
                if_version=arguments.if_version,
                if_absent=arguments.if_absent,
                trace=arguments.trace,
            )
        else:
            _only_in_consensus(arguments, "if_version", "if_absent")
            result = opened.put(
                arguments.key, value, context=context, consistency=level, trace=arguments.trace
            )
        _print(result, arguments)
    return 0


def get(arguments: Namespace, settings: Settings) -> int:
    """Read a key; the exit status is 1 if it has no value."""
    if arguments.raw and (arguments.json or arguments.trace):
        raise InvalidArgument("--raw prints only the value: leave out --json and --trace, or --raw")
    level = _level(arguments, settings)
    with connection(settings) as client:
        entry = client.keyspace(arguments.keyspace).get(
            arguments.key, consistency=level, trace=arguments.trace, node=arguments.node
        )
        if arguments.raw and entry.found:
            sys.stdout.buffer.write(entry.value or b"")
        elif arguments.raw:
            print(
                f"quorate: key {arguments.key!r} not found in keyspace {arguments.keyspace!r}",
                file=sys.stderr,
            )
        else:
            _print(entry, arguments)
    return 0 if entry.found else 1


def delete(arguments: Namespace, settings: Settings) -> int:
    """Delete a key."""
    context, level = _context(arguments.context), _level(arguments, settings)
    with connection(settings) as client:
        opened = client.keyspace(arguments.keyspace)
        result: WriteResult | Commit
        if isinstance(opened, ConsensusKeyspace):
            _only_in_quorum(arguments, "consistency", "context")
            result = opened.delete(arguments.key, if_version=arguments.if_version, trace=arguments.trace)
        else:
            _only_in_consensus(arguments, "if_version")
            result = opened.delete(arguments.key, context=context, consistency=level, trace=arguments.trace)
        _print(result, arguments)
    return 0


def scan(arguments: Namespace, settings: Settings) -> int:
    """List keys and values; as JSON one document per line."""
    level, limit = _level(arguments, settings), scan_limit(arguments.limit)
    with connection(settings) as client:
        found = client.keyspace(arguments.keyspace).scan(
            arguments.start, arguments.end, prefix=arguments.prefix, consistency=level, limit=limit
        )
        for key, entry in found:
            if arguments.json:
                document(entry.to_dict())
            else:
                values = [entry.value or b""] if isinstance(entry, ConsensusEntry) else entry.siblings
                print(key, " | ".join(shorten(value, 80) for value in values), sep="\t")
    return 0


def append(arguments: Namespace, settings: Settings) -> int:
    """Append an entry to a consensus keyspace's log."""
    data = _value(arguments.data)
    with connection(settings) as client:
        opened = _consensus(client, arguments.keyspace)
        _print(opened.append(data, arguments.source, trace=arguments.trace), arguments)
    return 0


def entries(arguments: Namespace, settings: Settings) -> int:
    """List the entries of a consensus keyspace's log; as JSON one document per line."""
    level, limit = _level(arguments, settings), scan_limit(arguments.limit)
    with connection(settings) as client:
        opened = _consensus(client, arguments.keyspace)
        listed = opened.entries(arguments.after, source=arguments.source, limit=limit, consistency=level)
        for entry in listed:
            if arguments.json:
                document(entry.to_dict())
            else:
                moment = entry.timestamp.isoformat(sep=" ", timespec="milliseconds")
                print(
                    f"{entry.shard}/{entry.entry_id}", moment, entry.source, shorten(entry.data, 80), sep="\t"
                )
    return 0


def _consensus(client: Connection, name: str) -> ConsensusKeyspace:
    opened = client.keyspace(name)
    if isinstance(opened, ConsensusKeyspace):
        return opened
    raise InvalidArgument(
        f"keyspace {name!r} has mode quorum, and entries are for keyspaces of mode consensus: create one with `quorate"
        " keyspace create NAME --mode consensus`"
    )


def _value(text: str) -> bytes:
    return sys.stdin.buffer.read() if text == "-" else os.fsencode(text)


def _only_in_quorum(arguments: Namespace, *names: str) -> None:
    for name in names:
        if getattr(arguments, name) is not None:
            remedy = "use --if-version" if name == "context" else "every write is agreed on by a majority"
            raise InvalidArgument(
                f"--{name} is for keyspaces of mode quorum, and this one has mode consensus: {remedy}"
            )


def _only_in_consensus(arguments: Namespace, *names: str) -> None:
    for name in names:
        if getattr(arguments, name):
            flag = f"--{name.replace('_', '-')}"
            raise InvalidArgument(
                f"{flag} is for keyspaces of mode consensus, and this one has mode quorum: use --context"
            )


def _level(arguments: Namespace, settings: Settings) -> str | None:
    """Check the consistency level before any request; the valid levels depend on the keyspace's mode."""
    name = arguments.consistency or settings["consistency"]
    if isinstance(name, str) and name.upper() in ReadLevel.__members__:
        return name.upper()
    level = checked(name)
    return None if level is None else str(level)


def _context(text: str | None) -> Context | None:
    if text is None:
        return None
    try:
        return Context.from_bytes(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise InvalidArgument(
            f"--context {text!r} is not a context: pass the context that get --json printed"
        ) from error


def _print(result: Entry | WriteResult | ConsensusEntry | Commit | Appended, arguments: Namespace) -> None:
    if arguments.json:
        plain = result.to_dict()
        if arguments.trace:
            plain["trace"] = result.trace().to_dict()
        document(plain)
        return
    show(result)
    if arguments.trace:
        show(result.trace())
