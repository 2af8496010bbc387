"""Generate the synchronous client from the asynchronous one, which is the only source of both.

What a keyspace, a connection and their answers do is written once, in ``quorate/aio``. This program removes what is
asynchronous: ``await``, ``async`` and the names of protocols, also in the examples of docstrings. A call of
the extension is awaited there and waited for here: ``await self._calls.get(...)`` becomes
``self._calls.get(...).wait()``.

Run it after a change of ``quorate/aio``::

    python python/generate_sync.py

With ``--check`` it changes nothing, and fails if a generated file is not what it should be; the tests do that.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "quorate"
MODULES = ("connection", "consensus", "entry_log", "fault_api", "keyspace", "node", "results")
"""Modules of ``quorate.aio`` that have a synchronous twin."""
HEADER = "# Generated from aio/{name}.py by python/generate_sync.py: change that file, then run it.\n"

EXTENSION = ("_calls", "_client", "_quorate")
"""What the attributes are called whose methods return calls of the extension."""
NAMES = {
    "AsyncIterator": "Iterator",
    "AsyncOwner": "Owner",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "run_async": "run",
}
TEXT = (
    (re.compile(r"\(await ((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)(?=[.\[])"), r"\1"),
    (re.compile(r"\b(?:await|async) "), ""),
    (re.compile(r"\bquorate\.aio\b"), "quorate"),
    (re.compile(r"<aio\."), "<"),
    (re.compile(r"\bOpening\[(\w+)\]"), r"\1"),
    (re.compile(r"^from quorate\.opening import Opening\n", re.MULTILINE), ""),
)


def generate(name: str) -> str:
    """Generate a module of the synchronous client."""
    source = (PACKAGE / "aio" / f"{name}.py").read_text()
    edits: list[tuple[int, int, str]] = []
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line.encode()))

    def begin(node: ast.AST) -> int:
        return lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined, no-any-return]

    def end(node: ast.AST) -> int:
        return lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined, no-any-return]

    raw = source.encode()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Await):
            edits.append((begin(node), begin(node.value), ""))
            if _is_call_of_extension(node.value):
                edits.append((end(node), end(node), ".wait()"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Opening":
            # What is opened by being awaited or entered is opened at once.
            (begun,) = node.args
            assert isinstance(begun, ast.Lambda)
            opened = begun.body
            edits += [(begin(node), begin(opened), ""), (end(opened), end(node), "")]
        elif isinstance(node, (ast.AsyncFunctionDef, ast.AsyncWith, ast.AsyncFor)):
            edits.append((begin(node), begin(node) + len("async "), ""))
    for start, stop, text in sorted(edits, reverse=True):
        raw = raw[:start] + text.encode() + raw[stop:]
    text = _renamed(raw.decode())
    for pattern, replacement in TEXT:
        text = pattern.sub(replacement, text)
    return _formatted(HEADER.format(name=name) + text)


def _is_call_of_extension(node: ast.expr) -> bool:
    """Whether an expression calls a method of an object that the extension made."""
    while isinstance(node, (ast.Call, ast.Attribute)):
        node = node.func if isinstance(node, ast.Call) else node.value
        if isinstance(node, ast.Attribute) and node.attr in EXTENSION:
            return True
    return isinstance(node, ast.Name) and node.id in EXTENSION


def _renamed(text: str) -> str:
    return re.sub(r"\b(?:" + "|".join(NAMES) + r")\b", lambda found: NAMES[found[0]], text)


def _formatted(text: str) -> str:
    ruff = [sys.executable, "-m", "ruff"]
    name = ["--stdin-filename", str(PACKAGE / "generated.py")]
    sort = [*ruff, "check", "--select", "I", "--fix-only", "--quiet", *name, "-"]
    shape = [*ruff, "format", *name, "-"]
    for command in (sort, shape):
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> int:
    """Write the generated modules, or check them."""
    stale = []
    for name in MODULES:
        path, wanted = PACKAGE / f"{name}.py", generate(name)
        if not path.exists() or path.read_text() != wanted:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(wanted)
    if stale and "--check" in sys.argv:
        print(f"stale: {', '.join(stale)}; run python python/generate_sync.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
