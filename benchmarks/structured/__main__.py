"""Command line of ``python -m benchmarks.structured``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import benchmarks.structured
from benchmarks.common import console, machine
from benchmarks.structured.blanks import blanks
from benchmarks.structured.decisions import decisions
from benchmarks.structured.extraction import extraction
from benchmarks.structured.forced_calls import tools
from benchmarks.structured.free_calls import auto
from benchmarks.structured.schemas import schemas

PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "schemas": schemas,
    "json": extraction,
    "decisions": decisions,
    "infill": blanks,
    "tools": tools,
    "auto": auto,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structured", description=benchmarks.structured.__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--schemas", type=Path, help="JSON lines with id and schema, for `schemas` and `tools`")
    parser.add_argument("--n", type=int, default=200, help="examples of the other parts")
    parser.add_argument("--budget", type=int, default=512, help="max_new_tokens of a structured answer")
    parser.add_argument("--steps", type=int, help="max_denoising_steps of a structured answer")
    parser.add_argument("--level", type=float, default=1.0, help="of the tool task: 0 is one tool, 1 is up to four")
    parser.add_argument("--canvas-length", type=int, help="of the tool task, instead of the checkpoint's own")
    parser.add_argument("--room", type=int, default=12, help="tokens of a hole")
    parser.add_argument("--compare", type=int, default=8, help="contexts whose questions are also asked by generate")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of that comparison")
    parser.add_argument("--prompt-characters", type=int, default=1500, help="longest prompt that shows a schema")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="number of invalid answers to print")
    args = parser.parse_args(argv)
    console.print(machine())
    for part in args.parts or PARTS:
        if part in ("schemas", "tools") and args.schemas is None:
            console.print(f"{part}: give --schemas FILE")
            continue
        PARTS[part](args)


if __name__ == "__main__":
    main()
