"""Results and progress in a notebook."""

import ast
import json
from pathlib import Path

import quorate
from notebooks import code, execute

PRINTING = """
import quorate
print(quorate.Ring(3).distribution())
---
from quorate.cli.output import show
show("[bold]shown[/]")
---
from types import SimpleNamespace
from quorate import rendering
rendering.time = SimpleNamespace(monotonic=iter(range(0, 100, 2)).__next__)
with rendering.tracker("load", 4, show=True) as advance:
    advance(1)
    print("meanwhile")
    advance(3)
---
quorate.Ring(3).distribution()
"""


def test_printed_text_is_shown_once(tmp_path):
    cells = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"cell-{number}",
            "metadata": {},
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(PRINTING.strip().split("\n---\n"))
    ]
    path = tmp_path / "printing.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (notebook,) = execute(tmp_path, path).values()
    printed, command, bar, drawn = (cell["outputs"] for cell in code(notebook))
    # A console that displays itself would leave an empty output beside the text.
    assert [(output["output_type"], output.get("name")) for output in printed] == [("stream", "stdout")]
    assert "primary" in "".join(printed[0]["text"])
    assert [(output["output_type"], output.get("name")) for output in command] == [("stream", "stdout")]
    assert "shown" in "".join(command[0]["text"])
    assert {output["output_type"] for output in bar} == {"stream"}
    streams = {output["name"]: "".join(output["text"]) for output in bar}
    assert streams["stdout"] == "meanwhile\n"
    assert "4/4" in streams["stderr"]
    assert "Warning" not in streams["stderr"]
    assert [sorted(output["data"]) for output in drawn] == [["text/html", "text/plain"]]


def test_every_console_is_configured_for_notebooks():
    for path in Path(quorate.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == "Console":
                named = {keyword.arg for keyword in call.keywords}
                assert "force_jupyter" in named, f"{path.name}:{call.lineno}"
