"""Forced calls of tools with real-world schemas: do they all parse and validate?"""

from __future__ import annotations

import argparse
import json
import random
from itertools import product
from typing import Any

from benchmarks.common import random_engine, show
from benchmarks.structured.schemas import compile_schemas
from benchmarks.structured.validity import why_invalid
from dgemma_core import Engine, Generation, LoadSpec, Message, RequestHandle, SamplingParams
from dgemma_core.errors import AnswerBudgetError, ContextOverflowError, GrammarError


def tools(args: argparse.Namespace) -> None:
    """Measure how many forced calls parse and validate."""
    embedded = Engine(LoadSpec(model=args.model))
    usable, _, _ = compile_schemas(args.schemas)
    rng = random.Random(args.seed)
    wanted = [schema for _, schema, _ in usable if schema.get("type") == "object"]
    rng.shuffle(wanted)
    rows = []
    for name, engine in (("trained", embedded), ("random weights", random_engine(embedded))):
        engine.load()
        handles: list[tuple[Any, RequestHandle]] = []
        refused, too_small, too_long = 0, 0, 0
        # If the file has too few schemas, they are called again with another seed.
        for number, (again, schema) in enumerate(product(range(args.n), wanted)):
            if len(handles) == args.n or (again and not handles):
                break
            tool = {"type": "function", "function": {"name": f"tool_{number}", "description": "", "parameters": schema}}
            params = SamplingParams(seed=again, max_new_tokens=args.budget, max_denoising_steps=args.steps)
            prompt = [Message("user", "Use the tool.")]
            try:
                handles.append((schema, engine.submit(prompt, params, tools=[tool], tool_choice="any")))
            except AnswerBudgetError:
                too_small += not again
            except GrammarError:
                refused += not again
            except ContextOverflowError:
                too_long += not again
        done = [(schema, handle.result()) for schema, handle in handles]
        good = sum(1 for schema, g in done if _call_fits(schema, g))
        rows.append((name, len(done), f"{good / len(done):.1%}", too_small, too_long, refused))
        engine.close()
    show(
        "Forced tool calls",
        ("weights", "calls", "parse and validate", "over budget", "prompt too long", "refused"),
        rows,
    )


def _call_fits(schema: Any, generation: Generation) -> bool:
    if not generation.tool_calls:
        return False
    return all(not why_invalid(schema, json.dumps(dict(call.arguments))) for call in generation.tool_calls)
