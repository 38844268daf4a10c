"""The programs of README.md and of every page in docs/ run as they are printed, and print what the page shows.

One test for each page. ``make docs-output`` writes the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.page_programs import agrees, difference, programs_of, run_programs, with_outputs

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Page:
    """What is expected of a page, whatever its outputs were when they were written.

    Attributes:
        programs: how many programs it has at least.
        words: what the page prints, among other things.
        each: what each of its programs prints.
    """

    programs: int = 2
    words: tuple[str, ...] = ()
    each: str = ""


# Pages that are not named here have at least two programs.
PAGES = {
    "README.md": Page(3, each="Halur"),
    "docs/getting-started.md": Page(1, each="Halur"),
    "docs/langchain.md": Page(9, ("1931", "red", "get_weight", "closed='Friday', priced=False")),
    "docs/agents-langchain.md": Page(6, ("get_weight", "weight=512", "1931", "to Kira Vonel", "not talk about")),
    "docs/agents-llama-index.md": Page(4, ("Halur weighs 512", "weight=512", "'Vexal bridge' fits")),
    "docs/decisions.md": Page(3, ("owner Kira Vonel", "relevant full", "'Halur bridge' fits", "True yes")),
    "docs/swap-in.md": Page(4, ("212 meters", "get_weight", "name='Vexal bridge' year=1931")),
    "docs/llama_index.md": Page(8, ("\nThe Mirdo museum is closed on Monday.\n", "tokens in a window of")),
    "docs/conformance-llama-index.md": Page(1),
}
# These show commands and files, and no program.
NO_PROGRAM = {
    f"docs/{name}.md"
    for name in (
        "README", "architecture", "choices", "exactness", "failures-and-trust", "glossary", "how-guides-work", "speed",
        "troubleshooting",
    )
}  # fmt: skip


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pages() -> list[str]:
    names = ["README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
    return sorted(set(names) - NO_PROGRAM)


@pytest.mark.parametrize("name", pages())
def test_the_programs_of_a_page_print_what_it_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page, text = PAGES.get(name, Page()), text_of(name)
    assert len(programs_of(text)) >= page.programs
    # Each output stands right below its program; one elsewhere would stay as it is when the program changes.
    assert text.count("\n```text\n") == sum(program.output is not None for program in programs_of(text))
    output, wrong = "", []
    for program, printed in run_programs(text, name):
        assert page.each in printed
        output += printed
        if not agrees(program.output, printed):
            wrong.append(f"{name}, line {program.line}:\n{difference(program.output, printed)}")
    assert not wrong, "\n".join(("make docs-output writes what is printed, if that is right:", *wrong))
    assert [word for word in page.words if word not in output] == []
    # Warnings and progress bars would greet who tries it.
    assert capsys.readouterr().err == ""


def test_what_is_said_of_pages_is_about_pages() -> None:
    assert {name for name in (*PAGES, *NO_PROGRAM) if not (ROOT / name).is_file()} == set()
    assert {name for name in NO_PROGRAM if programs_of(text_of(name))} == set()


def test_a_program_that_prints_needs_its_output_right_below() -> None:
    shown = "```python\nprint(1)\n```\n\n```text\n1\n```\n"
    assert [program.output for program in programs_of(shown)] == ["1\n"]
    apart = "```python\nprint(1)\n```\n\nThis prints:\n\n```text\n1\n```\n"
    ((program, printed),) = run_programs(apart, "page")
    assert not agrees(program.output, printed)
    assert agrees(None, "")


def test_what_varies_is_left_out_by_an_ellipsis() -> None:
    assert agrees("took ... s\n", "took 0.31 s\n")
    assert agrees("{'a': 1,\n 'b': 2}\n", "{'a': 1, 'b': 2}\n")
    assert not agrees("took ... s\n", "took long\n")


def test_outputs_are_written_below_their_programs() -> None:
    page = (
        "A\n```python\nprint(1)\n```\n\n```text\n2\n```\nB\n\n```python\nx = 1\n```\n\nC\n\n```python\nprint(x)\n```\n"
    )
    printed = {program.line: output for program, output in run_programs(page, "page")}
    fresh = with_outputs(page, printed)
    assert fresh == page.replace("2\n", "1\n") + "\n```text\n1\n```\n"
    assert with_outputs(fresh, printed) == fresh


def test_an_output_that_a_program_no_longer_prints_goes() -> None:
    assert with_outputs("```python\nx = 1\n```\n\n```text\n1\n```\n", {1: ""}) == "```python\nx = 1\n```\n"


def test_a_new_output_keeps_the_ellipses_of_the_old_one() -> None:
    page = "```python\n...\n```\n\n```text\nid=call_... a\nold\n```\n"
    assert with_outputs(page, {1: "id=call_7f a\nnew\n"}) == page.replace("old", "new")


def test_a_change_has_two_sides() -> None:
    page = "```diff\n- from gone import x\n+ x = 1\n  print(x)\n```\n"
    ((program, printed),) = run_programs(page, "page")
    assert (program.removed, printed) == ("from gone import x\nprint(x)", "1\n")
    with pytest.raises(SyntaxError):
        list(run_programs("```diff\n- (\n+ x = 1\n```\n", "page"))
