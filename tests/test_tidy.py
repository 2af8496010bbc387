"""The shape of the source tree: dependencies between crates, and the number of files that import each other in cycles.

Cargo rejects cycles between crates, but not an unwanted dependency; and within a crate it rejects nothing. This file
checks both. A change that needs another dependency, or another file in a cycle, must change it, and is reviewed.
"""

import functools
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUST = ROOT / "rust"

# Our crates that each crate may import, in the order of the layers; after the bar, those for its tests only.
ARROWS = {
    "permit": "",
    "core": "permit",
    "raft": "core | checker testing",
    "ring": "core",
    "versions": "core | testing",
    "protocol": "core raft ring versions",
    "quorum": "core protocol versions | raft ring role-testing testing",
    "consensus": "core protocol raft ring versions | checker role-testing testing",
    "roles": "consensus core protocol quorum | ring raft",
    "storage": "core ring",
    "client": "core protocol raft ring versions",
    "otlp": "core protocol",
    "node": "core otlp protocol raft ring roles storage versions | client",
    "gateway": "node | core protocol raft versions",
    "python": "client core gateway otlp protocol raft ring versions",
    "checker": "",
    "simulator": "checker client consensus core permit protocol raft ring roles storage versions",
    "testing": "core permit",
    "role-testing": "checker core protocol raft ring testing",
}

# The number of files in cycles, per crate and for the Python package. Lower them; do not raise them.
CIRCLES = {
    "raft": 13,
    "ring": 3,
    "consensus": 5,
    "storage": 10,
    "client": 4,
    "node": 2,
    "python": 3,
    "simulator": 5,
    "testing": 5,
}


def crates():
    return sorted(path.parent.name for path in RUST.glob("*/Cargo.toml"))


@functools.cache
def packages():
    """The manifests as Cargo resolves them, so that every notation of a dependency counts."""
    command = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {
        Path(package["manifest_path"]).parent.name: package for package in json.loads(done.stdout)["packages"]
    }


def dependencies(crate, section):
    kind = {"dependencies": None, "dev-dependencies": "dev", "build-dependencies": "build"}[section]
    ours = (entry["name"] for entry in packages()[crate]["dependencies"] if entry["kind"] == kind)
    return {name.removeprefix("quorate-") for name in ours if name.startswith("quorate-")}


def test_every_crate_is_listed():
    assert crates() == sorted(ARROWS)


@pytest.mark.parametrize("crate", ARROWS)
def test_a_crate_imports_only_allowed_crates(crate):
    product, _, tests = ARROWS[crate].partition("|")
    assert dependencies(crate, "dependencies") == set(product.split())
    assert dependencies(crate, "dev-dependencies") == set(tests.split())
    assert dependencies(crate, "build-dependencies") == set()


def test_only_tests_and_the_simulator_can_enable_bugs():
    permitted = {crate for crate in crates() if "permit" in dependencies(crate, "dependencies")}
    assert permitted == {"core", "simulator", "testing"}
    # The crate that defines bugs requires a permit, and neither creates nor exports one.
    text = "".join(re.sub(r"//.*", "", path.read_text()) for path in (RUST / "core").rglob("*.rs"))
    assert re.findall(r"Permit::|pub use quorate_permit|pub extern crate", text) == []
    assert len(re.findall(r"quorate_permit", text)) == 1


def test_no_product_crate_depends_on_test_code():
    for crate in crates():
        if crate not in ("testing", "role-testing"):
            assert not dependencies(crate, "dependencies") & {"testing", "role-testing"}, crate


@pytest.mark.parametrize(
    "document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "rust/raft/README.md"]
)
def test_files_named_in_documents_exist(document):
    text = (ROOT / document).read_text()
    top = (ROOT / document).parent
    named = re.findall(r"(?<![\w/.])(?:rust|python|tests|examples|notebooks|src)/[\w./{},-]+", text)
    missing = []
    for name in named:
        first, brace, rest = name.rstrip(".,").partition("{")
        inside, _, last = rest.partition("}")
        for part in inside.split(",") if brace else [""]:
            if not (top / f"{first}{part}{last}").exists():
                missing.append(name)
    assert missing == []


def module_of(path, top):
    parts = list(path.relative_to(top).with_suffix("").parts)
    return tuple(parts[:-1] if parts[-1] in ("lib", "main", "mod", "__init__") else parts)


def without_tests(text):
    """The source up to its tests: what follows `#[cfg(test)]` at the end of a file."""
    return re.split(r"^#\[cfg\(test\)\]\nmod tests \{", text, flags=re.M)[0]


def is_test(path):
    return any(
        re.search(r"(^|_)(tests?|testing|properties|transcripts|model|harness|samples)$", part)
        for part in path.with_suffix("").parts
    )


def rust_arrows(crate):
    """The modules that each module of a crate names."""
    top = RUST / crate / "src"
    files = {module_of(path, top): path for path in top.rglob("*.rs") if not is_test(path.relative_to(top))}
    arrows = {}
    for module, path in files.items():
        text = re.sub(r"//.*", "", without_tests(path.read_text()))
        named = set()
        for head, rest in re.findall(r"\b(crate|(?:super::)*super|self)((?:::\w+)+)", text):
            supers = head.count("super")
            base = () if head == "crate" else module[: len(module) - supers]
            named.add((*base, *rest.split("::")[1:]))
        # `use crate::{a, b::C}` and the modules that are declared here.
        for inside in re.findall(r"\buse crate::\{(.*?)\};", text, re.S):
            named.update(tuple(name.split("::")) for name in re.findall(r"[\w:]+", inside))
        for child in re.findall(r"^(?:pub )?use (\w+)::", text, re.M):
            named.add((*module, child))
        found = set()
        for name in named:
            while name and name not in files:
                name = name[:-1]
            if name in files and name != module:
                found.add(name)
        arrows[module] = found
    return arrows


