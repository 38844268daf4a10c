"""Infilling, which sees both sides of a blank, against completion, which sees the left side only."""

from __future__ import annotations

import argparse

from benchmarks.common import show
from dgemma_core import Engine, Hole, LoadSpec, SamplingParams
from training.data.context import make_context
from training.data.infill import infill
from training.data.lexicon import Source
from training.data.mixture import source_for


def blanks(args: argparse.Namespace) -> None:
    """Compare infilling with completion from the left."""
    engine = Engine(LoadSpec(model=args.model))
    source: Source = source_for(f"infill-{args.seed}", held_out=True)
    found: list[tuple[str, str, str]] = []
    while len(found) < args.n:
        for branch in infill(source, make_context(source, source.rng.randint(1, 5)), 1):
            assert branch.raw is not None
            (_, end) = branch.holes[0]
            found.append((branch.raw, branch.answer[:end], branch.answer[end:]))
    both, left = 0, 0
    for before, value, after in found:
        filled = engine.infill([f"{before} " if value.startswith(" ") else before, Hole(args.room), after], _seeded())
        both += filled.holes[0].strip() == value.strip()
        if before:  # Nothing can be completed from nothing.
            completed = engine.generate([before], SamplingParams(seed=0, max_new_tokens=args.room))[0].text
            left += completed.strip().startswith(value.strip())
    show(
        f"{len(found)} blanks; the text states the fact once more, before or after the blank",
        ("how", "exact"),
        [
            ("infill, both sides", both / len(found)),
            ("completion, left side (only its beginning must be right)", left / len(found)),
        ],
    )
    engine.close()


def _seeded() -> SamplingParams:
    return SamplingParams(seed=0)
