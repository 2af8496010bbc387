"""The examples in the documentation run, and the stubs match the extension."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quorate
from shell import run

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(quorate.__path__, "quorate.")
    if not module.name.endswith("__main__")
)
ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(ROOT.joinpath("examples").glob("*.py"))


@pytest.mark.parametrize("name", ["quorate", *MODULES])
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in finder.find(module, name):
        runner.run(test)
    assert runner.failures == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(path):
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_benchmarks_run(shared):
    folder = ROOT / "examples" / "benchmarks"
    peer = (
        f"-m quorate bench --json --endpoints {shared.endpoints} --operations write --duration 0.2 --warmup 0"
    )
    for command in (
        [folder / "telemetry_cost.py", "1", "0.2"],
        [
            folder / "side_by_side.py",
            "--rounds",
            "2",
            "--duration",
            "0.2",
            "--",
            sys.executable,
            *peer.split(),
        ],
    ):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        assert "median" in done.stdout


def test_the_commands_of_the_readme_run():
    text = (ROOT / "README.md").read_text()
    (listed,) = (
        part for part in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "quorate keyspace create" in part
    )
    with quorate.Cluster(nodes=3) as cluster:
        for line in (
            listed.replace("127.0.0.1:7400", cluster.endpoints)
            .replace("bench", "bench --duration 0.2")
            .splitlines()
        ):
            for command in line.split(" && "):
                printed = run(*command.split()[1:], endpoints=cluster.endpoints)
                assert printed, command


def test_the_readme_is_true():
    text = (ROOT / "README.md").read_text()
    line = "pip install '.[test]' && cargo test --workspace && pytest"
    assert line in text
    assert line in (ROOT / ".ci" / "run").read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert programs
    for program in programs:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", quorate.__all__)
def test_public_names_have_docstrings(name):
    thing = getattr(quorate, name)
    if inspect.isclass(thing):
        assert thing.__doc__
        for member, value in inspect.getmembers(thing, callable):
            if not member.startswith("_") and str(getattr(value, "__module__", "")).startswith("quorate"):
                assert value.__doc__, f"{name}.{member}"
    elif inspect.isfunction(thing) or inspect.ismodule(thing):
        assert thing.__doc__


def test_the_stubs_match_the_extension():
    pytest.importorskip("mypy")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy.stubtest",
            "quorate._quorate",
            "--mypy-config-file",
            ROOT / "pyproject.toml",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout
