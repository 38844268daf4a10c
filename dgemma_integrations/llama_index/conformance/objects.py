"""The four ways to ask for an object."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate

from .base import ConformanceBase
from .calls import run

SYSTEM = "You fill in forms for a clerk named Brontes."
PROMPT = PromptTemplate("Fill in the form from this text: {text}")
TEXT = "Anna, 31, lives in Kerl {sic}."
METHODS = ("structured_predict", "astructured_predict", "stream_structured_predict", "astream_structured_predict")
each_method = pytest.mark.parametrize("method", METHODS)


class ObjectBase(ConformanceBase):
    """Helpers of the tests of objects."""

    def objects(self, llm: LLM, method: str, output_cls: type[BaseModel], **kwargs: Any) -> list[Any]:
        """All objects of one call: one, or a stream's."""
        kwargs = {"prompt": PROMPT, "text": TEXT, "llm_kwargs": self.limit(self.structured_max_tokens), **kwargs}
        prompt = kwargs.pop("prompt")

        async def work() -> list[Any]:
            result = await getattr(llm, method)(output_cls, prompt, **kwargs)
            return [item async for item in result] if "stream" in method else [result]

        if method.startswith("a"):
            return run(work())
        result = getattr(llm, method)(output_cls, prompt, **kwargs)
        return list(result) if "stream" in method else [result]

    def _needs_stream(self, method: str) -> None:
        if "stream" in method and not self.streams_structured_output:
            pytest.skip(f"{type(self).__name__}.streams_structured_output is False")
