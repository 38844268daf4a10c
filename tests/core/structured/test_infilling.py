"""Infilling: what is given stays, holes close up, grammars hold inside of holes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dgemma_core import Engine, Grammar, Hole, SamplingParams
from dgemma_core.engine.infill_requests import holed_text
from dgemma_core.errors import AnswerBudgetError
from dgemma_core.structured.infill_layout import join, lay_out
from tests.checkpoints import make_model, make_tokenizer

PIECES: list[str | Hole] = ["The Vexal bridge was built in ", Hole(12), ". Workers built the Vexal bridge in 1931."]


def test_fixed_text_is_kept(embedded_engine: Engine) -> None:
    filled = embedded_engine.infill(PIECES, SamplingParams(seed=1))
    assert len(filled.holes) == 1
    assert filled.text == f"{PIECES[0]}{filled.holes[0]}{PIECES[2]}"
    assert "<pad>" not in filled.text
    assert filled.usage.canvases == 1
    assert embedded_engine.infill(PIECES, SamplingParams(seed=1)).text == filled.text


def test_grammars_hold_in_holes() -> None:
    code, number = Grammar.regex("[A-Z]{2}-[0-9]{3}"), Grammar.json_schema({"type": "integer"})
    with Engine.from_model(make_model(seed=3), make_tokenizer()) as engine:
        for seed in range(4):
            params = SamplingParams(seed=seed, max_denoising_steps=3)
            pieces = ["Code ", Hole(9, code), " and number ", Hole(5, number), " end, ", Hole(3), "."]
            filled = engine.infill(pieces, params)  # More than one canvas of 16.
            assert re.fullmatch("[A-Z]{2}-[0-9]{3}", filled.holes[0])
            assert re.fullmatch("-?[0-9]+", filled.holes[1])
            assert filled.text.startswith(f"Code {filled.holes[0]} and number {filled.holes[1]} end, ")
            assert filled.usage.canvases > 1


def test_a_text_may_begin_or_end_with_a_hole(embedded_engine: Engine) -> None:
    filled = embedded_engine.infill([Hole(6), " dates from 1907. ", Hole(6)], SamplingParams(seed=0))
    assert " dates from 1907. " in filled.text
    assert filled.text == f"{filled.holes[0]} dates from 1907. {filled.holes[1]}"


async def test_infilling_does_not_block_the_loop(embedded_engine: Engine) -> None:
    params = SamplingParams(seed=1)
    assert (await embedded_engine.ainfill(PIECES, params)).text == embedded_engine.infill(PIECES, params).text


def test_blanks_before_holes() -> None:
    layout = lay_out(["a ", Hole(2), " b"], [9], lambda text: [ord(c) for c in text], _no_grammar)
    assert layout.prompt == [9, ord("a")]
    assert layout.cells == [None, None, ord(" "), ord("b")]
    assert join(["a ", Hole(2), " b"], [" x"]) == ("a x b", ["x"])
    assert join(["a", Hole(2), "b"], [" x"]) == ("a xb", [" x"])
    assert join(["a ", Hole(2), Hole(2)], ["x ", " y"]) == ("a x  y", ["x ", " y"])
    assert join(["a ", Hole(2, Grammar.choice([" x"]))], [" x"]) == ("a  x", [" x"])


def _no_grammar(grammar: Grammar, room: int) -> Any:
    raise AssertionError


def test_bad_calls_are_named(embedded_engine: Engine) -> None:
    with pytest.raises(ValueError, match="max_tokens=0"):
        Hole(0)
    with pytest.raises(ValueError, match="grammar="):
        Hole(3, "a+")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Hole"):
        embedded_engine.infill(["no hole"])
    with pytest.raises(ValueError, match="5"):
        embedded_engine.infill(["a", Hole(2), 5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="max_new_tokens=5"):
        embedded_engine.infill(PIECES, SamplingParams(max_new_tokens=5))
    with pytest.raises(ValueError, match="stop"):
        embedded_engine.infill(PIECES, SamplingParams(stop=("x",)))
    with pytest.raises(AnswerBudgetError):
        embedded_engine.infill(["a ", Hole(2, Grammar.regex("[0-9]{9}"))])


def test_a_hole_never_holds_the_tokens_of_a_call(embedded_engine: Engine) -> None:
    pieces = ["<turn|>", Hole(12), " ", Hole(6, Grammar.regex("[a-z]{1,4}")), "."]
    sequence = holed_text(embedded_engine._admission, pieces, SamplingParams(seed=0)).sequence
    assert set(embedded_engine._admission.parts.template.call_tokens) <= set(sequence.banned)
    named = [Hole(8, Grammar.lark("start: <|tool_call> /[a-z]+/"))]
    assert holed_text(embedded_engine._admission, named, SamplingParams(seed=0)).sequence.banned == ()
