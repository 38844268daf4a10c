"""``DiffusionGemmaLLM``: a block-diffusion model as a LangChain string model."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import BaseLLM, LangSmithParams
from langchain_core.outputs import GenerationChunk, LLMResult
from pydantic import PrivateAttr

from dgemma_core.api.messages import Message
from dgemma_core.api.request import Prompt
from dgemma_integrations.langchain import requests
from dgemma_integrations.langchain.completions import CompletionWriter, llm_result, merged_result
from dgemma_integrations.langchain.settings import DiffusionGemmaSettings


class DiffusionGemmaLLM(DiffusionGemmaSettings, BaseLLM):
    r"""DiffusionGemma in this process, as a string model: text in, text out.

    It takes the settings of `ChatDiffusionGemma` and shares its engine. `batch`, `abatch` and `generate` give all
    prompts to the engine at once, and the engine computes them together.

    Setup:
        ```bash
        pip install "dgemma[langchain]"
        ```

    Key init args:
        raw: `False` (default) sends each prompt as a user message of the chat template; checkpoints are trained on
            that. `True` sends the prompt as it stands.
        max_tokens, temperature, seed, stop, ...: see `ChatDiffusionGemma`.

    Instantiate:
        ```python
        from dgemma_integrations.langchain import DiffusionGemmaLLM

        llm = DiffusionGemmaLLM(model="embedded", max_tokens=64, seed=1)
        ```

    Invoke:
        ```python
        llm.invoke("Mira Vale keeps the lighthouse at Stonehaven.\n\nWho keeps the lighthouse?")
        llm.batch(["Who keeps the lighthouse?", "Where is it?"])
        ```

    Stream:
        ```python
        for text in llm.stream("Who keeps the lighthouse?"):
            print(text, end="", flush=True)
        ```

    Async:
        ```python
        await llm.ainvoke("Who keeps the lighthouse?")
        ```

    Token usage:
        ```python
        llm.generate(["Hello"]).llm_output["token_usage"]
        # {"prompt_tokens": 14, "completion_tokens": 5, "total_tokens": 19, "cached_tokens": 0}
        ```

    Response metadata:
        ```python
        llm.generate(["Hello"]).generations[0][0].generation_info
        # {"model_name": "embedded", "finish_reason": "stop", "forward_passes": 2, "tokens_per_pass": 2.5, ...}
        ```
    """

    raw: bool = False
    """Send prompts as they stand instead of as a user message of the chat template."""

    # Keyword arguments of the call that this copy serves, see _for_call().
    _call_settings: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "diffusiongemma"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {**super()._identifying_params, "raw": self.raw, "call": self._call_settings}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._ls_settings(stop, super()._get_ls_params(stop=stop, **kwargs))

    def generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        *,
        tags: list[str] | list[list[str]] | None = None,
        metadata: dict[str, Any] | list[dict[str, Any]] | None = None,
        run_name: str | list[str] | None = None,
        run_id: uuid.UUID | list[uuid.UUID | None] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer all prompts together; see `BaseLLM.generate`."""
        return super(DiffusionGemmaLLM, self._for_call(kwargs)).generate(
            prompts, stop, callbacks, tags=tags, metadata=metadata, run_name=run_name, run_id=run_id, **kwargs
        )

    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        *,
        tags: list[str] | list[list[str]] | None = None,
        metadata: dict[str, Any] | list[dict[str, Any]] | None = None,
        run_name: str | list[str] | None = None,
        run_id: uuid.UUID | list[uuid.UUID | None] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer all prompts together; see `BaseLLM.agenerate`."""
        return await super(DiffusionGemmaLLM, self._for_call(kwargs)).agenerate(
            prompts, stop, callbacks, tags=tags, metadata=metadata, run_name=run_name, run_id=run_id, **kwargs
        )

    def _for_call(self, kwargs: dict[str, Any]) -> Self:
        """A copy that knows a call's keyword arguments, because BaseLLM leaves them out of its cache key."""
        settings = {name: value for name, value in kwargs.items() if value is not None and name != "on_draft"}
        if not settings:
            return self
        copy = self.model_copy()
        copy._call_settings = dict(sorted(settings.items()))
        return copy

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self._streams(prompts, kwargs):
            return merged_result(list(self._stream(prompts[0], stop, run_manager, **kwargs)))
        call = self._call(stop, kwargs)
        answers = requests.generate(self._engine(call.model), [self._prompt(text) for text in prompts], call)
        return llm_result(answers, call.model)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self._streams(prompts, kwargs):
            return merged_result([chunk async for chunk in self._astream(prompts[0], stop, run_manager, **kwargs)])
        call = self._call(stop, kwargs)
        engine = await self._aengine(call.model)
        answers = await requests.agenerate(engine, [self._prompt(text) for text in prompts], call)
        return llm_result(answers, call.model)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        call = self._call(stop, kwargs)
        writer = CompletionWriter(call.model)
        with closing(requests.stream(self._engine(call.model), self._prompt(prompt), call)) as events:
            for event in events:
                chunk = writer.chunk(event)
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        call = self._call(stop, kwargs)
        writer = CompletionWriter(call.model)
        # Without aclosing, an async generator that is left early is closed only when it is collected.
        async with aclosing(requests.astream(await self._aengine(call.model), self._prompt(prompt), call)) as events:
            async for event in events:
                chunk = writer.chunk(event)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _prompt(self, text: str) -> Prompt:
        return text if self.raw else [Message("user", text)]

    def _streams(self, prompts: list[str], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call reports its text to callbacks as it comes. Only single prompts can."""
        return bool(kwargs.get("stream", self.streaming)) and len(prompts) == 1
