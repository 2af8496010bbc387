"""Settings of the command line: from arguments, the environment, a TOML file, or defaults.

Arguments override ``QUORATE_*`` variables, which override the file, which overrides defaults. The file is ``--config``,
or ``QUORATE_CONFIG``, or ``quorate.toml`` in the working directory if there is one::

    endpoints = "10.0.0.1:7400,10.0.0.2:7400"
    timeout = 2.0

    [up]
    nodes = 5
"""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quorate.errors import InvalidArgument

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Mapping

__all__ = ["DEFAULTS", "Settings"]

DEFAULTS: Mapping[str, Any] = {
    "allow_faults": None,
    "cluster": "quorate",
    "consistency": None,
    "data": None,
    "endpoints": "127.0.0.1:7400",
    "hash": "murmur3",
    "heartbeat_ms": None,
    "http_listen": None,
    "id": "n1",
    "idle_ms": None,
    "insecure": False,
    "listen": "127.0.0.1:7400",
    "log_file": None,
    "log_level": "info",
    "map_size_bytes": None,
    "members": None,
    "nodes": 3,
    "peer_listen": None,
    "port": 7400,
    "raft_timing": "default",
    "secret": None,
    "timeout": 5.0,
    "vnodes": 150,
}
"""Every setting of the environment or a file, and its default."""

_NUMBERS: Mapping[str, type] = {
    "heartbeat_ms": int,
    "idle_ms": int,
    "map_size_bytes": int,
    "nodes": int,
    "port": int,
    "timeout": float,
    "vnodes": int,
}
_SWITCHES = ("allow_faults", "insecure")
_KINDS = {int: "whole number", float: "number"}
_FILE = "quorate.toml"


class Settings:
    """The settings of one command.

    Parameters
    ----------
    arguments : Namespace
        The parsed command line; ``None`` for arguments that were not given.
    environment : mapping
        The environment variables.

    Raises
    ------
    InvalidArgument
        If the file cannot be read, or has an unknown setting.
    """

    def __init__(self, arguments: Namespace, environment: Mapping[str, str] = os.environ) -> None:
        self._arguments = vars(arguments)
        self._environment = environment
        self._file_name, self._file = self._read()
        self._command = str(self._arguments.get("command"))
        self._check(self._file, "")
        for section, values in self._file.items():
            if isinstance(values, dict):
                self._check(values, f"[{section}] ")

    def __getitem__(self, name: str) -> Any:
        """Resolve one setting."""
        given = self._arguments.get(name)
        if given is not None:
            return given
        variable = f"QUORATE_{name.upper()}"
        if variable in self._environment:
            return _typed(name, self._environment[variable], variable)
        section = self._file.get(self._command)
        for values in (section, self._file):
            if isinstance(values, dict) and name in values:
                return _typed(name, values[name], f"{name} in {self._file_name}")
        return DEFAULTS[name]

    def given(self, name: str) -> bool:
        """Whether a setting was given anywhere, and is not the default."""
        section = self._file.get(self._command, {})
        return (
            self._arguments.get(name) is not None
            or f"QUORATE_{name.upper()}" in self._environment
            or name in section
            or name in self._file
        )

    def doubts(self) -> Iterator[str]:
        """List environment variables that look like settings but are unknown, each with a suggestion."""
        known = {"QUORATE_CONFIG", *(f"QUORATE_{name.upper()}" for name in DEFAULTS)}
        for variable in sorted(self._environment):
            if variable.startswith("QUORATE_") and variable not in known:
                close = get_close_matches(variable, known, n=1)
                meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
                yield f"{variable} is set but is not a setting: {meant}"

    def _read(self) -> tuple[str, dict[str, Any]]:
        named = self._arguments.get("config") or self._environment.get("QUORATE_CONFIG")
        path = Path(named or _FILE)
        try:
            return str(path), tomllib.loads(path.read_text())
        except FileNotFoundError:
            if named:
                raise InvalidArgument(f"configuration file {named}: there is no such file") from None
            return str(path), {}
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"configuration file {path}: {error}") from error

    def _check(self, values: Mapping[str, Any], where: str) -> None:
        for name, value in values.items():
            if name not in DEFAULTS and not (where == "" and isinstance(value, dict)):
                raise InvalidArgument(
                    f"{where}{name} in {self._file_name} is not a setting: there are {', '.join(DEFAULTS)}"
                )


def _typed(name: str, value: Any, source: str) -> Any:
    """Convert a value from the environment or a file to the setting's type."""
    try:
        if name in _NUMBERS:
            kind = _NUMBERS[name]
            # From a file: true is not a number, and 2.7 is not a number of nodes.
            if isinstance(value, bool) or not isinstance(value, (str, int, kind)):
                raise TypeError
            return kind(value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{source}={value!r} is not a {_KINDS[_NUMBERS[name]]}") from None
    if name in _SWITCHES and isinstance(value, str):
        if value.lower() not in ("0", "1", "false", "true", "no", "yes"):
            raise InvalidArgument(f"{source}={value!r}: use true or false")
        return value.lower() in ("1", "true", "yes")
    if name == "endpoints" and isinstance(value, list):
        return ",".join(map(str, value))
    return value
