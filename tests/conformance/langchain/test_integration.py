"""LangChain's own integration suite for chat models, unchanged, on the checkpoint inside the package."""

from __future__ import annotations

from functools import reduce
from importlib import resources
from operator import add
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from dgemma_core import Grammar
from dgemma_integrations.langchain import ChatDiffusionGemma

_Detail = Literal["audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"]
_CONTEXT = "The Vexal bridge was built in 1931. The owner of the Vexal bridge is Kira Vonel."


class TestChatDiffusionGemma(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatDiffusionGemma

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "embedded", "max_tokens": 64, "parallel_tool_calls": False}

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        # Another checkpoint, for which every checkout has the weights: the same ones under their folder's name.
        return str(resources.files("dgemma_core") / "embedded")

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[_Detail]]:
        return {"invoke": ["reasoning_output", "cache_read_input"], "stream": ["reasoning_output", "cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        model = self.chat_model_class(**self.chat_model_params)
        model.invoke(_CONTEXT)
        message = self._ask(model, stream)
        assert message.usage_metadata is not None
        assert message.usage_metadata["input_token_details"]["cache_read"] > 0
        return message

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        # These weights never think by themselves; the grammar makes them.
        thought = Grammar.lark('start: <|channel> "thought\\n" /[a-z ]{10,20}/ <channel|> /[a-z ]{5,20}/')
        message = self._ask(self.chat_model_class(**self.chat_model_params), stream, grammar=thought)
        assert message.usage_metadata is not None
        assert message.usage_metadata["output_token_details"]["reasoning"] > 0
        return message

    @staticmethod
    def _ask(model: BaseChatModel, stream: bool, **settings: Any) -> AIMessage:
        return reduce(add, model.stream(_CONTEXT, **settings)) if stream else model.invoke(_CONTEXT, **settings)

    # What the checkpoint can see is for its profile to say.

    @property
    def supports_image_inputs(self) -> bool:
        return self._profile("image_inputs")

    @property
    def supports_image_urls(self) -> bool:
        return self._profile("image_url_inputs")

    @property
    def supports_image_tool_message(self) -> bool:
        return self._profile("image_tool_message")

    def _profile(self, name: str) -> bool:
        return bool((self.chat_model_class(**self.chat_model_params).profile or {}).get(name))
