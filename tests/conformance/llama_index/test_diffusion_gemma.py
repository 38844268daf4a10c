"""``DiffusionGemma`` against the LlamaIndex conformance suite."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.llms.llm import LLM

from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.llama_index.conformance import LLMConformance


class TestDiffusionGemma(LLMConformance):
    """The embedded checkpoint, as a user makes it."""

    refuses_unknown_kwargs = True
    supports_images = True
    prompt = "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?"

    @pytest.fixture(autouse=True)
    def _checkpoints(self, tiny_checkpoint: str) -> None:
        self.tiny_checkpoint = tiny_checkpoint

    @property
    def llm_class(self) -> type[LLM]:
        return DiffusionGemma

    @property
    def llm_params(self) -> dict[str, Any]:
        return {"max_tokens": 32}

    @property
    def slow_params(self) -> dict[str, Any]:
        # Random weights that never end their answer: hundreds of small canvases.
        return {
            "model": self.tiny_checkpoint,
            "max_tokens": 96,
            "canvas_length": 8,
            "max_denoising_steps": 6,
            "stop_at_eos": False,
        }

    @property
    def other_params(self) -> dict[str, Any]:
        return {"max_tokens": 3}

    @property
    def formatted_prompt(self) -> str:  # type: ignore[override]
        return str(
            DiffusionGemma().engine.tokenizer.apply_chat_template(
                [{"role": "user", "content": self.prompt}], tokenize=False, add_generation_prompt=True
            )
        )

    def busy(self, llm: LLM) -> bool | None:
        assert isinstance(llm, DiffusionGemma)
        stats = llm.engine.stats()
        return bool(stats.running or stats.waiting)
