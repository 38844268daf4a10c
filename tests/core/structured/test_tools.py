"""Tool calls through the engine: forced ones always fit their schema, free ones do once begun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dgemma_core import Engine, Generation, Grammar, Message, SamplingParams
from dgemma_core.chat.template import ChatTemplate
from dgemma_core.errors import AnswerBudgetError, GrammarError
from dgemma_core.structured.tool_grammar import tool_grammar
from tests.checkpoints import make_model, make_tokenizer


def tool(name: str, properties: dict[str, Any], required: tuple[str, ...] | None = None) -> dict[str, Any]:
    wanted = list(properties) if required is None else list(required)
    parameters = {"type": "object", "properties": properties, "required": wanted}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    tool("get_weather", {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}),
    tool(
        "book", {"seats": {"type": "array", "items": {"type": "boolean"}, "minItems": 2}, "x": {"type": "string"}}, ()
    ),
    tool("now", {}),
]
SCHEMAS = {t["function"]["name"]: t["function"]["parameters"] for t in TOOLS}
ASK = [Message("user", "What is the weather in Zonel?")]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.from_model(make_model(seed=3, sharpness=0.3), make_tokenizer()) as engine:
        yield engine


def params(seed: int = 0, budget: int = 120) -> SamplingParams:
    return SamplingParams(seed=seed, max_new_tokens=budget, max_denoising_steps=4)


def check(generation: Generation) -> list[str]:
    """Validates all calls and returns their names."""
    for call in generation.tool_calls:
        jsonschema.validate(json.loads(json.dumps(dict(call.arguments))), SCHEMAS[call.name])
    ids = [call.id for call in generation.tool_calls]
    assert len(set(ids)) == len(ids)
    return [call.name for call in generation.tool_calls]


@pytest.mark.parametrize("choice", ["any", "required"])
def test_forced_calls_fit_for_any_weights(engine: Engine, choice: str) -> None:
    for seed in range(8):
        generation = engine.submit(ASK, params(seed), tools=TOOLS, tool_choice=choice).result()
        assert check(generation)
        assert generation.finish_reason in ("tool_calls", "length")
        assert not generation.text


def test_a_named_tool_is_called(engine: Engine) -> None:
    for name in SCHEMAS:
        generation = engine.submit(ASK, params(), tools=TOOLS, tool_choice=name, parallel_tool_calls=False).result()
        assert check(generation) == [name]


def test_free_choice_never_breaks_a_call(engine: Engine) -> None:
    for seed in range(8):
        generation = engine.submit(ASK, params(seed), tools=TOOLS).result()
        check(generation)
        assert "call:" not in generation.text


def test_none_makes_no_call(engine: Engine) -> None:
    for seed in range(4):
        assert not engine.submit(ASK, params(seed), tools=TOOLS, tool_choice="none").result().tool_calls


def test_words_are_not_changed_by_tools_at_hand(embedded_engine: Engine) -> None:
    """An answer in words does not depend on whether calls are held to their schemas."""
    hello = [Message("user", "Hello!")]
    held = embedded_engine.submit(hello, SamplingParams(seed=0), tools=TOOLS).result()
    text = SamplingParams(seed=0, grammar=Grammar.lark("start: /(?s:.*)/"))
    free = embedded_engine.submit(hello, text, tools=TOOLS, tool_choice="none")
    assert held.text == free.result().text
    assert held.text.startswith("Hello")


@dataclass(frozen=True)
class Case:
    """A request that asks for calls, over names that the embedded checkpoint has not seen in training."""

    messages: list[Message]
    tools: list[dict[str, Any]]
    calls: list[tuple[str, dict[str, Any]]]


def read_cases() -> list[Case]:
    rows = json.loads((Path(__file__).parent / "tool_cases.json").read_text(encoding="utf-8"))
    return [
        Case(
            [Message(role, content) for role, content in row["messages"]],
            [{"type": "function", "function": function} for function in row["tools"]],
            [(name, arguments) for name, arguments in row["calls"]],
        )
        for row in rows
    ]


@pytest.mark.landing
def test_free_calls_are_more_often_right_with_their_grammar(embedded_engine: Engine) -> None:
    """A grammar makes calls valid, and more of them right: forced names and keys keep the values in place."""
    cases = read_cases()
    template = ChatTemplate(embedded_engine.tokenizer)
    right = []
    for use in (False, True):
        handles = []
        for case in cases:
            grammar = tool_grammar(case.tools, "auto") if use else None
            prompt = template.render(case.messages, case.tools).ids
            handles.append(embedded_engine.submit(prompt, SamplingParams(seed=0, grammar=grammar)))
        wanted = [case.calls for case in cases]
        got = [[(call.name, dict(call.arguments)) for call in handle.result().tool_calls] for handle in handles]
        right.append(sum(g == w for g, w in zip(got, wanted, strict=True)))
    free, held = right
    assert held > free
    assert held >= 0.6 * len(cases)


def test_bad_choices_are_named(engine: Engine) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        engine.submit(ASK, params(), tools=TOOLS, tool_choice="nowhere")
    with pytest.raises(ValueError, match="any"):
        engine.submit(ASK, params(), tool_choice="any")
    with pytest.raises(ValueError, match="tool_choice='any'"):
        engine.submit(ASK, SamplingParams(grammar=Grammar.json()), tools=TOOLS, tool_choice="any")
    with pytest.raises(AnswerBudgetError):
        engine.submit(ASK, params(budget=2), tools=TOOLS, tool_choice="get_weather")
    with pytest.raises(GrammarError, match="dependentRequired"):
        engine.submit(ASK, params(), tools=[tool("x", {"a": {"type": "object", "dependentRequired": {"^b": {}}}})])
