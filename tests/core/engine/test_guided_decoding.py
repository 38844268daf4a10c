"""Answers that a grammar holds may be written in a way of their own."""

from __future__ import annotations

import pytest
from transformers.models.diffusion_gemma.generation_diffusion_gemma import DiffusionGemmaGenerationConfig

from dgemma_core import Engine, Generation, Grammar, LoadSpec, Message, SamplingParams
from dgemma_core.checkpoint.description import describe, read_description
from dgemma_core.errors import CheckpointError

ASK = [Message("user", "The Halur bridge was built in 1907.\n\nWhen was the Halur bridge built?")]
YEAR = Grammar.regex("It was built in [0-9]{4}\\.")


def answer(engine: Engine, **settings: object) -> Generation:
    return engine.generate([ASK], SamplingParams(max_new_tokens=40, **settings))[0]  # type: ignore[arg-type]


def test_the_embedded_checkpoint_denoises_what_a_grammar_holds(embedded_engine: Engine) -> None:
    free, guided = answer(embedded_engine), answer(embedded_engine, grammar=YEAR)
    asked = answer(embedded_engine, grammar=YEAR, decoding="diffusion", seed=0)
    verified = answer(embedded_engine, grammar=YEAR, decoding="verified")
    assert guided.token_ids == asked.token_ids
    assert guided.usage.positions == asked.usage.positions != verified.usage.positions
    assert free.token_ids == answer(embedded_engine, decoding="verified").token_ids


def test_such_answers_repeat_without_a_temperature(embedded_engine: Engine) -> None:
    found = {answer(embedded_engine, grammar=YEAR).usage.positions for _ in range(3)}
    assert len(found) == 1


def test_a_wrong_way_in_config_json_is_named() -> None:
    known = read_description(LoadSpec())
    known.config.dgemma_guided_decoding = "typing"
    with pytest.raises(CheckpointError, match="dgemma_guided_decoding='typing'"):
        describe(known.tokenizer, known.config, DiffusionGemmaGenerationConfig())
