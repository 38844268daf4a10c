"""Answers always fit their grammar, for any weights: random ones, trained ones, alone and among others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgemma_core import BlockEvent, Engine, Grammar, Message, SamplingParams
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.guide import Rows
from dgemma_core.denoise.settings import DenoiseSettings
from dgemma_core.errors import AnswerBudgetError
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.cursor import GrammarCursor
from dgemma_core.structured.matcher import GrammarCompiler
from dgemma_core.structured.region import GrammarRegion
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


@pytest.fixture(scope="module")
def alphabet() -> Alphabet:
    tokenizer = make_tokenizer()
    return Alphabet(tokenizer, len(tokenizer), frozenset({1}))


def cursor_of(alphabet: Alphabet, grammar: Grammar, room: int, ends: frozenset[int] | None = None) -> GrammarCursor:
    return GrammarCursor(GrammarCompiler(alphabet).matcher(grammar), alphabet, (), room, ends)


def rows_for(alphabet: Alphabet, length: int, tokens: list[int]) -> torch.Tensor:
    """Logits of so many positions that are sure of these tokens."""
    logits = torch.zeros(length, alphabet.vocab_size)
    logits[torch.arange(len(tokens)), torch.tensor(tokens)] = 12.0
    return logits


def letters(alphabet: Alphabet, text: bytes) -> list[int]:
    """A token for every byte."""
    token_of = {byte: token for token, byte in alphabet.byte_of.items()}
    return [token_of[byte] for byte in text]


def params(grammar: Grammar | None, seed: int = 0, budget: int = 80, **more: Any) -> SamplingParams:
    return SamplingParams(grammar=grammar, seed=seed, max_new_tokens=budget, max_denoising_steps=4, **more)


@pytest.mark.parametrize("budget", [60, 90, 180])
def test_schema_holds_over_several_canvases(engine: Engine, budget: int) -> None:
    for seed in range(4):
        generation = engine.generate([PROMPT], params(Grammar.json_schema(SCHEMA), seed, budget))[0]
        jsonschema.validate(json.loads(generation.text), SCHEMA)
        assert generation.finish_reason == "stop"
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


def test_a_mistake_is_looked_for_before_where_it_shows(alphabet: Alphabet) -> None:
    """`setch_lunch` is refused at its second letter; by the letters behind it the first one is wrong."""
    cursor = cursor_of(alphabet, Grammar.choice(["fetch_lunch", "start_car", "stop"]), 40)
    draft = letters(alphabet, b"setch_lunch")
    first = letters(alphabet, b"f")
    assert cursor.fits(draft) == 1
    assert cursor.forced_after(first)
    logits = rows_for(alphabet, len(draft), draft)
    logits[0, first] = 8.0
    found = cursor.search(logits, 2)
    assert found is not None
    assert (alphabet.bytes_of(found[0]), found[1]) == (b"fe", False)
    found = cursor.search(rows_for(alphabet, 12, [*letters(alphabet, b"tch_lunch"), 1, 1, 1]), 12)
    assert found is not None
    assert (alphabet.bytes_of(found[0]), found[1]) == (b"tch_lunch", True)
    assert cursor.stopped


class GivenRows(Rows):
    """Distributions of positions that are known beforehand."""

    def __init__(self, logits: torch.Tensor) -> None:
        self._given = logits

    def logits(self, start: int, stop: int) -> torch.Tensor:
        return self._given[start:stop]


@pytest.mark.parametrize(("sureness", "verified"), [(12.0, b"Wheat"), (0.0, b"check_wood")])
def test_what_must_follow_and_what_is_drafted_are_weighed(alphabet: Alphabet, sureness: float, verified: bytes) -> None:
    """A sure first letter that leaves one name only must not bring in the rest of it against all that is drafted."""
    settings = DenoiseSettings(12, 48, 0.1, 0.4, 0.8, 1, 0.02, True)
    canvas = Canvas(settings, alphabet.vocab_size, torch.tensor([1]), 12, torch.Generator())
    logits = rows_for(alphabet, 12, letters(alphabet, b"cheat"))
    # Behind the first letter the draft is sure, or as good as noise.
    logits[1:] *= sureness / 12
    logits[0, letters(alphabet, b"W")] = 4.0
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    drafted = torch.tensor([*letters(alphabet, b"cheat"), *[1] * 7])
    canvas.advance(drafted, drafted, entropy)
    canvas.steady = torch.arange(12) == 0
    region = GrammarRegion(cursor_of(alphabet, Grammar.choice(["check_wood", "Wheat"]), 12))
    at = region.review(canvas, 0, 12, False, GivenRows(logits))
    assert alphabet.bytes_of(canvas.draft(0, at)) == verified
    assert region.complete


def test_an_end_fits_where_the_text_is_complete(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, Grammar.regex("ab+c?"), 9)
    a, b = letters(alphabet, b"ab")
    assert cursor.fits([a, b, 1, a]) == 4
    assert cursor.fits([a, 1, b]) == 1
    assert cursor.fits([a, b, a]) == 2
    assert cursor.forced_after([a, b, 1]) == []


@pytest.mark.parametrize("text", [b"see ", b"s", b"plaid"])
def test_a_search_does_not_take_a_control_token_for_its_characters(alphabet: Alphabet, text: bytes) -> None:
    """Where characters spell a control token, the grammar engine's mask holds the token, which it then refuses."""
    cursor = cursor_of(alphabet, Grammar.choice(["plain", "see <|think|>"]), 40)
    found = cursor.search(rows_for(alphabet, 9, letters(alphabet, text)), 7)
    assert found is None or b"see <|think|>plain".find(alphabet.bytes_of(found[0])) in (0, 13)


def test_what_closes_a_hole_ends_its_text(alphabet: Alphabet) -> None:
    pad, digit = 0, letters(alphabet, b"7")
    grammar = Grammar.regex("[0-9]+")
    assert cursor_of(alphabet, grammar, 9).fits([*digit, pad, pad]) == 1
    cursor = cursor_of(alphabet, grammar, 9, frozenset({pad, 1}))
    assert cursor.fits([*digit, pad, pad]) == 3
    assert cursor.fits([pad, *digit]) == 0
    assert cursor.take([*digit, pad, pad]) == (digit, True)


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
