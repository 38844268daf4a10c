"""The held-out tool task, where the model may call a tool or answer in words."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common import show
from dgemma_core import Engine, LoadSpec, Message, RequestHandle, SamplingParams, ToolCall
from training.evaluate import Case, make_cases


def auto(args: argparse.Namespace) -> None:
    """Measure turns that should call, and turns that should answer in words."""
    engine = Engine(LoadSpec(model=args.model))
    cases = make_cases(engine.tokenizer, "tools", args.n, args.seed, args.level)
    rows = []
    for name, held in (("free text, parsed", False), ("tool_choice=auto", True)):
        params = SamplingParams(seed=0, canvas_length=args.canvas_length)
        handles = [_ask(engine, case, held, params) for case in cases]
        calls, words = [], []
        for case, handle in zip(cases, handles, strict=True):
            got = handle.result()
            if case.branch.calls:
                wanted = [(c["function"]["name"], c["function"]["arguments"]) for c in case.branch.calls]
                calls.append([(c.name, dict(c.arguments)) for c in got.tool_calls] == wanted)
            else:
                words.append(got.text == case.target and not got.tool_calls)
        rows.append((name, len(calls), sum(calls) / len(calls), len(words), sum(words) / len(words)))
    show("Held-out tool task", ("how", "calls", "exactly right", "answers in words", "to the letter"), rows)
    engine.close()


def _ask(engine: Engine, case: Case, held: bool, params: SamplingParams) -> RequestHandle:
    """Queue a case. If ``held``, its calls fit the tools' schemas; else they are free text."""
    if not held:
        return engine.submit(case.prompt, params)
    messages = [_message(message) for message in case.branch.messages]
    return engine.submit(messages, params, tools=case.branch.tools, tool_choice="auto" if case.branch.tools else None)


def _message(message: dict[str, Any]) -> Message:
    """An OpenAI message as the engine's ``Message``."""
    calls = [call["function"] | {"id": call.get("id", "")} for call in message.get("tool_calls") or ()]
    return Message(
        message["role"],
        message.get("content") or "",
        tuple(ToolCall(**call) for call in calls),
        message.get("tool_call_id"),
        message.get("name"),
    )
