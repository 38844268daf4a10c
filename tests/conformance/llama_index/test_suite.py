"""The suite itself: what it imports, and that its guide is complete."""

from __future__ import annotations

import ast
import sys
import time
from pathlib import Path

import pytest

from dgemma_integrations.llama_index import conformance
from dgemma_integrations.llama_index.conformance import ConformanceBase, LLMConformance
from dgemma_integrations.llama_index.conformance.calls import within

PARTS = sorted(Path(conformance.__path__[0]).glob("*.py"))


def test_failed_assertions_are_explained() -> None:
    with pytest.raises(AssertionError, match=r"did not return within 0.01 s\nassert not 1"):
        within(0.01, lambda: time.sleep(0.1))


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_parts_import_nothing_but_core_and_pytest(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(str(node.module))
    foreign = {
        name
        for name in imported
        if name.split(".")[0] not in sys.stdlib_module_names
        and name != "pytest"
        and not name.startswith("llama_index.core")
    }
    assert not foreign


def test_the_guide_names_every_setting(repository: Path) -> None:
    guide = (repository / "docs" / "conformance-llama-index.md").read_text(encoding="utf-8")
    helpers = {"make", "make_slow", "limit", "call", "acall", "argument", "answer", "wait_until_idle", "llm"}
    settings = {name for name in vars(ConformanceBase) if not name.startswith("_")} - helpers
    assert {name for name in settings if f"`{name}" not in guide} == set()


def test_every_test_says_what_is_lost() -> None:
    tests = {name: getattr(LLMConformance, name) for name in dir(LLMConformance) if name.startswith("test_")}
    assert len(tests) > 80
    assert [name for name, test in tests.items() if not (test.__doc__ or "").startswith("Fails: ")] == []


def test_the_example_of_the_guide_is_collected(repository: Path) -> None:
    guide = (repository / "docs" / "conformance-llama-index.md").read_text(encoding="utf-8")
    names: dict[str, type[LLMConformance]] = {}
    exec(compile(guide.split("```python\n")[1].split("```")[0], "docs/conformance-llama-index.md", "exec"), names)
    example = names["TestMyLLM"]()
    example.test_endpoint_answers(example.make(), "chat")
    assert not example.has_tools
