from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dgemma_core import Engine, LoadSpec
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
from tests.checkpoints import make_model, make_tokenizer

# Random weights: the texts mean nothing, but they are long enough for several canvases and the same every time.
PROMPT = "The quick brown fox jumps over the lazy dog."
# What every answer says about itself.
METADATA = {
    "model_name",
    "model_provider",
    "finish_reason",
    "forward_passes",
    "tokens_per_pass",
    "canvases",
    "denoising_steps",
    "tokens_per_step",
    "tokens_per_s",
    "timings",
}


@pytest.fixture(scope="session")
def engine(tiny_checkpoint: str) -> Iterator[Engine]:
    with Engine(LoadSpec(model=tiny_checkpoint, device="cpu")) as engine:
        engine.load()
        yield engine


@pytest.fixture
def settings(engine: Engine) -> dict[str, Any]:
    return {"engine": engine, "seed": 3, "max_tokens": 40, "max_denoising_steps": 4}


@pytest.fixture
def chat(settings: dict[str, Any]) -> ChatDiffusionGemma:
    return ChatDiffusionGemma(**settings)


@pytest.fixture
def llm(settings: dict[str, Any]) -> DiffusionGemmaLLM:
    return DiffusionGemmaLLM(**settings)


@pytest.fixture(scope="module")
def held_chat() -> Iterator[ChatDiffusionGemma]:
    """Random weights: only grammars can make its calls and structured answers right."""
    with Engine.from_model(make_model(seed=3, sharpness=0.3), make_tokenizer()) as engine:
        yield ChatDiffusionGemma(engine=engine, max_tokens=100, max_denoising_steps=3, seed=0)
