"""The exports of the package, and the cost of importing it."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import quorate
from quorate.version import VERSION


def test_every_exported_name_can_be_imported():
    for name in quorate.__all__:
        assert getattr(quorate, name) is not None, name
    assert dir(quorate) == sorted(quorate.__all__)


def test_names_come_from_where_the_type_checker_sees_them():
    source = importlib.import_module("inspect").getsource(quorate)
    for module, names in quorate._EXPORTS.items():
        for name in names:
            assert name in quorate.__all__
        assert f"from quorate.{module} import" in source


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Clutser'"):
        _ = quorate.Clutser


def test_the_asynchronous_twin_has_the_same_operations():
    twins = ("Connection", "Keyspace", "Node", "Entry", "WriteResult")
    for name in (*twins, "ConsensusKeyspace", "ConsensusEntry", "Commit", "Appended"):
        mine, twin = getattr(quorate, name), getattr(quorate.aio, name)
        public = {attribute for attribute in dir(mine) if not attribute.startswith("_")}
        assert public <= set(dir(twin)), public - set(dir(twin))


def test_every_error_of_the_tree_is_exported():
    def below(kind):
        for child in kind.__subclasses__():
            yield child.__name__
            yield from below(child)

    assert set(below(quorate.QuorateError)) | {"QuorateError"} == set(quorate.errors.__all__)


def test_starting_a_node_imports_few_modules():
    code = (
        "import sys; from quorate import node_program;"
        "heavy = {'rich', 'asyncio', 'dataclasses', 'argparse', 'subprocess', 'json', 'typing_extensions'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = importlib.import_module("pathlib").Path(quorate.__file__).parents[1]
    boot = f"import sys; sys.path.append({str(root)!r}); {code}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", boot], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_workspace():
    cargo = (Path(__file__).parents[1] / "Cargo.toml").read_text()
    (version,) = re.findall(r'^version = "(.*)"$', cargo, re.MULTILINE)
    assert version == VERSION == quorate.__version__


@pytest.mark.parametrize(
    ("built", "named"),
    [
        ("__version__ = '0.0.9'", "the extension is of version 0.0.9"),
        (f"__version__ = {VERSION!r}; INTERFACE = 1", "of different builds"),
        (f"__version__ = {VERSION!r}", "of different builds"),
        ("raise ImportError('undefined symbol')", r"cannot be loaded \(undefined symbol\)"),
    ],
)
def test_an_extension_of_another_build_is_rejected(tmp_path, built, named):
    package = tmp_path / "quorate"
    package.mkdir()
    for name in ("__init__.py", "version.py", "_quorate.pyi"):
        (package / name).write_bytes(Path(quorate.__file__).with_name(name).read_bytes())
    (package / "_quorate.py").write_text(f"{built}\n")
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import quorate"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.search(named, done.stderr)
    assert "pip install --force-reinstall quorate" in done.stderr
