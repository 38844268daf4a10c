"""Components that use ``structured_predict``: structured LLMs, programs, query engines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms.llm import LLM
from llama_index.core.program.function_program import FunctionCallingProgram

from .base import needs
from .calls import chat, run
from .forms import Flat, Nested
from .objects import PROMPT, TEXT, ObjectBase
from .recording import recorded


class StructuredComponentTests(ObjectBase):
    """Objects from core's components."""

    @needs("has_structured_output")
    @pytest.mark.parametrize("endpoint", ["chat", "achat", "complete", "acomplete", "stream_chat", "astream_chat"])
    def test_as_structured_llm(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``llm.as_structured_llm(cls)`` breaks. Agents with ``output_cls`` and query engines use it."""
        self._needs_stream(endpoint)
        structured = llm.as_structured_llm(Nested)
        responses = self.call(structured, endpoint, TEXT, **self.limit(self.structured_max_tokens))
        last = responses[-1]
        assert isinstance(last.raw, Nested)
        text = last.message.content if "chat" in endpoint else last.text
        assert Nested.model_validate(json.loads(text)) == last.raw

    @needs("has_structured_output")
    def test_several_messages(self, llm: LLM) -> None:
        """Fails: a structured LLM reads only a part of the conversation."""
        messages = [*chat("Anna is 31."), *chat("She lives at Kerl 4 {sic}.")]
        with recorded() as events:
            response = llm.as_structured_llm(Flat).chat(messages, **self.limit(self.structured_max_tokens))
        assert isinstance(response.raw, Flat)
        assert "Anna is 31." in events.prompted()
        assert "{sic}" in events.prompted()

    @needs("can_force_tools", "has_structured_output")
    @pytest.mark.parametrize("way", ["call", "acall", "stream_call", "astream_call"])
    def test_function_calling_program(self, llm: LLM, way: str) -> None:
        """Fails: everything breaks that asks for this program by name: ``PydanticProgramMode.FUNCTION``, the selector
        of ``RouterQueryEngine``, ``SchemaLLMPathExtractor``.
        """
        self._needs_stream(way)
        program = FunctionCallingProgram.from_defaults(output_cls=Nested, llm=llm, prompt=PROMPT)
        kwargs: dict[str, Any] = {"text": TEXT, "llm_kwargs": self.limit(self.structured_max_tokens)}

        async def work() -> Any:
            if way == "acall":
                return await program.acall(**kwargs)
            return [item async for item in await program.astream_call(**kwargs)][-1]

        if way == "call":
            item = program(**kwargs)
        elif way == "stream_call":
            # Core does not force the tool here.
            item = list(program.stream_call(**kwargs))[-1]
        else:
            item = run(work())
        if "stream" in way:
            assert isinstance(item, BaseModel)
            return
        assert isinstance(item, Nested)

    @needs("has_structured_output")
    @pytest.mark.parametrize("use_async", [False, True])
    def test_query_engine_with_output_cls(self, llm: LLM, use_async: bool) -> None:
        """Fails: ``as_query_engine(output_cls=...)`` breaks."""
        from llama_index.core.response_synthesizers import get_response_synthesizer

        synthesizer = get_response_synthesizer(llm=llm, response_mode="tree_summarize", output_cls=Flat)  # type: ignore[arg-type]
        answer: Any
        if use_async:
            answer = run(synthesizer.aget_response("Who?", ["Anna is 31.", "Kerl is a town."]))
        else:
            answer = synthesizer.get_response("Who?", ["Anna is 31.", "Kerl is a town."])
        assert isinstance(answer, Flat)