def python_arrows():
    top = ROOT / "python" / "quorate"
    files = {module_of(path, top): path for path in top.rglob("*.py")}
    arrows = {}
    for module, path in files.items():
        # Imports within functions count: they hide cycles.
        named = set()
        imports = r"^\s*from quorate([\w.]*) import (?:\(([^)]*)\)|(.*)$)"
        for base, several, one in re.findall(imports, path.read_text(), re.M):
            names = several or one
            parts = tuple(part for part in base.split(".") if part)
            named.update((*parts, name) for name in re.findall(r"\w+", names))
        found = set()
        for name in named:
            while name and name not in files:
                name = name[:-1]
            if name in files and name and name != module:
                found.add(name)
        arrows[module] = found
    return arrows


def in_circles(arrows):
    """The modules that depend on themselves through others (the same as Tarjan's components)."""

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            for target in arrows[todo.pop()]:
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    return sorted("::".join(module) for module in arrows if module in reached(module))


def test_a_cycle_is_found():
    assert in_circles({("a",): {("b",)}, ("b",): {("a",)}, ("c",): {("a",)}}) == ["a", "b"]


@pytest.mark.parametrize("crate", [*ARROWS, "quorate (Python)"])
def test_no_more_files_are_in_cycles(crate):
    arrows = python_arrows() if crate == "quorate (Python)" else rust_arrows(crate)
    assert len(found := in_circles(arrows)) <= CIRCLES.get(crate, 0), found


# Private words of earlier days, for which the field has one: see ARCHITECTURE.md's glossary for those that are ours.
BANNED_IDENTIFIERS = (
    *("alphabet", "SnapshotDesk", "whereabouts", "renounce", "turn_strangers_away", "go_on", "tell_claim"),
    *(
        "stir_sessions",
        "say_served",
        "peer_book",
        "PeerBook",
        "fullness",
        "happening",
        "Happening",
        "chronicle",
    ),
    *("Chronicle", "mischief", "Mischief", "Weather", "Derive", "derive_rows", "unsettled", "Fleet", "fleet"),
    *("Roster", "roster", "agenda", "Agenda", "Wish", "SWEEP_TIMER", "RUN_GOES_ON", "MEND_PATIENCE", "Board"),
)
BANNED_FILES = (
    *("agenda", "alarms", "alphabet", "appending", "board", "bridge", "chance", "chronicle", "desk", "doors"),
    *(
        "exchange",
        "fleet",
        "freshness",
        "fullness",
        "gate",
        "gather",
        "happening",
        "hops",
        "injection",
        "internal",
    ),
    *(
        "judge",
        "lab",
        "laws",
        "ledger",
        "look",
        "mischief",
        "overlay",
        "parent",
        "peer_book",
        "recent",
    ),
    *("renounce", "roster", "serving", "sharding", "slot", "starting", "sweeper", "trouble", "vault"),
    *("whereabouts", "wording"),
)
# Files of more lines than `LONGEST`, which are to become shorter. Lower them; do not raise them.
LONGEST = 500
LONG = {
    "python/quorate/aio/connection.py": 615,
    "python/quorate/connection.py": 609,
    "rust/client/src/core/tests/harness.rs": 503,
    "rust/consensus/src/control/properties.rs": 517,
    "rust/consensus/src/shard/forwarder.rs": 519,
    "rust/consensus/src/shard/properties/invariants.rs": 562,
    "rust/node/src/node.rs": 513,
    "rust/node/src/role_actor/tests.rs": 503,
    "rust/protocol/src/api.rs": 630,
    "rust/protocol/src/api/request.rs": 592,
    "rust/protocol/tests/client_frames/samples.rs": 530,
    "rust/simulator/src/world/roles.rs": 501,
    "rust/storage/tests/threads.rs": 543,
    "tests/test_data_directory.py": 521,
    "tests/test_faults.py": 574,
    "tests/test_interruptions.py": 535,
}


def sources():
    """Every source file of ours."""
    for folder in ("rust", "python", "tests", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".rs", ".py", ".pyi") and "target" not in path.parts:
                yield path


def test_old_identifiers_and_files_do_not_return():
    banned = re.compile(r"\b(?:" + "|".join(BANNED_IDENTIFIERS) + r")\b")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources()
        if path != Path(__file__)
        for match in banned.finditer(path.read_text())
    ]
    assert found == []
    assert [path.relative_to(ROOT) for path in sources() if path.stem in BANNED_FILES] == []
    # Elsewhere these are the field's words.
    assert not (RUST / "node/src/view.rs").exists()
    assert not (RUST / "simulator/src/oracle.rs").exists()


def test_no_file_is_long():
    long = {}
    for path in sources():
        lines = path.read_text().count("\n")
        if lines > LONGEST:
            long[str(path.relative_to(ROOT))] = lines
    too_long = {name: lines for name, lines in long.items() if lines > LONG.get(name, LONGEST)}
    assert too_long == {}, "split these"
    assert LONG.keys() - long.keys() == set(), "these are short now: remove them from LONG"


def test_the_tests_that_contributing_names_exist():
    block = (ROOT / "CONTRIBUTING.md").read_text().split("One test at a time:")[1].split("```")[1]
    commands = [line.split("#")[0].split() for line in block.splitlines() if "cargo test" in line]
    # The last word, unless it is the value of an option.
    names = [words[-1] for words in commands if words[-2] not in ("-p", "--test")]
    assert len(names) == 4
    code = "\n".join(path.read_text() for path in sources() if path.suffix == ".rs")
    for name in names:
        last = name.rstrip(":").rsplit("::", 1)[-1]
        assert re.search(rf"\b(fn|mod) {last}\b", code), name
