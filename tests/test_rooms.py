"""The house's plan, read from the imports of all modules: typing-only ones and those inside functions count, too."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"dgemma_core": ROOT / "core" / "dgemma_core", "dgemma_integrations": ROOT / "dgemma_integrations"}

# Room -> the rooms it may import. Every room may import itself and the rooms of EVERYWHERE.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "api": set(),
    "checkpoint": {"denoise"},
    "chat": set(),
    "denoise": set(),
    "structured": {"denoise"},
    "execution": {"denoise"},
    "engine": {"structured", "chat", "denoise", "checkpoint", "execution"},
    "remote": set(),
    "embedded": set(),
    "shared": {"engine", "remote"},
    "langchain": {"shared"},
    "llama_index": {"shared"},
    "server": {"shared"},
    "cli": {"shared", "server"},
}
EVERYWHERE = {"api", "errors"}
# A package's own name says what is public, and may import what it names.
ARROWS["dgemma_core"] = {"engine", "remote"}
ARROWS["dgemma_integrations"] = {"langchain", "llama_index"}
ARROWS["shared"].add("dgemma_core")

FRAMEWORKS = ("langchain", "langchain_core", "langgraph", "llama_index", "llama_index_instrumentation")
LONGEST, MEDIAN = 400, 130


# Reading the imports.


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its import name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports_of(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports; ``from a import b`` gives ``a.b``."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@cache
def arrows() -> list[tuple[str, int, str]]:
    """All imports of one own module by another: importer, line, imported."""
    found = []
    for name, path in modules().items():
        for line, target in imports_of(name, path):
            own = target
            while own and own not in modules():
                own = own.rpartition(".")[0]  # The last part may be a name of the module.
            if own and own != name:
                found.append((name, line, own))
    return found


def foreign(prefixes: tuple[str, ...], rooms: set[str]) -> list[str]:
    """Where modules of some rooms import one of these packages."""
    return [
        f"{name}:{line} imports {target}"
        for name, path in modules().items()
        if room(name) in rooms
        for line, target in imports_of(name, path)
        if target.split(".")[0] in prefixes
    ]


def room(module: str) -> str:
    """The room of a module; the package itself for its ``__init__``."""
    return module.split(".")[1] if "." in module else module


def listed(problems: list[str], rule: str) -> str:
    return f"{rule}:\n  " + "\n  ".join(problems)


# Rooms.


def test_every_folder_is_a_room_of_the_plan() -> None:
    unknown = sorted({room(name) for name in modules()} - set(ARROWS))
    assert not unknown, f"not in ARROWS: {unknown}"


def test_arrows_point_down() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, line, target in arrows()
        if room(target) not in {room(name), *ARROWS.get(room(name), set()), *EVERYWHERE}
    ]
    assert not wrong, listed(wrong, "a room imports only what ARROWS allows")


def test_execution_is_imported_by_the_engine_alone() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, line, target in arrows()
        if room(target) == "execution" and room(name) not in ("engine", "execution")
    ]
    assert not wrong, listed(wrong, "only engine/ imports execution/")


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for name, _, target in arrows():
        graph[name].add(target)
        # Python imports the packages that hold a module first.
        packages = {target[: match.start()] for match in re.finditer(r"\.", target)}
        graph[name] |= {package for package in packages if not f"{name}.".startswith(f"{package}.")}
    found: list[str] = []
    done: set[str] = set()
    for start in graph:
        path = circle(graph, start, done)
        if path:
            found.append(" -> ".join(path))
    assert not found, listed(found, "circles, typing-only imports included")


def circle(graph: dict[str, set[str]], start: str, done: set[str]) -> list[str]:
    """The first circle found from a module on; empty if there is none. Walked modules go into ``done``."""
    path: list[str] = []

    def walk(name: str) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for target in sorted(graph[name]):
            if found := walk(target):
                return found
        path.pop()
        done.add(name)
        return []

    found = walk(start)
    done.update(found)
    return found


# Who may know whom.


def test_api_knows_neither_torch_nor_transformers() -> None:
    wrong = foreign(("torch", "transformers"), {"api", "errors"})
    assert not wrong, listed(wrong, "api/ and errors.py import without torch and transformers")


def test_api_imports_where_torch_and_transformers_are_missing() -> None:
    code = "import sys; sys.modules.update(torch=None, transformers=None); import dgemma_core.api, dgemma_core.errors"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "core", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_core_knows_no_framework() -> None:
    wrong = foreign(FRAMEWORKS, {room(name) for name in modules() if name.startswith("dgemma_core")})
    assert not wrong, listed(wrong, "dgemma_core imports no framework")


def test_adapters_do_not_know_each_others_framework() -> None:
    langchain, llama_index = FRAMEWORKS[:3], FRAMEWORKS[3:]
    wrong = foreign(llama_index, {"langchain"}) + foreign(langchain, {"llama_index"}) + foreign(FRAMEWORKS, {"shared"})
    assert not wrong, listed(wrong, "each adapter imports its own framework only, shared/ imports none")


def test_integrations_know_of_the_core_api_and_errors() -> None:
    """One module of ``shared/`` makes engines, and may name their classes."""
    wrong = [
        (name, f"{name}:{line} imports {target}")
        for name, line, target in arrows()
        if name.startswith("dgemma_integrations") and target.startswith("dgemma_core")
        if room(target) not in EVERYWHERE
    ]
    makers = {name for name, _ in wrong if room(name) == "shared"}
    others = [text for name, text in wrong if room(name) != "shared" or len(makers) > 1]
    assert not others, listed(others, "dgemma_integrations imports dgemma_core.api and dgemma_core.errors")


# Names and sizes.


def test_no_module_name_begins_with_an_underscore() -> None:
    wrong = [name for name in modules() if re.search(r"(^|\.)_(?!_main__$)", name)]
    assert not wrong, listed(wrong, "a module's name begins with a letter")


def lengths() -> dict[str, int]:
    return {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}


def test_no_file_is_long() -> None:
    wrong = [f"{name}: {length} lines" for name, length in lengths().items() if length > LONGEST]
    assert not wrong, listed(wrong, f"no file has more than {LONGEST} lines")


def test_files_are_short_in_the_middle() -> None:
    median = statistics.median(lengths().values())
    assert median <= MEDIAN, f"half of the files have more than {median:g} lines; at most {MEDIAN} are wanted"


# Outside the packages.


def python_files(folder: str) -> dict[str, Path]:
    return {str(path.relative_to(ROOT)): path for path in sorted((ROOT / folder).rglob("*.py"))}


def test_measurements_use_public_names() -> None:
    wrong = []
    for name, path in python_files("benchmarks").items():
        for line, target in imports_of(name, path):
            parts = target.split(".")
            if parts[0] == "dgemma_core" and len(parts) > 2 and parts[1] not in EVERYWHERE:
                wrong.append(f"{name}:{line} imports {target}")
        read = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Attribute)]
        private = [n for n in read if re.match(r"_[^_]", n.attr) and ast.unparse(n.value) != "self"]
        wrong += [f"{name}:{node.lineno} reads {ast.unparse(node)}" for node in private]
    assert not wrong, listed(wrong, "benchmarks/ uses public names of the packages")


def test_tests_of_the_core_do_not_need_the_recipe() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, path in python_files("tests/core").items()
        for line, target in imports_of(name, path)
        if target.split(".")[0] == "training"
    ]
    assert not wrong, listed(wrong, "tests/core does not import training")


def test_test_modules_do_not_import_each_other() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, path in python_files("tests").items()
        for line, target in imports_of(name, path)
        if target.startswith("tests.") and any(part.startswith("test_") for part in target.split(".")[:-1])
    ]
    assert not wrong, listed(wrong, "what tests share is in tests/helpers")


# The picture.

_MERMAID = re.compile(r"^```mermaid\n(.*?)^```", re.DOTALL | re.MULTILINE)
_ARROW = re.compile(r"^\s*(.+?)\s*--+>(?:\|[^|]*\|)?\s*(.+?)\s*;?\s*$")
_NODE = re.compile(r"\w+")


def drawn(text: str) -> set[tuple[str, str]]:
    """Arrows of a page's Mermaid pictures: ``a --> b``, also with labels, and with ``&`` between several rooms."""
    found = set()
    for picture in _MERMAID.findall(text):
        for line in picture.splitlines():
            if match := _ARROW.match(line):
                sides = [[_NODE.match(node.strip()) for node in side.split("&")] for side in match.groups()]
                found |= {(a[0], b[0]) for a in sides[0] for b in sides[1] if a and b}
    return found


def test_the_picture_shows_the_arrows() -> None:
    picture = drawn((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert picture, "docs/architecture.md has no ```mermaid block with lines like `engine --> execution`"
    allowed = {(a, b) for a, targets in ARROWS.items() for b in targets if not {a, b} & set(PACKAGES)}
    wrong = sorted(f"{a} --> {b}" for a, b in picture - allowed if b not in EVERYWHERE or a not in ARROWS)
    assert not wrong, listed(wrong, "drawn, and not in ARROWS")
    there = {room(name) for name in modules()}
    missing = sorted(f"{a} --> {b}" for a, b in allowed - picture if {a, b} <= there)
    assert not missing, listed(missing, "in ARROWS, and not drawn")


def test_pictures_are_read() -> None:
    text = "```mermaid\nflowchart TD\n  a[Room a] --> b\n  a -->|one| c & d[(D)];\n  subgraph x\n```\n`a --> z`\n"
    assert drawn(text) == {("a", "b"), ("a", "c"), ("a", "d")}
