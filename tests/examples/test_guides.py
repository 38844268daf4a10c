"""The guides run as they are printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_index.core
import pytest
from llama_index.core import Settings

_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
_DIFF = re.compile(r"```diff\n(.*?)```", re.DOTALL)
# Guides of one framework with a test of their own.
_ELSEWHERE = {"langchain", "llama_index", "agents-langchain"}
# These show commands and files, and no program.
_NO_PROGRAM = {"README", "architecture", "getting-started", "conformance-llama-index", "glossary"}
_NO_PROGRAM |= {"how-guides-work", "speed", "exactness", "failures-and-trust", "choices"}


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """LlamaIndex's global settings as they were."""
    tokenizer = llama_index.core.global_tokenizer
    yield
    llama_index.core.global_tokenizer = tokenizer
    Settings._llm = None


def pages() -> list[str]:
    docs = Path(__file__).resolve().parents[2] / "docs"
    return sorted({page.stem for page in docs.glob("*.md")} - _ELSEWHERE - _NO_PROGRAM)


def run(page: str, blocks: list[str]) -> None:
    names: dict[str, Any] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, f"docs/{page}.md", "exec"), names)


@pytest.mark.parametrize("page", pages())
def test_every_example_of_a_guide_runs(
    page: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (repository / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = _BLOCK.findall(text)
    changes = _DIFF.findall(text)
    assert len(blocks) + len(changes) >= 2
    monkeypatch.chdir(tmp_path)  # Some write files.
    run(page, blocks)
    for change in changes:
        # What goes away must be a program, too, even where its packages are not installed.
        compile(side(change, "-"), f"docs/{page}.md", "exec")
        run(page, [side(change, "+")])
    assert capsys.readouterr().out.strip()


def side(change: str, mark: str) -> str:
    """One side of a diff: the lines with this mark and those without any."""
    other = "+" if mark == "-" else "-"
    return "\n".join(line[2:] for line in change.splitlines() if not line.startswith(other))
