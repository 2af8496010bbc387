"""A cluster's data directory: its identity, its lock, and whether its cluster was ever ready.

::

    DIR/cluster.lock    locked (flock) by the program that runs the cluster; its process id is inside
    DIR/cluster.json    the mark: the cluster's name and settings, and whether it is ``forming`` or ``formed``
    DIR/n1/ ...         one directory per node; its ``identity`` names the cluster once that is formed

A cluster is *forming* until all its nodes serve and one of them leads, and *formed* from then on. The mark records this
before any node is notified, and a node creates no keyspace before it is notified. Hence two promises: a forming cluster
has never acknowledged anything, so its directory may be reinitialized with other settings, whatever a failed start has
left there; and a formed cluster is recovered with its data even if the mark is lost, from the nodes' identities.

`decide` is that logic, without any file access. `DataDirectory` applies it. It accesses the operating system through a
`Disk`, so that tests can simulate a power cut between any two calls.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from quorate import _quorate
from quorate.errors import DataDirectoryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Claim", "DataDirectory", "DirectoryLock", "Disk", "Mark", "Shape", "decide"]

VERSION = 2
"""The version of the mark that this program reads and writes."""
_MARK = "cluster.json"
_LOCK = "cluster.lock"
_OTHER_VERSION = ("FormatTooOld", "FormatTooNew")


class Shape(NamedTuple):
    """The settings that determine the placement of a cluster's keys."""

    nodes: int
    vnodes: int
    hash: str


