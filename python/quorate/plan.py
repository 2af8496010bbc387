"""The configuration of a cluster of processes, validated before any process starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quorate.arguments import log_filter, mapping, node_number, secret_text, switch, text, timing
from quorate.data_directory import Shape
from quorate.errors import InvalidArgument
from quorate.faults import IDLE
from quorate.ring import MAX_NODES, Ring
from quorate.tuning import tuned

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Plan"]


class Plan:
    """The configuration of a cluster, validated before any process starts.

    The parameters are those of `quorate.Cluster`.
    """

    def __init__(
        self,
        nodes: int,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        name: str | None = None,
        vnodes: int = 150,
        hash: str = "murmur3",  # noqa: A002 - the setting's name everywhere
        raft_timing: str = "default",
        racks: Mapping[str, str] | None = None,
        datacenters: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        start_timeout: float = 30.0,
        log_level: str = "info",
        secret: str | None = None,
        insecure: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(nodes, int) or isinstance(nodes, bool) or not 0 < nodes <= MAX_NODES:
            raise InvalidArgument(f"nodes={nodes!r}: a cluster has a whole number of nodes, at least one")
        highest = 65536 - 10 * nodes
        if port is not None and (
            not isinstance(port, int) or isinstance(port, bool) or not 0 < port <= highest
        ):
            raise InvalidArgument(
                f"port={port!r}: {nodes} node(s) need ten ports each from there, below 65536"
            )
        self.settings = tuned(settings)
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self.racks = mapping(racks, "racks")
        self.datacenters = mapping(datacenters, "datacenters")
        # An invalid ring fails here, not on every node.
        Ring(self.names, vnodes=vnodes, hash=hash, racks=self.racks, datacenters=self.datacenters)
        self.data_dir = None if data_dir is None else _directory(data_dir)
        self.name = None if name is None else text(name, "name")
        if self.name == "":
            raise InvalidArgument("name='': give the cluster a name, or leave it out")
        self.shape = Shape(nodes, vnodes, hash)
        self.raft_timing = timing(raft_timing)
        self.host = text(host, "host")
        self.port = port
        self.start_timeout = start_timeout
        self.log_level = log_filter(log_level)
        self.secret = secret_text(secret)
        self.insecure = switch(insecure, "insecure")

    @property
    def idle(self) -> float:
        """Idle timeout of links, in seconds."""
        milliseconds = self.settings.get("idle_ms")
        return IDLE if milliseconds is None else float(milliseconds) / 1e3

    def listen(self, name: str) -> dict[str, str]:
        """Return the listen addresses of a node."""
        if self.port is None:
            return dict.fromkeys(("client", "peer", "http"), f"{self.host}:0")
        first = self.port + 10 * (node_number(name) - 1)
        return {what: f"{self.host}:{first + i}" for i, what in enumerate(("client", "peer", "http"))}


def _directory(given: str | os.PathLike[str]) -> Path:
    """Check the path of a data directory."""
    try:
        path = os.fspath(given)
        if isinstance(path, str) and path and "\0" not in path:
            return Path(path).absolute()
    except TypeError:
        pass
    raise InvalidArgument(f"data_dir={given!r}: give the path of a directory")
