"""LlamaIndex's methods of structured prediction, for an LLM whose answers always fit a schema."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.types import Model
from llama_index_instrumentation import get_dispatcher

from dgemma_integrations.llama_index.instrumentation import span
from dgemma_integrations.llama_index.own_prompts import OwnPrompts
from dgemma_integrations.llama_index.structured import MODES, StructuredPrediction

if TYPE_CHECKING:
    from llama_index.core.program.utils import FlexibleModel
    from llama_index.core.prompts import PromptTemplate

_dispatcher = get_dispatcher(__name__)


class SchemaHeldLLM(OwnPrompts):
    """A function-calling LLM whose structured predictions always parse and fit their class."""

    @span
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An object of a Pydantic class. The answer always parses and fits the class's schema.

        Args:
            output_cls: the class.
            prompt: asks for the object; the class's schema is added to the prompt.
            llm_kwargs: settings for this call, as for :meth:`chat`, and ``on_length``.
            **prompt_args: variables of the prompt.

        Raises:
            GrammarError: the class has a schema that cannot be enforced (a ``ValueError``).
            AnswerBudgetError: ``max_tokens`` is too small for the shortest object.
            AnswerCutError: the object was cut for want of room, and ``on_length`` is ``"raise"``. With ``"warn"`` the
                log has a warning.
            pydantic.ValidationError: the answer fits the schema, but a validator of the class refuses it.
            DGemmaError: loading or generating failed.
        """
        if self.pydantic_program_mode not in MODES:
            return cast(Model, super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args))
        _dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        output = StructuredPrediction(self, output_cls, prompt, llm_kwargs, prompt_args).predict()
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    @span
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """As :meth:`structured_predict`, without blocking the event loop."""
        if self.pydantic_program_mode not in MODES:
            return cast(Model, await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args))
        _dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        output = await StructuredPrediction(self, output_cls, prompt, llm_kwargs, prompt_args).apredict()
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    # stream_structured_predict and astream_structured_predict take their objects from these two, and fire the events.

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | list[Model] | FlexibleModel | list[FlexibleModel]]:
        if self.pydantic_program_mode not in MODES:
            return super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return StructuredPrediction(self, output_cls, prompt, llm_kwargs, prompt_args).stream()

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | list[Model] | FlexibleModel | list[FlexibleModel]]:
        if self.pydantic_program_mode not in MODES:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return StructuredPrediction(self, output_cls, prompt, llm_kwargs, prompt_args).astream()
