"""An answer, a call or a hole that was cut for want of room says so, and one that was not says that as well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dgemma_core import Engine, FinishedEvent, Generation, Grammar, Hole, Message, SamplingParams
from dgemma_core.errors import AnswerBudgetError

TEXT = "The Halur bridge was built in 1907. The owner of the Halur bridge is Mira Tanu."
EXTRACT = f"{TEXT}\n\nExtract as JSON with the fields year, owner: the Halur bridge."
QUESTION = f"{TEXT}\n\nWho is the owner of the Halur bridge?"
TEXTS, NUMBER = {"type": "string"}, {"type": "integer"}
WHOLE = '{"year":1907,"owner":"Mira Tanu"}'
WEIGHT = "What is the weight of Halur?"
TWO_WEIGHTS = "What is the weight of Halur and what is the weight of Zonel?"


def schema(required: int = 2, **properties: Any) -> Grammar:
    named = list(properties)[:required]
    return Grammar.json_schema(
        {"type": "object", "properties": properties, "required": named, "additionalProperties": False}
    )


def tool(**properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": "get_weight", "parameters": parameters}}


def answer(engine: Engine, ask: str, room: int, grammar: Grammar | None = None, **tools: Any) -> Generation:
    params = SamplingParams(seed=0, max_new_tokens=room, grammar=grammar)
    return engine.submit([Message("user", ask)], params, **tools).result()


# Grammar, question, the whole answer, and a room with what fits it.
KINDS: dict[str, tuple[Grammar, str, str, int, str]] = {
    "number": (schema(year=NUMBER, owner=TEXTS), EXTRACT, WHOLE, 9, '{"year":19,"owner":""}'),
    "string": (schema(year=NUMBER, owner=TEXTS), EXTRACT, WHOLE, 14, '{"year":1907,"owner":"Mira"}'),
    "optional key": (schema(1, year=NUMBER, owner=TEXTS), EXTRACT, WHOLE, 8, '{"year":1907}'),
    "map entry": (
        Grammar.json_schema({"type": "object", "additionalProperties": {"type": ["integer", "string"]}}),
        EXTRACT,
        WHOLE,
        8,
        '{"year":1907}',
    ),
    "any JSON": (Grammar.json(), EXTRACT, WHOLE, 14, '{"year":1907,"owner":"Mira"}'),
    "list": (Grammar.json_schema({"type": "array", "items": NUMBER}), EXTRACT, "", 2, "[]"),
    "choice": (Grammar.choice(["Mira", "Mira Tanu"]), QUESTION, "Mira Tanu", 5, "Mira"),
    "regex": (
        Grammar.regex("[A-Za-z ]+\\.?"),
        QUESTION,
        "The owner of the Halur bridge is Mira Tanu.",
        13,
        "The owner of the Halur bridge is Mira Tanu",
    ),
    "lark": (
        Grammar.lark('start: NAME (" " NAME)* "."?\nNAME: /[A-Za-z]+/'),
        QUESTION,
        "The owner of the Halur bridge is Mira Tanu.",
        5,
        "The owner of the Hal",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_cut_for_want_of_room_says_length(embedded_engine: Engine, kind: str) -> None:
    grammar, ask, whole, room, cut = KINDS[kind]
    short = answer(embedded_engine, ask, room, grammar)
    assert (short.text, short.finish_reason) == (cut, "length")
    full = answer(embedded_engine, ask, 128, grammar)
    assert full.finish_reason == "stop"
    if whole:
        assert full.text == whole
    exact = answer(embedded_engine, ask, len(full.token_ids), grammar)
    assert (exact.text, exact.finish_reason) == (full.text, "stop"), "an answer that fills its room exactly is whole"


def test_an_answer_says_stop_only_if_more_room_would_not_change_it(embedded_engine: Engine) -> None:
    grammar = schema(year=NUMBER, owner=TEXTS)
    rooms = range(8, 21)
    found = [answer(embedded_engine, EXTRACT, room, grammar) for room in rooms]
    assert [g.finish_reason for g in found] == ["stop" if g.text == WHOLE else "length" for g in found]
    assert {g.finish_reason for g in found} == {"stop", "length"}


@pytest.mark.parametrize("choice", ["any", "get_weight", "auto"])
def test_a_call_cut_short_says_length(embedded_engine: Engine, choice: str) -> None:
    found = [answer(embedded_engine, WEIGHT, n, tools=[tool(name=TEXTS)], tool_choice=choice) for n in (16, 17, 64)]
    assert [dict(call.arguments) for g in found for call in g.tool_calls] == [
        {"name": "Hal"},
        {"name": "Halur"},
        {"name": "Halur"},
    ]
    assert [g.finish_reason for g in found] == ["length", "tool_calls", "tool_calls"]


def test_a_call_left_out_for_want_of_room_says_length(embedded_engine: Engine) -> None:
    one, exact = (
        answer(embedded_engine, TWO_WEIGHTS, room, tools=[tool(name=TEXTS)], tool_choice="any") for room in (25, 34)
    )
    assert (len(one.tool_calls), one.finish_reason) == (1, "length")
    assert (len(exact.tool_calls), exact.finish_reason) == (2, "tool_calls")
    single = embedded_engine.submit(
        [Message("user", TWO_WEIGHTS)],
        SamplingParams(seed=0, max_new_tokens=64),
        tools=[tool(name=TEXTS)],
        tool_choice="any",
        parallel_tool_calls=False,
    ).result()
    assert (len(single.tool_calls), single.finish_reason) == (1, "tool_calls"), "the room is not what allowed one call"


def test_streams_say_length_too(embedded_engine: Engine) -> None:
    params = SamplingParams(seed=0, max_new_tokens=14, grammar=schema(year=NUMBER, owner=TEXTS))
    (end,) = (e for e in embedded_engine.submit([Message("user", EXTRACT)], params) if isinstance(e, FinishedEvent))
    assert end.generation.finish_reason == "length"
    assert json.loads(end.generation.text) == {"year": 1907, "owner": "Mira"}
    with pytest.raises(AnswerBudgetError):
        answer(embedded_engine, EXTRACT, 5, schema(year=NUMBER, owner=TEXTS))


def test_holes_cut_for_want_of_room_say_length(embedded_engine: Engine) -> None:
    def reasons(*holes: Hole) -> list[str]:
        pieces = ["The Halur bridge was built in ", holes[0], ". The owner of the Halur bridge is ", *holes[1:], "."]
        filled = embedded_engine.infill([*pieces, f" {TEXT}"], SamplingParams(seed=0))
        return [f"{text}: {reason}" for text, reason in zip(filled.holes, filled.finish_reasons, strict=True)]

    year, digits = Grammar.regex(" [0-9]{4}"), Grammar.regex(" [0-9]+")
    assert reasons(Hole(8, digits), Hole(10)) == [" 1907: stop", "Mira Tanu: stop"]
    assert reasons(Hole(3, digits), Hole(2)) == [" 19: length", "Mira: length"]
    room = len(embedded_engine.encode_text(" 1907"))
    assert reasons(Hole(room, year), Hole(10))[0] == " 1907: stop", "a filling that can have no more is whole"
