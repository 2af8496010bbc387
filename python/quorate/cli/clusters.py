"""Commands that run nodes: ``up`` (a local cluster) and ``node`` (a single node)."""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from quorate.arguments import log_filter, node_number, timing, whole_number
from quorate.cli.output import show
from quorate.errors import InvalidArgument, NotFound
from quorate.rendering import listing
from quorate.tuning import tuned

if TYPE_CHECKING:
    from argparse import Namespace

    from quorate.cluster import Cluster
    from quorate.settings import Settings

__all__ = ["node", "up"]

_LOOK = 0.25


def up(arguments: Namespace, settings: Settings) -> int:
    """Run a cluster until SIGINT, SIGTERM or, unless that is ignored as under nohup, SIGHUP."""
    from quorate.cluster import Cluster

    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: done.set())
    with Cluster(
        settings["nodes"],
        data_dir=settings["data"],
        port=settings["port"] or None,
        vnodes=settings["vnodes"],
        hash=settings["hash"],
        raft_timing=settings["raft_timing"],
        settings={"allow_faults": settings["allow_faults"]},
    ) as cluster:
        _announce(cluster, as_json=arguments.json)
        _watch(cluster, done)
    return 0


def _announce(cluster: Cluster, *, as_json: bool) -> None:
    if as_json:
        nodes = [
            {
                "name": node.name,
                "pid": node.pid,
                "address": node.address,
                "peer_address": node.peer_address,
                "http_address": node.http_address,
                "log": str(cluster.directory / f"{node.name}.log"),
            }
            for node in cluster
        ]
        plain = {"cluster": cluster.name, "endpoints": cluster.endpoints, "directory": str(cluster.directory)}
        print(json.dumps({**plain, "nodes": nodes}), flush=True)
        return
    table = listing("node", "pid", "clients", "metrics", "log")
    for node in cluster:
        url = f"http://{node.http_address}/metrics"
        table.add_row(
            node.name, str(node.pid), node.address, url, str(cluster.directory / f"{node.name}.log")
        )
    show(f"[bold green]ready[/]: cluster [bold]{cluster.name}[/], {len(cluster)} nodes")
    show(table)
    # On one line whatever its length, for copying.
    print(f"export QUORATE_ENDPOINTS={cluster.endpoints}")
    show("Ctrl-C stops it")


def _watch(cluster: Cluster, done: threading.Event) -> None:
    """Wait for the end, and report nodes that end before it."""
    running = {node.name for node in cluster}
    while not done.wait(_LOOK):
        for name in sorted(running):
            code = cluster[name].exit_code
            if code is not None:
                running.discard(name)
                print(f"quorate: {name} ended with exit code {code}; its log says:", file=sys.stderr)
                try:
                    print(cluster[name].log(5), file=sys.stderr)
                except NotFound as error:
                    print(f"quorate: {error}", file=sys.stderr)


def node(arguments: Namespace, settings: Settings) -> int:
    """Run one node in this process; returns its exit code."""
    from quorate._quorate import run_node

    config = node_config(settings)
    del arguments
    return run_node(json.dumps(config))


def node_config(settings: Settings) -> dict[str, Any]:
    """Write the node program's configuration from the settings."""
    if settings["data"] is None:
        raise InvalidArgument("a node needs a data directory of its own: give --data DIR")
    name = settings["id"]
    listen = {"client": settings["listen"]}
    host, port = _host_port(settings["listen"])
    for what, offset in (("peer", 1), ("http", 2)):
        given = settings[f"{what}_listen"]
        listen[what] = given or f"{host}:{port + offset if port else 0}"
    members = settings["members"]
    if members is None:
        if any(_host_port(address)[1] == 0 for address in listen.values()):
            raise InvalidArgument(
                "port 0 cannot be announced to other nodes: give the ports that the node should listen on"
            )
        listed = [{"id": node_number(name), **listen}]
    else:
        listed = [parse_member(member) for member in members.split(",") if member.strip()]
    config = {
        "cluster": settings["cluster"],
        "node_id": node_number(name),
        "data_dir": str(settings["data"]),
        "listen": listen,
        "members": listed,
        "vnodes": whole_number(settings["vnodes"], "vnodes", 1, 65535),
        "hash": settings["hash"],
        "raft_timing": timing(settings["raft_timing"]),
        "insecure": settings["insecure"],
        "log": {"level": log_filter(settings["log_level"]), "file": settings["log_file"]},
    }
    if settings["secret"] is not None:
        config["secret"] = settings["secret"]
    further = ("allow_faults", "heartbeat_ms", "idle_ms", "map_size_bytes")
    return config | tuned({name: settings[name] for name in further})


def parse_member(text: str) -> dict[str, Any]:
    """Read ``n1=HOST:CLIENT:PEER:HTTP``, all three of them ports.

    Raises
    ------
    InvalidArgument
        If it has another form.
    """
    name, equals, rest = text.strip().partition("=")
    host, *ports = rest.rsplit(":", 3)
    if not equals or not host or len(ports) != 3 or not all(_is_port(port) for port in ports):
        raise InvalidArgument(f"member {text!r}: write n1=HOST:CLIENT:PEER:HTTP with three ports")
    addresses = zip(("client", "peer", "http"), ports, strict=True)
    return {"id": node_number(name), **{what: f"{host}:{port}" for what, port in addresses}}


def _host_port(address: str) -> tuple[str, int]:
    host, colon, port = str(address).rpartition(":")
    if not colon or not host or not (port == "0" or _is_port(port)):
        raise InvalidArgument(f"address {address!r}: write HOST:PORT")
    return host, int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < 65536
