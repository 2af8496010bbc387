"""Commands that read and write: ``put``, ``get``, ``delete``, ``scan``, ``keyspace``."""

from __future__ import annotations

import base64
import os
import sys
from typing import TYPE_CHECKING, Any

from quorate._quorate import Context
from quorate.arguments import scan_limit
from quorate.cli.output import document, show
from quorate.connection import connect
from quorate.entries import shorten
from quorate.errors import InvalidArgument
from quorate.levels import to_wire
from quorate.rendering import listing

if TYPE_CHECKING:
    from argparse import Namespace

    from quorate.connection import Connection
    from quorate.entries import Entry, WriteResult
    from quorate.settings import Settings
    from quorate.topology import KeyspaceInfo

__all__ = ["delete", "get", "keyspace", "put", "scan"]


def connection(settings: Settings) -> Connection:
    """Connect as the settings say."""
    return connect(settings["endpoints"], timeout=settings["timeout"], secret=settings["secret"])


def keyspace(arguments: Namespace, settings: Settings) -> int:
    """Create or list keyspaces."""
    if (arguments.action == "create") == (arguments.name is None):
        raise InvalidArgument("use `keyspace create NAME` or `keyspace list`")
    for flag in ("read", "write"):
        try:
            to_wire(getattr(arguments, flag))
        except InvalidArgument as error:
            raise InvalidArgument(str(error).replace("consistency", f"--{flag}", 1)) from error
    with connection(settings) as client:
        if arguments.action == "list":
            return _list_keyspaces(client, as_json=arguments.json)
        made = client.keyspace(
            arguments.name,
            mode=arguments.mode,
            replicas=arguments.replicas,
            read=arguments.read,
            write=arguments.write,
            read_repair=arguments.read_repair,
        )
    if arguments.json:
        document(_plain(made.info))
    else:
        show(f"keyspace [bold]{made.name}[/]: {made.replicas} replicas, read {made.read}, write {made.write}")
    return 0


def _list_keyspaces(client: Connection, *, as_json: bool) -> int:
    known = client.keyspaces()
    if as_json:
        document([_plain(info) for info in known])
        return 0
    table = listing("keyspace", "mode", "replicas", "read", "write", "read repair", "R + W > N")
    for info in known:
        overlap = "[green]yes[/]" if info.overlapping else "[yellow]no[/]"
        levels = (str(info.read), str(info.write))
        table.add_row(info.name, info.mode, str(info.replicas), *levels, info.read_repair, overlap)
    show(table)
    return 0


def _plain(info: KeyspaceInfo) -> dict[str, Any]:
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
    value = sys.stdin.buffer.read() if arguments.value == "-" else os.fsencode(arguments.value)
    context, level = _context(arguments.context), _level(arguments, settings)
    with connection(settings) as client:
        result = client.keyspace(arguments.keyspace).put(
            arguments.key, value, context=context, consistency=level, trace=arguments.trace
        )
        _print(result, arguments)
    return 0


def get(arguments: Namespace, settings: Settings) -> int:
    """Read a key; the exit status is 1 when it has no value."""
    if arguments.raw and (arguments.json or arguments.trace):
        raise InvalidArgument("--raw prints the value alone: leave out --json and --trace, or --raw")
    level = _level(arguments, settings)
    with connection(settings) as client:
        entry = client.keyspace(arguments.keyspace).get(
            arguments.key, consistency=level, trace=arguments.trace, node=arguments.node
        )
        if arguments.raw and entry.found:
            sys.stdout.buffer.write(entry.value or b"")
        elif arguments.raw:
            print(f"quorate: {arguments.key!r} is not in {arguments.keyspace!r}", file=sys.stderr)
        else:
            _print(entry, arguments)
    return 0 if entry.found else 1


def delete(arguments: Namespace, settings: Settings) -> int:
    """Delete a key."""
    context, level = _context(arguments.context), _level(arguments, settings)
    with connection(settings) as client:
        result = client.keyspace(arguments.keyspace).delete(
            arguments.key, context=context, consistency=level, trace=arguments.trace
        )
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
                print(key, " | ".join(shorten(value, 80) for value in entry.siblings), sep="\t")
    return 0


def _level(arguments: Namespace, settings: Settings) -> str | None:
    """Check the consistency level before anything else is done."""
    return to_wire(arguments.consistency or settings["consistency"])


def _context(text: str | None) -> Context | None:
    if text is None:
        return None
    try:
        return Context.from_bytes(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise InvalidArgument(f"--context {text!r} is not a context: give what get --json printed") from error


def _print(result: Entry | WriteResult, arguments: Namespace) -> None:
    if arguments.json:
        plain = result.to_dict()
        if arguments.trace:
            plain["trace"] = result.trace().to_dict()
        document(plain)
        return
    show(result)
    if arguments.trace:
        show(result.trace())
