"""From a request to a sequence: what its answer must look like, how long it may be, how long it takes."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from dgemma_core import Grammar, LoadSpec, Message, Request, RequestHandle, SamplingParams
from dgemma_core.checkpoint.description import describe
from dgemma_core.engine.admission import _LONG_PROMPT, Admission, answer_grammar, is_quick
from dgemma_core.engine.checkpoint_parts import CheckpointParts
from dgemma_core.errors import ContextOverflowError
from tests.checkpoints import make_model
from tests.core.engine.making import tokenizer
from tests.helpers.pictures import img

HELLO = [Message("user", "Hello")]
GRAMMAR = Grammar.choice(["red", "blue"])
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


class Cancels:
    """Notes what is cancelled."""

    def __init__(self) -> None:
        self.seen: list[RequestHandle] = []

    def cancel(self, handle: RequestHandle) -> None:
        self.seen.append(handle)


@pytest.fixture(scope="module")
def parts() -> CheckpointParts:
    model = make_model()
    parts = CheckpointParts(LoadSpec())
    parts.adopt(describe(tokenizer(), model.config, model.generation_config))
    return parts


CANCELS = Cancels()


def admission(parts: CheckpointParts, **spec: Any) -> Admission:
    return Admission(parts, LoadSpec(**spec), weakref.WeakMethod(CANCELS.cancel))


# What an answer must look like.


def test_without_tools_and_grammar_anything_goes() -> None:
    for choice in (None, "none", "auto"):
        assert answer_grammar(Request(HELLO, tool_choice=choice)) is None


def test_a_grammar_alone_is_taken_as_it_is() -> None:
    assert answer_grammar(Request(HELLO, SamplingParams(grammar=GRAMMAR))) is GRAMMAR
    asked = Request(HELLO, SamplingParams(grammar=GRAMMAR), tools=[TOOL], tool_choice="none")
    assert answer_grammar(asked) is GRAMMAR


def test_tools_make_a_grammar() -> None:
    free, forced, named = (
        answer_grammar(Request(HELLO, tools=[TOOL], tool_choice=choice)) for choice in (None, "any", "f")
    )
    assert free is not None
    assert forced is not None
    assert named is not None
    assert free == answer_grammar(Request(HELLO, tools=[TOOL], tool_choice="auto"))
    assert free != forced
    assert forced == answer_grammar(Request(HELLO, tools=[TOOL], tool_choice="required"))


def test_a_grammar_beside_tools_is_the_other_way_to_answer() -> None:
    json = SamplingParams(grammar=Grammar.json())
    both = answer_grammar(Request(HELLO, json, tools=[TOOL]))
    assert both not in (None, json.grammar, answer_grammar(Request(HELLO, tools=[TOOL])))
    for choice in ("any", "required", "f"):
        with pytest.raises(ValueError, match=f"tool_choice='{choice}'"):
            answer_grammar(Request(HELLO, json, tools=[TOOL], tool_choice=choice))


def test_a_choice_without_tools_is_named() -> None:
    with pytest.raises(ValueError, match="tool"):
        answer_grammar(Request(HELLO, tool_choice="any"))


def test_thoughts_before_a_grammar_make_another_one() -> None:
    json = Grammar.json()
    thinking = answer_grammar(Request(HELLO, SamplingParams(grammar=json), thinking=True))
    assert thinking not in (None, json)


# How long it takes to queue.


@pytest.mark.parametrize(
    ("request_", "quick"),
    [
        (Request("x" * (_LONG_PROMPT - 1)), True),
        (Request("x" * _LONG_PROMPT), False),
        (Request([2, 3, 4]), True),
        (Request(HELLO), True),
        (Request([Message("user", "x" * (_LONG_PROMPT // 2)), Message("user", "x" * (_LONG_PROMPT // 2))]), False),
        (Request([Message("user", ["see ", img(1)])]), False),
        (Request(HELLO, tools=[TOOL]), False),
        (Request(HELLO, SamplingParams(grammar=GRAMMAR)), False),
    ],
)
def test_quick_requests(request_: Request, quick: bool) -> None:
    assert is_quick(request_) is quick


# Rendering and room.


def test_a_sequence_is_what_was_asked_for(parts: CheckpointParts) -> None:
    params = SamplingParams(max_new_tokens=20, canvas_length=8, drafts=True, stop=("x",), seed=3)
    sequence = admission(parts).sequence(Request([2, 30, 31], params, timeout=60.0))
    assert sequence.tokens == [2, 30, 31]
    assert (sequence.max_new_tokens, sequence.settings.canvas_length, sequence.drafts) == (20, 8, True)
    assert sequence.guide is None
    assert sequence.costs.deadline is not None
    assert sequence.generator.initial_seed() == 3
    sequence.handle.cancel()
    assert CANCELS.seen[-1] is sequence.handle


def test_a_grammar_gives_a_sequence_its_guide(parts: CheckpointParts) -> None:
    assert admission(parts).sequence(Request("Hello", SamplingParams(grammar=GRAMMAR))).guide is not None


def test_texts_begin_with_the_beginning_of_a_sequence(parts: CheckpointParts) -> None:
    ids = admission(parts).render("Hello").ids
    assert ids[0] == 2
    assert ids[1:] == parts.template.plain("Hello")
    assert admission(parts).render([5, 6]).ids == [5, 6]


def test_an_unknown_token_is_named(parts: CheckpointParts) -> None:
    with pytest.raises(ValueError, match=r"512.*below 512"):
        admission(parts).render([2, 512])


def test_room_is_what_was_asked_for(parts: CheckpointParts) -> None:
    limited = admission(parts, max_context=100)
    assert limited.context_window == 100
    assert admission(parts, max_context=10**9).context_window == 2048
    assert limited.room(60, 40) == 40
    with pytest.raises(ContextOverflowError) as caught:
        limited.room(60, 41)
    assert (caught.value.prompt_tokens, caught.value.max_new_tokens, caught.value.context_window) == (60, 41, 100)


def test_a_default_length_gives_way_to_the_prompt(parts: CheckpointParts) -> None:
    limited = admission(parts, max_context=100)
    default = parts.description.max_new_tokens
    assert limited.room(10, None) == default
    assert limited.room(90, None) == 10
    with pytest.raises(ContextOverflowError):
        limited.room(100, None)
