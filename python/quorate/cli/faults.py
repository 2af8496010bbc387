"""The command ``fault``: inject, list and heal faults of the links between nodes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from quorate.cli.data import connection
from quorate.cli.error_text import shell_words
from quorate.cli.output import document, show
from quorate.errors import InvalidArgument
from quorate.rendering import unanswered

if TYPE_CHECKING:
    from argparse import Namespace

    from quorate.connection import Connection
    from quorate.fault_api import Fault
    from quorate.settings import Settings

__all__ = ["fault"]

_FLAGS = {
    "delay": ("slow",),
    "jitter": ("slow",),
    "percent": ("lossy",),
    "one_way": ("partition", "slow", "lossy"),
}
_GROUPS = {"isolate": 1, "slow": 2, "lossy": 2, "list": 0}


def fault(arguments: Namespace, settings: Settings) -> int:
    """Inject, list or heal faults. They belong to the cluster and stay when the command ends."""
    _check(arguments)
    with connection(settings) as client:
        match arguments.action:
            case "list":
                return _list(client, as_json=arguments.json)
            case "heal":
                return _heal(client, arguments.names, as_json=arguments.json)
            case _:
                made = _make(client, arguments)
                missing = sorted({member.name for member in client.topology().members} - set(made.nodes))
    if arguments.json:
        document(made.to_dict())
    else:
        show(f"{made!r}, until `quorate fault heal {made.id}`")
    _warn(missing)
    return 0


def _check(arguments: Namespace) -> None:
    """Reject arguments that would have no effect."""
    for name, actions in _FLAGS.items():
        if getattr(arguments, name) not in (None, False) and arguments.action not in actions:
            flag = "--" + name.replace("_", "-")
            raise InvalidArgument(
                f"{flag} is for `fault {'`, `fault '.join(actions)}`, not for {arguments.action}"
            )
    wanted = _GROUPS.get(arguments.action)
    if wanted is not None and len(arguments.names) != wanted:
        usage = {
            "isolate": "`fault isolate n1`",
            "slow": "`fault slow n1 n2,n3 --delay 0.05`",
            "lossy": "`fault lossy n1 n2,n3 --percent 10`",
            "list": "`fault list`",
        }
        raise InvalidArgument(
            f"write it like {usage[arguments.action]}: {len(arguments.names)} name(s) were given"
        )
    if arguments.action == "lossy" and arguments.percent is None:
        raise InvalidArgument("no percentage of messages to drop: give --percent N")
    if arguments.action == "slow" and arguments.delay is None and arguments.jitter is None:
        raise InvalidArgument("no delay: give --delay SECONDS, --jitter SECONDS or both")


def _make(client: Connection, arguments: Namespace) -> Fault:
    groups = [[name for name in given.split(",") if name] for given in arguments.names]
    one_way: bool = arguments.one_way
    match arguments.action:
        case "partition":
            return client.partition(*groups, one_way=one_way)
        case "isolate":
            return client.isolate(arguments.names[0])
        case "slow":
            delay, jitter = arguments.delay or 0.0, arguments.jitter or 0.0
            return client.slow(*groups, delay=delay, jitter=jitter, one_way=one_way)
        case _:
            return client.lossy(*groups, percent=arguments.percent, one_way=one_way)


def _list(client: Connection, *, as_json: bool) -> int:
    found = client.faults()
    if not as_json:
        show(found)
        return 0
    for each in found:
        document(each.to_dict())
    if found.missing:
        _warn(found.missing)
    return 0


def _heal(client: Connection, ids: list[str], *, as_json: bool) -> int:
    """Heal; the exit status is 1 if a node that may run did not respond: the faults may still be active there."""
    healed = client._heal(ids)
    if as_json:
        document({"healed": list(healed.ids)})
    elif healed.ids:
        show(f"healed: {', '.join(healed.ids)}")
    elif not healed.missing:
        show("no active faults")
    _warn(healed.down)
    if healed.missing:
        print(f"quorate: warning: {shell_words(healed.doubt)}", file=sys.stderr)
    return 1 if healed.missing else 0


def _warn(missing: list[str] | tuple[str, ...]) -> None:
    if missing:
        print(f"quorate: warning: {unanswered(missing)}", file=sys.stderr)
