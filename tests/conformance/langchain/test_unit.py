"""LangChain's own unit suite for chat models, unchanged."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from dgemma_integrations.langchain import ChatDiffusionGemma


class TestChatDiffusionGemma(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatDiffusionGemma

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "embedded"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        # The suite's own, without the API key: a model in this process has none and refuses unknown keywords.
        return {"temperature": 0, "max_tokens": 100, "timeout": 60, "stop": [], "max_retries": 2}

    @property
    def model_override_value(self) -> str:
        return "google/diffusiongemma-26B-A4B-it"
