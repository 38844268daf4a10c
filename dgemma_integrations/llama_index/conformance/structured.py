"""Structured output: ``structured_predict`` and its variants."""

from __future__ import annotations

import pytest
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import ChatPromptTemplate, SelectorPromptTemplate

from .base import needs
from .forms import MODELS, Flat, Nested
from .objects import METHODS, PROMPT, SYSTEM, each_method
from .recording import recorded
from .structured_components import StructuredComponentTests


class StructuredTests(StructuredComponentTests):
    """Objects. Their fields are bounded, so that an LLM can guarantee a valid object within few tokens."""

    @needs("has_structured_output")
    @pytest.mark.parametrize("model", list(MODELS))
    @each_method
    def test_object_is_valid(self, llm: LLM, method: str, model: str) -> None:
        """Fails: extractors, selectors, query engines and agents (``output_cls``) get no object, or one whose fields
        have wrong types.
        """
        self._needs_stream(method)
        output_cls = MODELS[model]
        items = self.objects(llm, method, output_cls)
        assert items
        for item in items:
            assert isinstance(item, BaseModel)
        assert isinstance(items[-1], output_cls)
        # Streams may build objects without validation.
        assert output_cls.model_validate_json(items[-1].model_dump_json()) == items[-1]

    @needs("has_structured_output", "is_deterministic")
    def test_all_ways_agree(self, llm: LLM) -> None:
        """Fails: the object depends on the method. A stream keeps less, or async drops the system prompt."""
        found = {}
        for method in METHODS:
            if "stream" not in method or self.streams_structured_output:
                found[method] = self.objects(llm, method, Nested)[-1]
        assert len({item.model_dump_json() for item in found.values()}) == 1, found

    @needs("has_structured_output")
    @each_method
    def test_system_prompt_is_used(self, method: str) -> None:
        """Fails: ``LLM.system_prompt`` is lost. Core's own ``FunctionCallingProgram.acall`` forgets it."""
        self._needs_stream(method)
        llm = self.make(system_prompt=SYSTEM)
        with recorded() as events:
            self.objects(llm, method, Flat)
        assert SYSTEM in events.prompted()
        assert "Anna, 31, lives in Kerl {sic}." in events.prompted()

    @needs("has_structured_output")
    @each_method
    def test_one_event_per_object(self, llm: LLM, method: str) -> None:
        """Fails: traces miss structured calls, or show them twice. Overrides often forget these events."""
        self._needs_stream(method)
        with recorded() as events:
            items = self.objects(llm, method, Flat)
        assert len(events.named("LLMStructuredPredictStartEvent")) == 1
        (end,) = events.named("LLMStructuredPredictEndEvent")
        assert end.output == items[-1]
        assert len(events.starts) == len(events.ends) == 1

    @needs("has_structured_output", "reports_usage")
    @each_method
    def test_usage_of_objects(self, llm: LLM, method: str) -> None:
        """Fails: structured calls cost nothing in token counters."""
        self._needs_stream(method)
        counter = TokenCountingHandler(tokenizer=lambda text: ["x"] * 12345)
        llm.callback_manager = CallbackManager([counter])
        self.objects(llm, method, Flat)
        (count,) = counter.llm_token_counts
        assert 0 < count.prompt_token_count < 12345
        assert 0 < count.completion_token_count < 12345

    @needs("has_structured_output")
    def test_prompts_of_other_kinds(self, llm: LLM) -> None:
        """Fails: two kinds of core's own prompts cannot be used: chat templates, and selectors that look at the LLM."""
        template = ChatPromptTemplate.from_messages([("system", "Fill in forms."), ("user", "{text}")])
        selector = SelectorPromptTemplate(
            default_template=PROMPT,
            conditionals=[(lambda llm: bool(llm.metadata.context_window), template)],
        )
        for prompt in (template, selector):
            assert isinstance(self.objects(llm, METHODS[0], Flat, prompt=prompt)[-1], Flat)
        with recorded() as events:
            self.objects(llm, METHODS[1], Flat, prompt=selector)
        assert "Fill in forms." in events.prompted()

    @needs("has_structured_output", "supports_max_tokens")
    @each_method
    def test_no_room_is_an_error(self, llm: LLM, method: str) -> None:
        """Fails: half an object is taken for a whole one, and ``None`` fields end up in an index."""
        if "stream" in method:
            pytest.skip("a stream shows partial objects by design")
        with pytest.raises(Exception) as caught:  # noqa: PT011
            pytest.fail(f"made {self.objects(llm, method, Nested, llm_kwargs=self.limit(1))[-1]!r} of one token")
        assert str(caught.value)
        assert not isinstance(caught.value, AssertionError | AttributeError | KeyError), repr(caught.value)
