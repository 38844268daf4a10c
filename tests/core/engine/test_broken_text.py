r"""Text with half of a surrogate pair, as extractors of PDF files leave it, reaches the model with U+FFFD instead."""

from __future__ import annotations

import pytest

from dgemma_core import Engine, Grammar, Hole, Message, Question, Request, SamplingParams, ToolCall

FACT = "The Vexal bridge was built in 1931. "


def _chat(half: str) -> list[Message]:
    call = ToolCall("look_up", {"name": half, half: [half]}, "1")
    return [
        Message("system", f"Answer from the text. {half}"),
        Message("user", f"{FACT}{half}"),
        Message("assistant", half, (call,)),
        Message("tool", half, tool_call_id="1"),
        Message("user", "When was it built?"),
    ]


def _tools(half: str) -> list[dict[str, object]]:
    parameters = {"type": "object", "properties": {"a": {"enum": [half], "description": half}}, "required": ["a"]}
    return [{"type": "function", "function": {"name": "f", "description": half, "parameters": parameters}}]


@pytest.mark.parametrize(("half", "whole"), [("\ud835", "\ufffd"), ("\ud835\udc00", "\U0001d400")])
def test_a_broken_document_is_read(embedded_engine: Engine, half: str, whole: str) -> None:
    """Raw text, every kind of message, declarations of tools and counts."""
    engine = embedded_engine
    assert engine.encode_text(f"a{half}b") == engine.encode_text(f"a{whole}b")
    assert engine.encode_markup(f"<|turn>user\n{half}") == engine.encode_markup(f"<|turn>user\n{whole}")
    assert engine.count_tokens(half) == engine.count_tokens(whole)
    params = SamplingParams(seed=0, max_new_tokens=16, canvas_length=16, max_denoising_steps=3)
    for broken, wanted in (
        (Request(FACT + half, params), Request(FACT + whole, params)),
        (Request(_chat(half), params), Request(_chat(whole), params)),
        (Request(_chat(half), params, _tools(half)), Request(_chat(whole), params, _tools(whole))),
    ):
        assert engine.count_tokens(broken.prompt, broken.tools) == engine.count_tokens(wanted.prompt, wanted.tools)
        assert engine.submit(broken).result().token_ids == engine.submit(wanted).result().token_ids


@pytest.mark.parametrize(("half", "whole"), [("\ud835", "\ufffd"), ("\ud835\udc00", "\U0001d400")])
def test_an_answer_may_be_held_to_broken_text(embedded_engine: Engine, half: str, whole: str) -> None:
    """Choices, patterns, schemas and the arguments of a tool."""
    grammars = {
        Grammar.choice([f"a{half}"]): f"a{whole}",
        Grammar.regex(f"b{half}"): f"b{whole}",
        Grammar.lark(f'start: "c" "{half}"'): f"c{whole}",
        Grammar.json_schema({"const": half}): f'"{whole}"',
        Grammar.json_schema({"type": "string", "pattern": f"^{half}$"}): f'"{whole}"',
    }
    for grammar, text in grammars.items():
        answer = embedded_engine.submit("a", SamplingParams(grammar=grammar, seed=0, max_new_tokens=32)).result()
        assert answer.text == text
    asked = Request([Message("user", "go")], SamplingParams(seed=0, max_new_tokens=48), _tools(half), "any")
    (call,) = embedded_engine.submit(asked).result().tool_calls
    assert call.arguments == {"a": whole}


def test_broken_questions_and_fixed_texts(embedded_engine: Engine) -> None:
    answer = embedded_engine.decide(f"{FACT}\ud835", {"which": Question("choice", "Which?\udc00", ["a\ud835", "b"])})
    assert list(answer["which"].probabilities) == ["a\ufffd", "b"]
    filled = embedded_engine.infill(["It was \ud835 built in ", Hole(4), " \udc00."], SamplingParams(seed=0))
    assert filled.text.startswith("It was \ufffd built in ")
    assert filled.text.endswith(" \ufffd.")


def test_a_broken_stop_string_stops_at_the_replacement(embedded_engine: Engine) -> None:
    params = SamplingParams(stop=["\ud835"], seed=0, max_new_tokens=16, max_denoising_steps=3)
    assert params.stop == ("\ufffd",)
    assert embedded_engine.submit(FACT, params).result().text
