"""Structured output: ``structured_predict`` and what is built on it."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Generic, Literal, Optional, TypeVar

import pytest
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms.llm import LLM
from llama_index.core.program.function_program import FunctionCallingProgram
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, SelectorPromptTemplate

from .base import ConformanceBase, chat, needs, recorded, run

SYSTEM = "You fill in forms for a clerk named Brontes."
PROMPT = PromptTemplate("Fill in the form from this text: {text}")
TEXT = "Anna, 31, lives in Kerl {sic}."

T = TypeVar("T")


class Colour(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Flat(BaseModel):
    """A person."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=150)


class Choices(BaseModel):
    """A vote."""

    colour: Colour
    size: Literal["small", "large"]
    agreed: bool
    weight: Optional[float] = None  # noqa: UP045 (both spellings are in use)


class Lists(BaseModel):
    """A basket."""

    words: list[Literal["apple", "bread"]] = Field(min_length=1, max_length=2)
    numbers: list[bool] = Field(max_length=2)


class Street(BaseModel):
    """A street."""

    town: str = Field(max_length=10)
    number: int | None = Field(default=None, ge=0, le=999)


class Nested(BaseModel):
    """A house and who lives there."""

    street: Street
    people: list[Flat] = Field(min_length=1, max_length=2)


class Boxed(BaseModel, Generic[T]):
    """A box."""

    content: T
    full: bool


MODELS: dict[str, type[BaseModel]] = {
    "flat": Flat,
    "choices": Choices,
    "lists": Lists,
    "nested": Nested,
    "generic": Boxed[Colour],
}

METHODS = ("structured_predict", "astructured_predict", "stream_structured_predict", "astream_structured_predict")
each_method = pytest.mark.parametrize("method", METHODS)


class StructuredTests(ConformanceBase):
    """Objects. The models have bounded fields, so that an LLM that guarantees valid output can do so in few tokens."""

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

    @needs("has_structured_output")
    @pytest.mark.parametrize("model", list(MODELS))
    @each_method
    def test_object_is_valid(self, llm: LLM, method: str, model: str) -> None:
        """Fails: extractors, selectors, and ``output_cls`` of query engines and agents get no object, or one with
        fields of the wrong kind.
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
        """Fails: the object depends on the way it was asked for: a stream keeps less, async drops the system prompt."""
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
        """Fails: traces miss structured calls, or show them twice: overrides tend to forget these events."""
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
        """Fails: core's own prompts cannot be used: chat templates, and selectors that look at the LLM first."""
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
        """Fails: half an object is passed on as a whole one; ``None`` fields end up in an index."""
        if "stream" in method:
            pytest.skip("a stream shows partial objects by design")
        with pytest.raises(Exception) as caught:  # noqa: PT011
            pytest.fail(f"made {self.objects(llm, method, Nested, llm_kwargs=self.limit(1))[-1]!r} of one token")
        assert str(caught.value)
        assert not isinstance(caught.value, AssertionError | AttributeError | KeyError), repr(caught.value)

    @needs("has_structured_output")
    @pytest.mark.parametrize("endpoint", ["chat", "achat", "complete", "acomplete", "stream_chat", "astream_chat"])
    def test_as_structured_llm(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``llm.as_structured_llm(cls)``, which agents with ``output_cls`` and query engines use."""
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
        """Fails: what asks for this program by name: ``PydanticProgramMode.FUNCTION``, the selector of
        ``RouterQueryEngine``, ``SchemaLLMPathExtractor``.
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
        """Fails: ``as_query_engine(output_cls=...)``."""
        from llama_index.core.response_synthesizers import get_response_synthesizer

        synthesizer = get_response_synthesizer(llm=llm, response_mode="tree_summarize", output_cls=Flat)  # type: ignore[arg-type]
        answer: Any
        if use_async:
            answer = run(synthesizer.aget_response("Who?", ["Anna is 31.", "Kerl is a town."]))
        else:
            answer = synthesizer.get_response("Who?", ["Anna is 31.", "Kerl is a town."])
        assert isinstance(answer, Flat)
