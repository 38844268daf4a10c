from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dgemma_core import Engine, LoadSpec
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM

# Random weights: the texts mean nothing, but they are long enough for several canvases and the same every time.
PROMPT = "The quick brown fox jumps over the lazy dog."


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
