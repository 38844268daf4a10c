r"""Halves of surrogate pairs in text: extractors of PDF files leave them, e.g. "\ud835" alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from dgemma_core import Grammar, Message, Question, Request, SamplingParams, ToolCall
from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.surrogates import without_surrogates
from dgemma_core.structured.tool_grammar import tool_grammar

HALF, MARK = "\ud835", "\ufffd"


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("1907. \ud835", "1907. \ufffd"),
        ("\udc00\ud835a", "\ufffd\ufffda"),
        ("\ud835\udc00", "\U0001d400"),
        ("\ud835\ud835\udc00\udc00", "\ufffd\U0001d400\ufffd"),
        ("\udbff\udfff \ud800\udc00", "\U0010ffff \U00010000"),
        ("été \U0001d400", "été \U0001d400"),
    ],
)
def test_two_halves_make_a_character_and_others_are_replaced(text: str, repaired: str) -> None:
    assert without_surrogates(text) == repaired
    assert without_surrogates({text: [text, (text,), 1, None]}) == {repaired: [repaired, (repaired,), 1, None]}


def test_a_value_without_halves_stays_the_same_object() -> None:
    for value in ("été", {"a": ["b", 1.0]}, ("a",), None):
        assert without_surrogates(value) is value


def test_keys_that_would_become_one_are_refused() -> None:
    with pytest.raises(ValueError, match="two of them differ only in halves of surrogate pairs"):
        ToolCall("f", dict.fromkeys(["a\ud835", "a\ud836"], 1))
    with pytest.raises(ValueError, match=r"options=.*different names"):
        Question("choice", "which?", ["a\ud835", "a\ud836"])


def _values(text: str) -> list[JsonForm]:
    tool = {"type": "function", "function": {"name": "f", "description": text, "parameters": {"enum": [text]}}}
    call = ToolCall(text, {text: [{"a": text}]}, text)
    schema = {"description": text, "properties": {text: {"const": text}, "b": {"enum": [text], "pattern": text}}}
    return [
        call,
        Message("assistant", [text, "a"], (call,)),
        Message("tool", text, tool_call_id=text, name=text),
        Request(text, SamplingParams(stop=(text, f"a{text}"))),
        Request([Message("user", text)], tools=[tool], tool_choice=text),
        Question("bool", text),
        Question("choice", text, [text, "b"]),
        Question("score", text, {text: text, "b": text}),
        Grammar.choice([text, "b", text]),
        Grammar.regex(f"a{text}"),
        Grammar.lark(f'start: "{text}"'),
        Grammar.json_schema(schema),
        Grammar.json_schema(json.dumps(schema)),
        Grammar("choice", json.dumps([text])),
        Grammar("json_schema", json.dumps(schema)),
    ]


@pytest.mark.parametrize(("half", "whole"), [(HALF, MARK), ("\ud835\udc00", "\U0001d400")])
def test_every_value_of_a_request_is_repaired_when_it_is_made(half: str, whole: str) -> None:
    for broken, wanted in zip(_values(half), _values(whole), strict=True):
        if isinstance(broken, Grammar) and broken.kind in ("json_schema", "choice"):
            assert (broken.kind, json.loads(broken.source)) == (wanted.kind, json.loads(wanted.source))  # type: ignore[attr-defined]
        else:
            assert broken == wanted
        data: Any = json.loads(json.dumps(broken.to_dict(), ensure_ascii=False).encode())
        assert type(broken).from_dict(data) == broken


def test_a_message_joins_its_texts_before_they_are_repaired() -> None:
    assert Message("user", ["\ud835", "\udc00"]).content == "\U0001d400"


@pytest.mark.parametrize(
    ("escaped", "wanted"),
    [
        (r"a\ud835", "a\ufffd"),
        (r"\uD835\uDC00", "\U0001d400"),
        (r"\u{d835}", "\ufffd"),
        (r"\{\ud835}", "{\ufffd}"),
        (r"[\ud835\udc00-\ud835\udc10]", "\U0001d410"),
        (r"\ud835{2}", "\ufffd\ufffd"),
    ],
)
def test_patterns_that_spell_a_half_with_escapes_are_repaired(escaped: str, wanted: str) -> None:
    tokenizer = LLTokenizer("byte")
    for grammar in (
        Grammar.regex(escaped),
        Grammar.json_schema({"type": "string", "pattern": f"^{escaped}$"}),
        Grammar.lark(f"start: /{escaped}/"),
    ):
        tokens = tokenizer.tokenize_str(f'"{wanted}"' if grammar.kind == "json_schema" else wanted)
        matcher = LLMatcher(tokenizer, grammar.compiled(), log_level=0)
        assert matcher.try_consume_tokens(tokens) == len(tokens)
        assert matcher.is_accepting()
    parameters = {"type": "object", "properties": {"a": {"type": "string", "pattern": escaped}}}
    assert tool_grammar([{"name": "f", "parameters": parameters}]).compiled()


def test_a_backslash_before_the_escape_of_a_half_is_a_backslash() -> None:
    assert Grammar.regex(r"\\ud835").source == r"\\ud835"
