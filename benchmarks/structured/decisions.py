"""Accuracy, calibration and speed of typed decisions."""

from __future__ import annotations

import argparse
from collections import defaultdict

from benchmarks.common import console, show
from benchmarks.structured.decision_speed import compare_speed
from dgemma_core import Engine, LoadSpec, Question, fit_calibration
from training.data import decide as generators
from training.data.context import make_context
from training.data.mixture import source_for


def decision_cases(count: int, seed: int) -> list[tuple[str, list[tuple[Question, str]]]]:
    """Contexts over held-out names. Each has typed questions, with the right option of every question."""
    source = source_for(f"decide-{seed}", held_out=True)
    cases: list[tuple[str, list[tuple[Question, str]]]] = []
    while sum(len(asked) for _, asked in cases) < count:
        context = make_context(source, source.rng.randint(1, 10))
        asked = [source.choice(generators.KINDS)(source, context) for _ in range(8)]
        cases.append((context.text, asked))
    return cases


def decisions(args: argparse.Namespace) -> None:
    """Measure accuracy, calibration and speed of decisions."""
    engine = Engine(LoadSpec(model=args.model))
    engine.load()
    cases = decision_cases(args.n, args.seed)
    asked = [({f"q{i}": q for i, (q, _) in enumerate(named)}, [n for _, n in named], text) for text, named in cases]
    before = engine.stats()
    answers = [engine.decide(text, questions) for questions, _, text in asked]
    after = engine.stats()
    right: dict[str, list[bool]] = defaultdict(list)
    rows, names = [], []
    for (questions, wanted, _), got in zip(asked, answers, strict=True):
        for (key, question), want in zip(questions.items(), wanted, strict=True):
            best = max(got[key].probabilities, key=lambda name: got[key].probabilities[name])
            right[question.type].append(best == want)
            rows.append(got[key].probabilities)
            names.append(want)
    total = [ok for part in right.values() for ok in part]
    half = len(rows) // 2
    fitted = fit_calibration(rows[:half], names[:half])
    held = fit_calibration([fitted.apply(p) for p in rows[half:]], names[half:])
    raw = fit_calibration(rows[half:], names[half:])
    show(
        "Typed decisions",
        ("type", "questions", "right"),
        [(k, len(v), sum(v) / len(v)) for k, v in right.items()] + [("all", len(total), sum(total) / len(total))],
    )
    console.print(
        f"calibration: temperature {fitted.temperature:.2f} fitted on one half; expected calibration error on the "
        f"other half {raw.error_before:.3f} before, {held.error_before:.3f} after"
    )
    console.print(
        f"{len(cases)} contexts, 8 questions each: {after.forward_passes - before.forward_passes} forward passes, "
        f"{after.denoising_steps - before.denoising_steps} denoising steps"
    )
    compare_speed(engine, [(text, questions) for questions, _, text in asked[: args.compare]], args.runs)
    engine.close()
