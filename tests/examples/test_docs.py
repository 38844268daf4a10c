"""The programs of README.md and of every page in docs/ run as they are printed: one test for each page.

The blocks of a page run one after the other, in one namespace. A ``diff`` block has two sides: the new one runs after
the page's other blocks, the old one must compile, since its packages may not be installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(python|diff)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """What is expected of a page.

    Attributes:
        blocks: how many blocks it has at least.
        words: what the page prints, among other things.
        each: what each of its blocks prints.
        silent: whether it prints nothing.
        without: blocks with this text are left out.
    """

    blocks: int = 2
    words: tuple[str, ...] = ()
    each: str = ""
    silent: bool = False
    without: str | None = None


# Pages that are not named here have at least two blocks and print something.
PAGES = {
    "README.md": Page(3, each="Halur", without='"google/'),  # These weights are not at hand.
    "docs/getting-started.md": Page(1, each="Halur"),
    "docs/langchain.md": Page(9, ("1931", "green", "get_weight", "team=")),
    "docs/agents-langchain.md": Page(6, ("get_weight", "weight=512", "1931")),
    "docs/llama_index.md": Page(8, ("\nThe Mirdo museum is closed on Monday.\n", "tokens in a window of")),
    "docs/conformance-llama-index.md": Page(1, silent=True),
}
# These show commands and files, and no program.
NO_PROGRAM = {
    f"docs/{name}.md"
    for name in (
        "README", "architecture", "choices", "exactness", "failures-and-trust", "glossary", "how-guides-work", "speed",
        "troubleshooting",
    )
}  # fmt: skip


def pages() -> list[str]:
    names = ["README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
    return sorted(set(names) - NO_PROGRAM)


@pytest.fixture(autouse=True)
def _folder_to_write_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", pages())
def test_the_programs_of_a_page_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGES.get(name, Page())
    text = (ROOT / name).read_text(encoding="utf-8")
    found = [(match[1], text.count("\n", 0, match.start(2)), match[2]) for match in _BLOCK.finditer(text)]
    assert len(found) >= page.blocks
    printed = []

    def run(code: str, line: int, names: dict[str, Any]) -> None:
        # Errors name the page's line; the code has none of this file's own __future__ imports.
        exec(compile("\n" * line + code, name, "exec", dont_inherit=True), names)
        printed.append(capsys.readouterr().out)
        assert page.each in printed[-1]

    names: dict[str, Any] = {"__name__": "guide"}
    for kind, line, code in found:
        if kind == "python" and (page.without is None or page.without not in code):
            run(code, line, names)
    for kind, line, code in found:
        if kind == "diff":
            compile(side(code, "-"), name, "exec", dont_inherit=True)
            run(side(code, "+"), line, {"__name__": "guide"})
    output = "".join(printed)
    assert bool(output.strip()) is not page.silent
    assert [word for word in page.words if word not in output] == []


def side(change: str, mark: str) -> str:
    """One side of a diff: the lines with this mark and those without any."""
    other = "+" if mark == "-" else "-"
    return "\n".join(line[2:] for line in change.splitlines() if not line.startswith(other))


def test_what_is_said_of_pages_is_about_pages() -> None:
    assert {name for name in (*PAGES, *NO_PROGRAM) if not (ROOT / name).is_file()} == set()
    assert {name for name in NO_PROGRAM if _BLOCK.search((ROOT / name).read_text(encoding="utf-8"))} == set()
