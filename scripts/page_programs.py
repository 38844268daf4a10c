"""The programs in a page of the docs, and what they print.

A program is a ``python`` block or the new side of a ``diff`` block. The ``text`` block right after it shows its output.
"""

from __future__ import annotations

import contextlib
import difflib
import doctest
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_PROGRAM = re.compile(
    r"^```(?P<kind>python|diff)\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
# Blocks that name the published weights are not run.
_PUBLISHED = '"google/'
_CHECKER = doctest.OutputChecker()
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Program:
    """A program and the output that its page shows.

    Attributes:
        code: the Python code; of a ``diff`` block, the side with the added lines.
        removed: of a ``diff`` block, the side with the removed lines.
        line: how many lines of the page come before the code.
        output: what the page says it prints; ``...`` stands for text that varies.
    """

    code: str
    removed: str | None
    line: int
    output: str | None

    @property
    def runs(self) -> bool:
        """Whether the weights that it names are at hand."""
        return _PUBLISHED not in self.code


def programs_of(page: str) -> list[Program]:
    """The programs of a page, in its order."""
    found = []
    for match in _PROGRAM.finditer(page):
        code, is_change = match["code"], match["kind"] == "diff"
        line = page.count("\n", 0, match.start("code"))
        removed = _side(code, "-") if is_change else None
        found.append(Program(_side(code, "+") if is_change else code, removed, line, match["output"]))
    return found


def _side(change: str, mark: str) -> str:
    """One side of a diff: the lines with this mark and those without any."""
    other = "+" if mark == "-" else "-"
    return "\n".join(line[2:] for line in change.splitlines() if not line.startswith(other))


def run_programs(page: str, name: str) -> Iterator[tuple[Program, str]]:
    """Runs the programs of a page and yields each with what it prints.

    ``python`` blocks share one namespace and run first. A ``diff`` block is a program of its own. Its old side must
    compile, but does not run, since its packages may not be installed.

    Args:
        page: the page's text.
        name: the page's name, for tracebacks.
    """
    programs = programs_of(page)
    shared: dict[str, Any] = {"__name__": "guide"}
    for program in sorted(programs, key=lambda one: one.removed is not None):
        if program.removed is not None:
            compile(program.removed, name, "exec", dont_inherit=True)
        if program.runs:
            names = shared if program.removed is None else {"__name__": "guide"}
            printed = io.StringIO()
            # A traceback names the page's line; the code has none of this file's __future__ imports.
            code = compile("\n" * program.line + program.code, name, "exec", dont_inherit=True)
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            yield program, printed.getvalue()


def agrees(shown: str | None, printed: str) -> bool:
    """Whether a page shows what a program printed. White space does not count, ``...`` stands for any text."""
    return not printed.strip() if shown is None else _CHECKER.check_output(shown, printed, _FLAGS)


def with_outputs(page: str, printed: dict[int, str]) -> str:
    """A page that shows these outputs. A line with ``...`` that still agrees is kept.

    Args:
        page: the page's text.
        printed: outputs, by the :attr:`Program.line` of their programs. Other programs keep theirs.
    """

    def fresh(match: re.Match[str]) -> str:
        line = page.count("\n", 0, match.start("code"))
        if line not in printed or agrees(match["output"], printed[line]):
            return match[0]
        program = f"```{match['kind']}\n{match['code']}```\n"
        lines = _keep_ellipses((match["output"] or "").splitlines(), printed[line].splitlines())
        return program + ("\n```text\n" + "".join(f"{one}\n" for one in lines) + "```\n" if "".join(lines) else "")

    return _PROGRAM.sub(fresh, page)


def _keep_ellipses(old: list[str], new: list[str]) -> list[str]:
    """The new lines, each as the old one that stands for it with ``...``, if there is one."""
    patterns = [line for line in old if line.replace(".", "").strip() and "..." in line]
    return [next((old for old in patterns if agrees(old, line)), line) for line in new]


def difference(shown: str | None, printed: str) -> str:
    """The lines that differ: ``-`` before those that the page shows, ``+`` before those that were printed."""
    sides = ((shown or "").splitlines(), printed.splitlines())
    return "\n".join(difflib.unified_diff(*sides, "shown", "printed", lineterm=""))
