"""JSON extraction, with and without a grammar."""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.common import show
from dgemma_core import Engine, Grammar, LoadSpec, SamplingParams
from training.evaluate import make_cases


def extraction(args: argparse.Namespace) -> None:
    """Measure JSON extraction, with and without a grammar."""
    engine = Engine(LoadSpec(model=args.model))
    cases = make_cases(engine.tokenizer, "json", args.n, args.seed)
    rows = []
    for name, use in (("free", False), ("grammar", True)):
        handles = []
        for case in cases:
            grammar = Grammar.json_schema(_schema_of(json.loads(case.target))) if use else None
            handles.append(engine.submit(case.prompt, SamplingParams(seed=0, grammar=grammar)))
        done = [h.result() for h in handles]
        scores = [_fields_right(case.target, g.text) for case, g in zip(cases, done, strict=True)]
        steps = sum(g.usage.denoising_steps for g in done) / sum(g.usage.canvases for g in done)
        valid = sum(1 for _, parsed, _ in scores if parsed) / len(scores)
        fields = sum(right for right, _, _ in scores) / sum(total for _, _, total in scores)
        whole = sum(1 for right, parsed, total in scores if parsed and right == total) / len(scores)
        rows.append((name, f"{valid:.3f}", f"{fields:.3f}", f"{whole:.3f}", steps))
    show("JSON extraction", ("output", "parses", "fields right", "all fields right", "steps per canvas"), rows)
    engine.close()


def _schema_of(value: dict[str, Any]) -> dict[str, Any]:
    """The schema that a caller knows beforehand: names and types of the fields. Each field may be null."""
    kinds = {str: "string", int: "number", float: "number"}
    properties = {
        # In this task a missing field is null. Its target has no type, so any type will do.
        key: {"type": [kinds.get(type(item), "string"), "null"]}
        for key, item in value.items()
    }
    return {"type": "object", "properties": properties, "required": list(value), "additionalProperties": False}


def _fields_right(expected: str, got: str) -> tuple[int, bool, int]:
    want = json.loads(expected)
    try:
        have = json.loads(got)
    except json.JSONDecodeError:
        return 0, False, len(want)
    if not isinstance(have, dict):
        return 0, True, len(want)
    return sum(1 for key, value in want.items() if key in have and have[key] == value), True, len(want)
