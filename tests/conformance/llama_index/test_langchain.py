"""The suite against ``llama-index-llms-langchain`` 0.9.0, where that is installed, around this project's LangChain
model: what would be lost without a native class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

langchain = pytest.importorskip("llama_index.llms.langchain")

from llama_index.core.llms.llm import LLM  # noqa: E402

from dgemma_integrations.langchain import ChatDiffusionGemma  # noqa: E402
from tests.conformance.llama_index.suite import LLMConformance  # noqa: E402


class TestLangChainLLM(LLMConformance):
    prompt = "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?"

    @pytest.fixture(autouse=True)
    def _checkpoints(self, tiny_checkpoint: str) -> None:
        self.tiny_checkpoint = tiny_checkpoint

    @property
    def llm_class(self) -> type[LLM]:
        return langchain.LangChainLLM  # type: ignore[no-any-return]

    @property
    def llm_params(self) -> dict[str, Any]:
        return {"llm": ChatDiffusionGemma(temperature=0, max_tokens=32, max_denoising_steps=4)}

    @property
    def slow_params(self) -> dict[str, Any]:
        return {
            "llm": ChatDiffusionGemma(
                model=self.tiny_checkpoint,
                temperature=0,
                max_tokens=96,
                canvas_length=8,
                max_denoising_steps=6,
                stop_at_eos=False,
            )
        }

    @property
    def known_failures(self) -> Mapping[str, str]:
        return {}
