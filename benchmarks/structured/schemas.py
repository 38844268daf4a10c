"""Validity over real-world schemas, on trained and on random weights."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import console, random_engine, show
from benchmarks.structured.validity import why_invalid
from dgemma_core import Engine, Grammar, LoadSpec, Message, SamplingParams
from dgemma_core.errors import AnswerBudgetError, GrammarError


def compile_schemas(path: Path) -> tuple[list[tuple[str, Any, Grammar]], Counter[str], Counter[str]]:
    """Compile the schemas of a file.

    Returns:
        Subset, schema and grammar of each schema that compiles; schemas per subset; refused schemas per reason.
    """
    usable, subsets, refused = [], Counter[str](), Counter[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        subset = row["id"].split("/")[0]
        subsets[subset] += 1
        try:
            usable.append((subset, row["schema"], Grammar.json_schema(row["schema"])))
        except GrammarError as error:
            refused[str(error).split("used: ", 1)[-1].split(".")[0][:70]] += 1
    return usable, subsets, refused


def schemas(args: argparse.Namespace) -> None:
    """Measure the validity of answers to real-world schemas, on trained and on random weights."""
    usable, subsets, refused = compile_schemas(args.schemas)
    embedded = Engine(LoadSpec(model=args.model))
    rows = []
    for name, engine in (("trained", embedded), ("random weights", random_engine(embedded))):
        rows.append(_schemas_on(name, engine, usable, args))
    columns = ("weights", "answers", "valid", "over budget", "steps a canvas", "free text", "tokens", "grammar time")
    show("Answers to JSON schemas", columns, rows)
    compiled = Counter(subset for subset, _, _ in usable)
    show(
        "Schemas that compile",
        ("subset", "schemas", "compile"),
        [(s, n, compiled[s]) for s, n in subsets.items()] + [("all", sum(subsets.values()), len(usable))],
    )
    show("Why the others are refused", ("reason", "schemas"), refused.most_common())


def _schemas_on(
    name: str, engine: Engine, usable: list[tuple[str, Any, Grammar]], args: argparse.Namespace
) -> list[Any]:
    engine.load()
    too_small, handles = 0, []
    began = time.perf_counter()
    for _, schema, grammar in usable:
        prompt = f"Answer with JSON that follows this schema:\n{json.dumps(schema)}"[: args.prompt_characters]
        params = SamplingParams(seed=0, max_new_tokens=args.budget, grammar=grammar, max_denoising_steps=args.steps)
        try:
            handles.append((schema, engine.submit([Message("user", prompt)], params)))
        except AnswerBudgetError:
            too_small += 1
    done = [(schema, handle.result()) for schema, handle in handles]
    seconds = time.perf_counter() - began
    wrong = [(schema, g, error) for schema, g in done if (error := why_invalid(schema, g.text))]
    for schema, g, error in wrong[: args.show]:
        console.print(f"invalid ({error}): {g.text[:200]!r} for {json.dumps(schema)[:300]}", markup=False)
    free = [engine.submit([Message("user", "List the facts.")], _free(args, seed)) for seed in range(8)]
    free_usage = [h.result().usage for h in free]
    usage = [g.usage for _, g in done]
    engine.close()
    share = sum(u.guide_s for u in usage) / seconds
    return [
        name,
        len(done),
        f"{1 - len(wrong) / len(done):.1%}",
        too_small,
        sum(u.denoising_steps for u in usage) / sum(u.canvases for u in usage),
        sum(u.denoising_steps for u in free_usage) / sum(u.canvases for u in free_usage),
        sum(u.completion_tokens for u in usage) / len(usage),
        f"{share:.1%}",
    ]


def _free(args: argparse.Namespace, seed: int) -> SamplingParams:
    return SamplingParams(seed=seed, max_new_tokens=64, max_denoising_steps=args.steps)
