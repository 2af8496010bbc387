"""The examples in the documentation run, and the stubs match the extension."""

import doctest
import importlib
import inspect
import json
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
# Its examples await at the top level: tests/test_one_body.py runs them.
ASYNCHRONOUS = [name for name in MODULES if name.startswith("quorate.aio.")]
EXAMPLES = sorted(ROOT.joinpath("examples").glob("*.py"))


@pytest.mark.parametrize("name", ["quorate", *(name for name in MODULES if name not in ASYNCHRONOUS)])
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


def measured(*arguments):
    """What the benchmark of the Python client prints and says."""
    command = [sys.executable, ROOT / "examples" / "benchmarks" / "python_client.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_benchmark_of_the_python_client_runs():
    quick = ("--rounds", "2", "--seconds", "0.1", "--redis", "127.0.0.1:1", "--json")
    rows = []
    for only in ("get at QUORUM", "put at consensus", "many at QUORUM, batch 64"):
        printed, said = measured(*quick, "--only", only)
        assert said.startswith("redis is skipped: ")
        rows += map(json.loads, printed.splitlines())
    assert [(row["operation"], row["level"], row["tasks"], row["batch"]) for row in rows] == [
        ("get", "QUORUM", 0, 1),
        ("get", "QUORUM", 64, 1),
        ("put", "consensus", 0, 1),
        ("put", "consensus", 64, 1),
    ] + [(operation, "QUORUM", 0, 64) for operation in ("get_many", "put_many")]
    for row in rows:
        assert row["python_per_s"] > 0
        low, high = row["python_bench_range"]
        assert 0 < low <= row["python_bench"] <= high


def test_the_benchmark_of_the_python_client_draws_a_table():
    drawn, said = measured("--rounds", "1", "--seconds", "0.1", "--only", "get at STALE, serial")
    assert said == ""
    for word in ("medians", "Python/", "bench", "STALE", "serial"):
        assert word in drawn


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