class Mark(NamedTuple):
    """The recorded identity of a cluster in its data directory."""

    formed: bool
    """Whether the cluster was ever ready."""
    name: str
    shape: Shape

    def render(self) -> bytes:
        """Encode it in the file's format."""
        state = "formed" if self.formed else "forming"
        found = {"version": VERSION, "state": state, "cluster": self.name, **self.shape._asdict()}
        return json.dumps(found).encode() + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> Mark | None:
        """Decode a file; ``None`` if it is not a complete mark of this version or a later one.

        Raises
        ------
        DataDirectoryError
            A later version of this program wrote it.
        """
        try:
            found: dict[str, Any] = json.loads(content)
            version, state, name = found.get("version", 1), found["state"], found["cluster"]
            shape = Shape(found["nodes"], found["vnodes"], found["hash"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        if isinstance(version, int) and version > VERSION:
            raise DataDirectoryError(
                f"{_MARK} has format version {version}, this program reads {VERSION}: start a newer version"
            )
        whole = all(isinstance(number, int) for number in (version, shape.nodes, shape.vnodes))
        words = all(isinstance(word, str) for word in (name, shape.hash))
        if version != VERSION or not whole or not words or state not in ("forming", "formed"):
            return None
        return cls(state == "formed", name, shape)


class Claim(NamedTuple):
    """The content of the identity in a node's directory."""

    formed: tuple[str, Shape] | None = None
    """Name and shape of the formed cluster that the node belongs to."""
    problem: str | None = None
    """Why the identity cannot be read, if it cannot."""
    other_version: bool = False
    """Whether that is because another version of this program wrote it."""


def decide(
    mark: Mark | None, claims: Mapping[str, Claim], name: str | None, fresh: str, shape: Shape
) -> Mark:
    """Decide how a start uses a data directory.

    The nodes' identities take precedence over the mark: the nodes have the data.

    Parameters
    ----------
    mark : Mark or None
        The mark, if it is present and readable.
    claims : mapping of str to Claim
        The nodes' identities, by node.
    name : str or None
        The requested name of the cluster, if one was given.
    fresh : str
        The name of a new cluster if none was given.
    shape : Shape
        The requested shape.

    Returns
    -------
    Mark
        The mark to start with. If it is not formed, the nodes discard existing data.

    Raises
    ------
    DataDirectoryError
        The directory does not match the requested cluster.
    """
    for claim in claims.values():
        if claim.other_version:
            raise DataDirectoryError(str(claim.problem))
    formed = {claim.formed for claim in claims.values() if claim.formed is not None}
    if len(formed) == 1:
        mark = Mark(True, *formed.pop())
    elif formed and not (mark and mark.formed):
        told = ", ".join(f"{node} {claim.formed[0]!r}" for node, claim in claims.items() if claim.formed)
        raise DataDirectoryError(
            f"its nodes belong to different clusters ({told}): move those that do not belong there"
        )
    if mark is None:
        problem = next((claim.problem for claim in claims.values() if claim.problem), None)
        if problem is not None:
            raise DataDirectoryError(f"{_MARK} is missing or damaged, and {problem}")
    if mark is None or not mark.formed:
        return Mark(False, name or (mark.name if mark else fresh), shape)
    if name not in (None, mark.name):
        raise DataDirectoryError(
            f"it belongs to cluster {mark.name!r}, not to {name!r}: leave name out, or use another data_dir"
        )
    if mark.shape != shape:
        pairs = zip(Shape._fields, mark.shape, shape, strict=True)
        differing = ", ".join(
            f"{key}={found!r} (not {given!r})" for key, found, given in pairs if found != given
        )
        raise DataDirectoryError(
            f"it holds a cluster with {differing}: start it with that, or use another data_dir"
        )
    return mark


class Disk:
    """The file system. A file's content and a folder's entries are durable once they are synced."""

    def lock(self, path: Path) -> DirectoryLock:
        """Lock a directory."""
        return DirectoryLock(path)

    def claims(self, directory: Path) -> dict[str, Claim]:
        """Read the identities of the nodes in a cluster's directory, by node."""
        claims: dict[str, Claim] = {}
        for path in sorted(directory.iterdir()):
            number = path.name[1:]
            if path.name[:1] == "n" and number.isascii() and number.isdecimal():
                said = _quorate.inspect_directory(path)
                if said is not None:
                    claims[path.name] = read_claim(said)
        return claims

    def make_folder(self, path: Path) -> None:
        """Create a folder in an existing one; no error if it exists."""
        with contextlib.suppress(FileExistsError):
            path.mkdir()

    def is_folder(self, path: Path) -> bool:
        """Whether the folder exists."""
        return path.is_dir()

    def read(self, path: Path) -> bytes | None:
        """Read a file; ``None`` if it does not exist."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: Path, content: bytes) -> None:
        """Write a file; replaces its content."""
        path.write_bytes(content)

    def rename(self, path: Path, target: Path) -> None:
        """Replace a file with another one."""
        path.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)

    def sync(self, path: Path) -> None:
        """Sync a file's content or a folder's entries."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folders(disk: Disk, path: Path) -> None:
    """Create a folder and its missing parents."""
    if not disk.is_folder(path):
        if path.parent != path:
            make_folders(disk, path.parent)
        disk.make_folder(path)


def sync_above(disk: Disk, path: Path) -> None:
    """Sync a folder and its parents: their creator may have been killed before it synced them."""
    for folder in path.parents:
        try:
            disk.sync(folder)
        except OSError as error:
            # Folders that cannot be read or synced were not created by this program.
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL):
                raise


def replace(disk: Disk, path: Path, content: bytes) -> None:
    """Write a file atomically: after a power cut there is the old one or the new one, complete."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        disk.write(temporary, content)
        disk.sync(temporary)
        disk.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.remove(temporary)
        raise
    disk.sync(path.parent)


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


class DirectoryLock:
    """The lock of a data directory, held by one program at a time.

    It ends with `release` or with the process, however that ends. Neither a spawned nor a forked process inherits it.

    Parameters
    ----------
    path : Path
        The file to lock; it is created, and never removed.

    Raises
    ------
    DataDirectoryError
        Another program holds it, or this one already does.
    OSError
        The file cannot be created or locked.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _held.add(self)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = _holder(os.pread(self._descriptor, 32, 0))
            self.disown()
            raise DataDirectoryError(
                f"it is in use by {holder}: connect to the cluster that runs there, stop it, or use another data_dir"
            ) from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock, also if a child that was just forked still has a copy."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.disown()

    def disown(self) -> None:
        """In a forked child: close the copy. The parent keeps the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _holder(content: bytes) -> str:
    """Describe the holder of a lock by the file's content, which is empty if the lock was just taken."""
    number = content.strip()
    if not number.isdigit():
        return "another program"
    return "this program" if int(number) == os.getpid() else f"process {int(number)}"


def _after_fork() -> None:
    for lock in list(_held):
        lock.disown()


os.register_at_fork(after_in_child=_after_fork)


class DataDirectory:
    """A cluster's data directory, locked for this program.

    Parameters
    ----------
    path : Path
        Its path; created if missing.
    disk : Disk
        The file system.

    Raises
    ------
    DataDirectoryError
        It is not usable, or is in use.
    """

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self._disk = Disk() if disk is None else disk
        self._lock: DirectoryLock | None = None
        with self._named():
            make_folders(self._disk, path)
            self._lock = self._disk.lock(path / _LOCK)

    def claim(self, name: str | None, fresh: str, shape: Shape) -> Mark:
        """Read the directory, and prepare it for a start as `decide` says.

        Returns
        -------
        Mark
            The mark, which is durable.

        Raises
        ------
        DataDirectoryError
            The directory does not match the requested cluster, or cannot be read or written.
        """
        with self._named():
            content = self._disk.read(self.path / _MARK)
            mark = None if content is None else Mark.parse(content)
            wanted = decide(mark, self._disk.claims(self.path), name, fresh, shape)
            if wanted != mark:
                if content is None:
                    sync_above(self._disk, self.path)
                self._write(wanted)
        return wanted

    def form(self, mark: Mark) -> None:
        """Record durably that the cluster was ready.

        Raises
        ------
        DataDirectoryError
            The mark cannot be written.
        """
        with self._named():
            self._write(mark._replace(formed=True))

    def release(self) -> None:
        """Release the directory for other programs."""
        if self._lock is not None:
            self._lock.release()

    def _write(self, mark: Mark) -> None:
        replace(self._disk, self.path / _MARK, mark.render())

    @contextlib.contextmanager
    def _named(self) -> Any:
        """Add the directory's path to every error."""
        try:
            yield
        except DataDirectoryError as error:
            raise DataDirectoryError(f"data_dir={str(self.path)!r}: {error}") from error.__cause__
        except OSError as error:
            raise DataDirectoryError(
                f"data_dir={str(self.path)!r} cannot be used ({error.strerror}: {error.filename or self.path}): use a"
                " writable directory, or leave data_dir out"
            ) from error


def read_claim(said: str) -> Claim:
    """Convert an identity from the extension's form."""
    found = json.loads(said)
    if "error" in found:
        return Claim(problem=found["message"], other_version=found["error"] in _OTHER_VERSION)
    formation = found["formation"]
    if formation is None:
        return Claim()
    shape = Shape(formation["nodes"], formation["vnodes"], formation["hash"])
    return Claim(formed=(formation["cluster"], shape))
