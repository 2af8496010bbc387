"""The notebooks run, and their committed outputs match."""

import json
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import eventually, processes
from notebooks import FOLDER, code, execute

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
MACHINE = re.compile(r"(?<![\w:/.<])/(?:[\w.@+-]+/)+[\w.@+-]*")
"""A path of at least two parts, and not the end of an address or of an element."""


@pytest.fixture(scope="module", autouse=True)
def _fonts():
    # On first use matplotlib lists all fonts, which takes seconds, and warns.
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The executed copies of all notebooks, and leftover files."""
    folder = tmp_path_factory.mktemp("notebooks")
    temporary = folder / "temporary"
    temporary.mkdir()
    copies = [Path(shutil.copy(FOLDER / name, folder)) for name in NAMES]
    for path in copies:
        notebook = json.loads(path.read_text())
        for cell in code(notebook):
            cell["outputs"], cell["execution_count"] = [], None
        path.write_text(json.dumps(notebook))
    before = sorted(path.name for path in folder.iterdir())
    name, value = "TEST_NOTEBOOKS_OF_QUORATE", secrets.token_hex(8)
    notebooks = execute(folder, *copies, TMPDIR=str(temporary), **{name: value})
    shutil.rmtree(folder / "executed")
    (folder / "log.txt").unlink()
    left = (
        sorted({path.name for path in folder.iterdir()} - set(before)),
        sorted(path.name for path in temporary.iterdir()),
    )
    return notebooks, left, f"{name}={value}"


def committed(name):
    return json.loads((FOLDER / name).read_text())


def shown(notebook):
    """Each cell's id, and the kinds of its outputs."""
    return [
        (cell["id"], [sorted(output.get("data", [output.get("name")])) for output in cell["outputs"]])
        for cell in code(notebook)
    ]


def words(notebook):
    """All text in a notebook: sources and outputs."""
    for cell in notebook["cells"]:
        yield "".join(cell["source"])
        for output in cell.get("outputs", []):
            yield "".join(output.get("text", ""))
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield "".join(data)


def test_there_are_notebooks():
    assert len(NAMES) >= 2
    readme = (ROOT / "README.md").read_text()
    for name in NAMES:
        assert f"notebooks/{name}" in readme


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_without_errors_or_warnings(executed, name):
    notebooks, _, _ = executed
    for cell in code(notebooks[name]):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", (cell["id"], output)
            assert output.get("name") != "stderr", (cell["id"], output)


def test_notebooks_leave_nothing_behind(executed):
    _, left, mark = executed
    eventually(lambda: not processes(mark), patience=5)
    assert left == ([], [])


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_match_a_run(executed, name):
    notebooks, _, _ = executed
    assert shown(committed(name)) == shown(notebooks[name])
    assert any("image/png" in kinds for _, outputs in shown(committed(name)) for kinds in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_the_format_of_a_committed_notebook(name):
    notebook = committed(name)
    cells = code(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), (
        "executed once, from the top"
    )
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ids), "readable ids"
    assert not any(cell["metadata"] for cell in notebook["cells"])
    for text in words(notebook):
        assert not MACHINE.search(text), text
        for path in (Path.home(), sys.prefix, ROOT):
            assert len(str(path)) < 3 or str(path) not in text, text


def test_machine_paths_are_detected():
    assert MACHINE.search("in /tmp/quorate-x/n1")
    assert MACHINE.search("'/home/ada/.venv'")
    assert not MACHINE.search(
        "accounts/0, https://example.org/a/b, ../examples, text/html, <b>a</b>/<i>b</i>"
    )


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_notebook_exist(name):
    text = "\n".join(words(committed(name)))
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    for link in links:
        assert link.startswith("https://") or FOLDER.joinpath(link).exists(), link
