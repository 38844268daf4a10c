"""The suite against ``llama-index-llms-huggingface`` 0.8.0, where that is installed: a tiny random Llama, greedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

huggingface = pytest.importorskip("llama_index.llms.huggingface")

from llama_index.core.llms.llm import LLM  # noqa: E402

from tests.checkpoints import make_tokenizer  # noqa: E402
from tests.conformance.llama_index.suite import LLMConformance  # noqa: E402


@pytest.fixture(scope="module")
def tiny_llama() -> Any:
    """A model of transformers with a window of 256 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


class TestHuggingFaceLLM(LLMConformance):
    max_tokens_kwarg = "max_new_tokens"

    @pytest.fixture(autouse=True)
    def _model(self, tiny_llama: Any) -> None:
        self.model = tiny_llama

    @property
    def llm_class(self) -> type[LLM]:
        return huggingface.HuggingFaceLLM  # type: ignore[no-any-return]

    @property
    def llm_params(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "tokenizer": make_tokenizer(),
            "context_window": 256,
            "max_new_tokens": 16,
            "is_chat_model": True,
            "generate_kwargs": {"do_sample": False},
        }

    @property
    def slow_params(self) -> dict[str, Any]:
        return {"max_new_tokens": 200}

    @property
    def known_failures(self) -> Mapping[str, str]:
        return {}
