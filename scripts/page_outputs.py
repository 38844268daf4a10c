"""Runs the programs of the pages and writes what they print below them. ``make docs-output`` runs it.

With names of pages (``docs/rag.md``) it runs only those. With ``--check`` it writes nothing and fails if a page shows
something else than its programs print.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.page_programs import programs_of, run_programs, with_outputs

ROOT = Path(__file__).parents[1]


def pages_with_programs() -> list[str]:
    """Names of the pages that have programs: the README and those in ``docs/``."""
    names = ("README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
    return [name for name in names if programs_of((ROOT / name).read_text("utf-8"))]


def refreshed(name: str) -> str:
    """A page's text with the outputs of its programs. They run in a folder of their own."""
    page = (ROOT / name).read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), kept_settings():
        printed = {program.line: output for program, output in run_programs(page, name)}
    return with_outputs(page, printed)


@contextlib.contextmanager
def kept_settings() -> Iterator[None]:
    """Puts LlamaIndex's global settings, which programs set, back at the end."""
    import llama_index.core
    from llama_index.core import Settings

    before, tokenizer = vars(Settings).copy(), llama_index.core.global_tokenizer
    try:
        yield
    finally:
        vars(Settings).update(before)
        llama_index.core.global_tokenizer = tokenizer


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", default=pages_with_programs(), help="such as docs/rag.md (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    args = parser.parse_args()
    stale = False
    for name in args.pages:
        text = refreshed(name)
        if text != (ROOT / name).read_text("utf-8"):
            stale = True
            print(f"{name} {'is out of date: run make docs-output' if args.check else 'written'}", flush=True)
            if not args.check:
                (ROOT / name).write_text(text, "utf-8")
    return int(args.check and stale)


if __name__ == "__main__":
    sys.exit(main())
