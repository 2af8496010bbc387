"""The sources of settings."""

from argparse import Namespace

import pytest

from quorate import InvalidArgument
from quorate.cli.clusters import node_config, parse_member
from quorate.settings import Settings


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "quorate.toml"
        path.write_text(text)
        return str(path)

    return write


def test_arguments_win_over_environment_over_file_over_default(file):
    path = file('timeout = 1.0\nendpoints = ["a:1", "b:2"]\n[up]\nnodes = 5\n[get]\nnodes = 7\n')
    arguments = Namespace(command="up", config=path, timeout=None, nodes=None)
    settings = Settings(arguments, {"QUORATE_TIMEOUT": "2.5"})
    assert settings["timeout"] == 2.5
    assert settings["nodes"] == 5
    assert settings["endpoints"] == "a:1,b:2"
    assert settings["vnodes"] == 150
    arguments.nodes = 9
    assert Settings(arguments, {})["nodes"] == 9
    assert Settings(arguments, {}).given("timeout")
    assert not Settings(arguments, {}).given("vnodes")


def test_the_environment_names_the_file(file):
    path = file("nodes = 4\n")
    assert Settings(Namespace(command="up"), {"QUORATE_CONFIG": path})["nodes"] == 4


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ndoes = 3\n", "ndoes"),
        ("[up]\nndoes = 3\n", r"\[up\] ndoes"),
        ("nodes = \n", "quorate.toml"),
        ("", None),
    ],
)
def test_an_invalid_file_is_rejected(file, text, named):
    arguments = Namespace(command="up", config=file(text))
    if named is None:
        Settings(arguments, {})
        return
    with pytest.raises(InvalidArgument, match=named):
        Settings(arguments, {})


def test_a_missing_file_is_rejected():
    with pytest.raises(InvalidArgument, match="no such file"):
        Settings(Namespace(command="up", config="/nowhere.toml"), {})


def test_an_invalid_number_is_rejected_with_its_source():
    settings = Settings(Namespace(command="up"), {"QUORATE_NODES": "three", "QUORATE_INSECURE": "maybe"})
    with pytest.raises(InvalidArgument, match="QUORATE_NODES='three' is not a whole number"):
        _ = settings["nodes"]
    with pytest.raises(InvalidArgument, match="QUORATE_INSECURE"):
        _ = settings["insecure"]


@pytest.mark.parametrize(
    ("name", "text"), [("nodes", "true"), ("nodes", "2.7"), ("timeout", "[1]"), ("vnodes", "{}")]
)
def test_wrong_types_in_a_file_are_rejected(file, name, text):
    settings = Settings(Namespace(command="up", config=file(f"{name} = {text}\n")), {})
    with pytest.raises(InvalidArgument, match=f"{name} in .* number"):
        _ = settings[name]


def test_members_are_parsed():
    assert parse_member("n2=10.0.0.1:1:2:3") == {
        "id": 2,
        "client": "10.0.0.1:1",
        "peer": "10.0.0.1:2",
        "http": "10.0.0.1:3",
    }
    assert parse_member("n1=[::1]:1:2:3")["peer"] == "[::1]:2"


@pytest.mark.parametrize(
    "wrong", ["n1", "n1=", "n1=h:1:2", "x=h:1:2:3", "n1=h:1:2:x", "n0=h:1:2:3", "=h:1:2:3"]
)
def test_invalid_members_are_rejected(wrong):
    with pytest.raises(InvalidArgument):
        parse_member(wrong)


def test_a_single_node_is_its_only_member():
    given = {"QUORATE_DATA": "/d", "QUORATE_LISTEN": "127.0.0.1:7500"}
    config = node_config(Settings(Namespace(command="node"), given))
    assert config["listen"] == {
        "client": "127.0.0.1:7500",
        "peer": "127.0.0.1:7501",
        "http": "127.0.0.1:7502",
    }
    assert config["members"] == [{"id": 1, **config["listen"]}]
    assert "secret" not in config


def test_a_node_needs_a_data_directory():
    with pytest.raises(InvalidArgument, match="--data"):
        node_config(Settings(Namespace(command="node"), {}))
