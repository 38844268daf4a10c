"""Answers always fit their grammar, for any weights: random ones, trained ones, alone and among others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgemma_core import BlockEvent, Engine, Grammar, Message, SamplingParams
from dgemma_core.errors import AnswerBudgetError
from tests.checkpoints import make_model, make_tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "size": {"type": "integer", "minimum": 3},
        "kind": {"enum": ["small", "large"]},
    },
    "required": ["name", "tags", "size", "kind"],
}
PROMPT = [2, *range(30, 60)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Random weights: the draft is never right, every answer is the repair's work."""
    with Engine.from_model(make_model(seed=3, sharpness=0.3), make_tokenizer()) as engine:
        yield engine


def params(grammar: Grammar | None, seed: int = 0, budget: int = 80, **more: Any) -> SamplingParams:
    return SamplingParams(grammar=grammar, seed=seed, max_new_tokens=budget, max_denoising_steps=4, **more)


@pytest.mark.parametrize("budget", [60, 90, 180])
def test_schema_holds_over_several_canvases(engine: Engine, budget: int) -> None:
    for seed in range(4):
        generation = engine.generate([PROMPT], params(Grammar.json_schema(SCHEMA), seed, budget))[0]
        jsonschema.validate(json.loads(generation.text), SCHEMA)
        assert generation.finish_reason == "length"  # Random weights want to go on for ever.
        assert len(generation.token_ids) <= budget
        assert generation.usage.guide_s > 0


def test_an_answer_cut_for_want_of_room_says_so(engine: Engine) -> None:
    cut = engine.generate([PROMPT], params(Grammar.regex("[a-z ]{3,}"), 0, 5))[0]
    assert (len(cut.token_ids), cut.finish_reason) == (5, "length")
    assert engine.generate([PROMPT], params(Grammar.regex("[a-z]{9}"), 0, 9))[0].finish_reason == "stop"
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    generation = engine.submit([Message("user", "Hello")], params(None, 1, 9), tools=tools).result()
    assert (len(generation.token_ids), generation.finish_reason) == (9, "length")


def test_other_kinds_of_grammars(engine: Engine) -> None:
    for seed in range(6):
        assert engine.generate([PROMPT], params(Grammar.choice(["red", "blue", "reddish"]), seed))[0].text in (
            "red",
            "blue",
            "reddish",
        )
        text = engine.generate([PROMPT], params(Grammar.regex(r"[A-Z]{3}-\d{4}(,[a-z]+)*"), seed))[0].text
        assert re.fullmatch(r"[A-Z]{3}-\d{4}(,[a-z]+)*", text)
        assert isinstance(json.loads(engine.generate([PROMPT], params(Grammar.json(), seed))[0].text), dict)
        text = engine.generate([PROMPT], params(Grammar.lark('start: "a" "b"+ "c"'), seed))[0].text
        assert re.fullmatch("ab+c", text)


def test_the_shortest_answer_is_the_smallest_budget(engine: Engine) -> None:
    grammar = Grammar.json_schema(SCHEMA)
    with pytest.raises(AnswerBudgetError, match="max_new_tokens=5") as caught:
        engine.submit(PROMPT, params(grammar, budget=5))
    shortest = caught.value.shortest
    assert shortest is not None
    generation = engine.generate([PROMPT], params(grammar, budget=shortest))[0]
    jsonschema.validate(json.loads(generation.text), SCHEMA)
    with pytest.raises(AnswerBudgetError):
        engine.submit(PROMPT, params(grammar, budget=shortest - 1))


def test_tokens_do_not_depend_on_neighbours(engine: Engine) -> None:
    grammar = Grammar.json_schema(SCHEMA)
    alone = engine.generate([PROMPT], params(grammar, seed=5))[0]
    others = [SamplingParams(seed=i, max_new_tokens=40, max_denoising_steps=4) for i in range(5)]
    handles = [engine.submit([2, 40 + i, 41], p) for i, p in enumerate(others)]
    among = engine.submit(PROMPT, params(grammar, seed=5)).result()
    free = [h.result() for h in handles]
    assert among.token_ids == alone.token_ids
    for i, p in enumerate(others):
        assert engine.generate([[2, 40 + i, 41]], p)[0].token_ids == free[i].token_ids


def test_what_is_streamed_is_verified(engine: Engine) -> None:
    handle = engine.submit(PROMPT, params(Grammar.json_schema(SCHEMA), seed=2, budget=160))
    blocks = [event.text for event in handle if isinstance(event, BlockEvent)]
    assert "".join(blocks) == handle.result().text
    assert len(blocks) > 1


def test_forced_text_costs_one_step(engine: Engine) -> None:
    usage = engine.generate([PROMPT], params(Grammar.choice(["always"])))[0].usage
    assert usage.denoising_steps == 1


def test_a_right_draft_is_kept(embedded_engine: Engine) -> None:
    """Where the free answer fits, the grammar changes nothing."""
    prompt = [Message("user", "The Kelmar museum weighs 512 kilograms.\n\nHow much does the Kelmar museum weigh?")]
    free = embedded_engine.generate([prompt], SamplingParams(seed=1))[0]
    held = embedded_engine.generate([prompt], SamplingParams(seed=1, grammar=Grammar.regex(r"[A-Z][a-z A-Z0-9]*\.")))[0]
    assert held.text == free.text


VALUES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "boolean", "null"])}),
        st.builds(lambda low: {"type": "string", "minLength": low, "maxLength": low + 3}, st.integers(0, 4)),
        st.builds(lambda low: {"type": "integer", "minimum": low, "maximum": low + 50}, st.integers(-99, 99)),
        st.builds(
            lambda options: {"enum": options},
            st.lists(st.text('abc"\\é ', max_size=5), min_size=1, max_size=4, unique=True),
        ),
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda properties, count: {
                "type": "object",
                "properties": properties,
                "required": list(properties)[:count],
                "additionalProperties": False,
            },
            st.dictionaries(st.text("abcxyz_", min_size=1, max_size=4), inner, max_size=3),
            st.integers(0, 3),
        ),
        st.builds(
            lambda items, low: {"type": "array", "items": items, "minItems": low, "maxItems": low + 2},
            inner,
            st.integers(0, 2),
        ),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=VALUES, seed=st.integers(0, 1000))
def test_any_schema_is_fitted(engine: Engine, schema: dict[str, Any], seed: int) -> None:
    generation = engine.generate([PROMPT], params(Grammar.json_schema(schema), seed, budget=200))[0]
    jsonschema.validate(json.loads(generation.text), schema)
