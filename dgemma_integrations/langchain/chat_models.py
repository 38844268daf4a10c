"""``ChatDiffusionGemma``: a block-diffusion model as a LangChain chat model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, BaseRunManager, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.utils import LC_ID_PREFIX

from dgemma_core.api.events import DraftEvent
from dgemma_integrations.langchain import requests
from dgemma_integrations.langchain.messages import ato_engine_messages, to_engine_messages
from dgemma_integrations.langchain.profile import model_profile
from dgemma_integrations.langchain.responses import ChunkWriter, EventWriter, chat_result
from dgemma_integrations.langchain.schemas import openai_tool
from dgemma_integrations.langchain.settings import Call, DiffusionGemmaSettings
from dgemma_integrations.langchain.structured import structured
from dgemma_integrations.langchain.tools import NAMES as TOOL_NAMES
from dgemma_integrations.langchain.tools import tool_use
from dgemma_integrations.shared.keywords import reject_unknown
from dgemma_integrations.shared.tool_use import tool_choice as normal_choice

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile
    from langchain_protocol.protocol import MessagesData


class ChatDiffusionGemma(DiffusionGemmaSettings, BaseChatModel):
    r"""DiffusionGemma in this process, as a chat model.

    Model objects are cheap: they hold settings, not weights. All objects with the same load settings share one engine,
    which reads the weights at the first request and denoises the canvases of all concurrent requests together.

    Setup:
        ```bash
        pip install "dgemma[langchain]"
        ```

    Key init args — completion params:
        max_tokens: exact upper bound on the answer's tokens.
        temperature: 0 makes answers repeatable (`seed=0` where no seed is given); up to 0.8 is the checkpoint's own
            schedule; above it is `t_max=t, t_min=t / 2`. Not together with `t_min` or `t_max`.
        seed: same seed, same prompt, same settings: same answer, whatever else the engine is doing.
        stop: strings that end the answer; a call's own `stop` replaces them.
        max_denoising_steps, entropy_bound, t_min, t_max, stability_threshold, confidence_threshold, canvas_length,
            stop_at_eos: the denoising loop; `None` means the checkpoint's own default.

    Key init args — engine params:
        model: `"embedded"` (the small checkpoint inside the package), a Hub id, or a local folder.
        revision, device, dtype, quantization, max_context, max_batch_tokens, max_queue, prefix_cache_bytes: which
            weights, where and how; see `dgemma_core.LoadSpec`.
        engine: a `dgemma_core.Engine` to use instead. It is not serialised: a pickled model finds its engine by the
            load settings again; one made by `Engine.from_model` cannot be pickled.
        timeout: seconds a request may take.
        on_draft: called with the canvas after every denoising step.
        draft_events: send it as an event of `stream_events(version="v3")`, too.
        parallel_tool_calls: whether one answer may hold several tool calls.
        thinking: ask the model to think before it answers; its thoughts come as reasoning blocks.

    Unknown keyword arguments raise a `ValueError`, here and at every call.

    Instantiate:
        ```python
        from dgemma_integrations.langchain import ChatDiffusionGemma

        llm = ChatDiffusionGemma(model="embedded", max_tokens=64, seed=1)
        ```

    Invoke:
        ```python
        context = "Mira Vale keeps the lighthouse at Stonehaven."
        llm.invoke([("system", "Answer from the context."), ("human", f"{context}\n\nWho keeps the lighthouse?")])
        ```

    Stream:
        One chunk per confirmed block of text, usually a canvas; the last chunk carries usage and metadata.

        ```python
        for chunk in llm.stream("Who keeps the lighthouse?"):
            print(chunk.text, end="", flush=True)
        ```

    Async:
        Native: nothing runs on a thread pool, and cancelling the task frees the request's place.

        ```python
        await llm.ainvoke("Who keeps the lighthouse?")
        await llm.abatch(["Who keeps the lighthouse?", "Where is it?"])  # shares forward passes
        ```

    Token usage:
        ```python
        llm.invoke("Hello").usage_metadata
        # {"input_tokens": 14, "output_tokens": 5, "total_tokens": 19, "input_token_details": {"cache_read": 0},
        #  "output_token_details": {"reasoning": 0}}
        ```

    Tool calls and structured output:
        A call always fits its tool's schema, a structured answer its schema.

        ```python
        llm.bind_tools([get_weather], tool_choice="any").invoke("What is the weather in Zonel?").tool_calls
        llm.with_structured_output(Bridge).invoke("...")  # a Bridge
        ```

    Response metadata:
        ```python
        llm.invoke("Hello").response_metadata
        # {"model_name": "embedded", "model_provider": "diffusiongemma", "finish_reason": "stop", "canvases": 1,
        #  "denoising_steps": 4, "tokens_per_step": 1.25, "tokens_per_s": 310.2, "timings": {"queue_s": ..., ...}}
        ```
    """

    parallel_tool_calls: bool | None = None
    """Whether one answer may hold several tool calls; `None` means yes. A call's own setting replaces it."""
    thinking: bool = False
    """Whether to ask the model to think before it answers. A call's own setting replaces it."""
    draft_events: bool = False
    """Whether `stream_events(version="v3")` also sends the canvas after every denoising step."""

    @property
    def _llm_type(self) -> str:
        return "chat-diffusiongemma"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {
            **super()._identifying_params,
            "tool_use": {"parallel_tool_calls": self.parallel_tool_calls, "thinking": self.thinking},
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._ls_settings(stop, super()._get_ls_params(stop=stop, **kwargs))

    def _resolve_model_profile(self) -> ModelProfile | None:
        return model_profile(
            self._spec() if self.engine is None else self.engine.spec, allow_image_urls=self.allow_image_urls
        )

    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Tokens of the prompt the checkpoint's chat template makes of these messages, tool declarations included."""
        declarations = [openai_tool(tool) for tool in tools] if tools else None
        translated = to_engine_messages(messages, allow_image_urls=self.allow_image_urls)
        return self._count_messages(translated, declarations, self.thinking)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """A model that may call tools.

        Args:
            tools: in any form that LangChain converts: tools, functions, Pydantic classes, schemas.
            tool_choice: `"auto"` (the default), `"none"`, `"any"`, `"required"` or `True` (some call), or a tool's
                name, also in OpenAI's form. A call always fits its tool's schema.
            kwargs: `parallel_tool_calls`, `response_format` (the form of an answer without calls), `strict` (without
                effect), and every setting of a call.

        Raises:
            ValueError: a choice that no tool answers to.
            GrammarError: a tool's schema that cannot be enforced, when the model is called.
        """
        declared = [openai_tool(tool) for tool in tools]
        choice = normal_choice(tool_choice, declared)
        given = {"tools": declared} | ({} if choice is None else {"tool_choice": choice})
        return self.bind(**given, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """A model whose answers are objects of a schema: they always parse and validate.

        Args:
            schema: a Pydantic class, a TypedDict, or a JSON schema or OpenAI function as dict. The model is not shown
                it: say in the prompt what is wanted.
            method: `"json_schema"` (JSON held to the schema), `"function_calling"` (a forced call of a tool with this
                schema) or `"json_mode"` (JSON, held to the schema if there is one).
            include_raw: return a dict with `raw`, `parsed` and `parsing_error`.
            strict: accepted and without effect: answers are always held to the schema.
            kwargs: none are known.

        Raises:
            ValueError: an unknown method or keyword argument.
            GrammarError: a schema that cannot be enforced, when the model is called.
        """
        reject_unknown(kwargs, ("schema", "method", "include_raw", "strict"), owner="with_structured_output")
        return structured(self, schema, method, include_raw, strict)

    def _call(self, stop: list[str] | str | None, kwargs: Mapping[str, Any]) -> Call:
        use = tool_use(kwargs, parallel=self.parallel_tool_calls, thinking=self.thinking)
        others = {name: value for name, value in kwargs.items() if name not in TOOL_NAMES}
        draft_events = others.pop("draft_events", None)
        draft_events = self.draft_events if draft_events is None else draft_events
        if not isinstance(draft_events, bool):
            raise ValueError(f"draft_events={draft_events!r}: must be True or False")
        if use.grammar is not None:
            if others.get("grammar") is not None:
                raise ValueError("response_format and grammar both say what the answer must fit; give one of them")
            others["grammar"] = use.grammar
        return replace(super()._call(stop, others), tool_use=use, draft_events=draft_events)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(stop, kwargs)
        prompt = to_engine_messages(messages, allow_image_urls=self.allow_image_urls)
        (generation,) = requests.generate(self._engine(call.model), [prompt], call)
        return chat_result(generation, call.model)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(stop, kwargs)
        prompt = await ato_engine_messages(messages, allow_image_urls=self.allow_image_urls)
        (generation,) = await requests.agenerate(await self._aengine(call.model), [prompt], call)
        return chat_result(generation, call.model)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._call(stop, kwargs)
        prompt = to_engine_messages(messages, allow_image_urls=self.allow_image_urls)
        writer = ChunkWriter(call.model)
        with closing(requests.stream(self._engine(call.model), prompt, call)) as events:
            for event in events:
                chunk = writer.chunk(event)
                # LangChain passes no run manager where it reports the token itself.
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._call(stop, kwargs)
        prompt = await ato_engine_messages(messages, allow_image_urls=self.allow_image_urls)
        writer = ChunkWriter(call.model)
        # An async generator left early is otherwise closed only when it is collected.
        async with aclosing(requests.astream(await self._aengine(call.model), prompt, call)) as events:
            async for event in events:
                chunk = writer.chunk(event)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    # LangChain looks these two up by name for stream_events(version="v3").

    def _stream_chat_model_events(
        self,
        messages: list[BaseMessage],
        *,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[MessagesData]:
        call = self._call(stop, kwargs)
        prompt = to_engine_messages(messages, allow_image_urls=self.allow_image_urls)
        chunks, writer = ChunkWriter(call.model), EventWriter(call.model, _message_id(run_manager))
        with closing(requests.watch(self._engine(call.model), prompt, call)) as events:
            for event in events:
                if run_manager is not None and not isinstance(event, DraftEvent):
                    chunk = chunks.chunk(event)
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield from writer.events(event)

    async def _astream_chat_model_events(
        self,
        messages: list[BaseMessage],
        *,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[MessagesData]:
        call = self._call(stop, kwargs)
        prompt = await ato_engine_messages(messages, allow_image_urls=self.allow_image_urls)
        chunks, writer = ChunkWriter(call.model), EventWriter(call.model, _message_id(run_manager))
        async with aclosing(requests.awatch(await self._aengine(call.model), prompt, call)) as events:
            async for event in events:
                if run_manager is not None and not isinstance(event, DraftEvent):
                    chunk = chunks.chunk(event)
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                for message in writer.events(event):
                    yield message


def _message_id(run_manager: BaseRunManager | None) -> str:
    return "" if run_manager is None else f"{LC_ID_PREFIX}-{run_manager.run_id}"
