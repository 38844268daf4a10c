"""``DiffusionGemma``: LlamaIndex's LLM interface over one shared engine."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pickle import PicklingError
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.types import Model
from llama_index_instrumentation import get_dispatcher
from pydantic import ConfigDict, Field, PrivateAttr, field_validator, model_validator

from dgemma_core.api.messages import Message
from dgemma_core.api.params import SamplingParams, check_timeout
from dgemma_core.api.spec import DEFAULT_MAX_QUEUE, DEFAULT_PREFIX_CACHE_BYTES, LoadSpec
from dgemma_core.errors import ContextOverflowError, DGemmaError
from dgemma_integrations.llama_index.messages import ato_engine_messages, to_engine_messages
from dgemma_integrations.llama_index.responses import (
    ChatRespond,
    Respond,
    Response,
    StreamChunks,
    completion_response,
    finished_response,
)
from dgemma_integrations.llama_index.structured import MODES, StructuredPrediction
from dgemma_integrations.llama_index.tools import NAMES as TOOL_NAMES
from dgemma_integrations.llama_index.tools import chat_arguments, selections, tool_use
from dgemma_integrations.shared.engines import aengine_for, engine_for
from dgemma_integrations.shared.facts import checkpoint_facts
from dgemma_integrations.shared.images import aprepare
from dgemma_integrations.shared.keywords import reject_unknown
from dgemma_integrations.shared.load_settings import LOAD_FIELDS, load_settings, load_spec
from dgemma_integrations.shared.sampling_settings import PARAMETER_NAMES, sampling_params
from dgemma_integrations.shared.tool_use import ToolUse

if TYPE_CHECKING:
    from llama_index.core.program.utils import FlexibleModel
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.tools.types import BaseTool

    from dgemma_core import Engine
    from dgemma_core.api.handle import RequestHandle

_CALL_FIELDS = ("timeout", "thinking")
_SAMPLING_FIELDS = tuple(sorted(set(PARAMETER_NAMES) - {"max_new_tokens", "grammar"}))

_dispatcher = get_dispatcher(__name__)

# What LlamaIndex itself adds to calls: DocumentContextExtractor sends extra_headers, programs hand verbose down. Every
# other name nobody knows is an error.
_SENT_BY_LLAMA_INDEX = frozenset(("extra_headers", "verbose"))
# Objects of this process: they stay behind when the LLM is pickled.
_PROCESS_FIELDS = frozenset(("callback_manager", "rate_limiter"))

# Lax mode would take True for 1 and 2.0 for 2.
_Int = Annotated[int, Field(strict=True)]

# A chat, or a prompt that already carries the template's markup.
_Prompt = list[Message] | str


@dataclass(frozen=True)
class _Options:
    """Settings of one call: the object's, with the call's own keyword arguments on top.

    Attributes:
        params: sampling settings.
        own: whether they are all the object's.
        timeout: seconds.
        tool_use: tools, thinking and what the answer must fit.
    """

    params: SamplingParams
    own: bool
    timeout: float | None
    tool_use: ToolUse


class DiffusionGemma(FunctionCallingLLM):
    """A block-diffusion language model that runs in this process, for everything in LlamaIndex that takes an LLM.

    Building one is cheap: weights load at the first request, and all objects with the same load settings share one
    engine, which denoises concurrent requests together. Every method may be called from any thread and any event loop.

    ``None`` means the checkpoint's own default. All settings from ``max_tokens`` on may also be given per call.

    Args:
        model: ``"embedded"`` (the small checkpoint inside the package), a Hub id, or a local folder.
        revision: Hub branch, tag or commit.
        device: ``"auto"`` (cuda, else mps, else cpu) or a torch device.
        dtype: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        quantization: ``None``, ``"int8"`` or ``"nf4"``.
        max_context: tokens of prompt plus answer; also lowers ``metadata.context_window``.
        max_batch_tokens: tokens in one forward pass, over all requests.
        max_queue: requests that may wait before another one is refused with ``QueueFullError``.
        prefix_cache_bytes: bytes of keys and values kept for reuse across requests; 0 turns reuse off.
        engine: a ``dgemma_core.Engine`` to use instead of the shared one for the settings above.
        max_tokens: exact upper bound on the answer's tokens.
        temperature: 0 makes answers repeatable (``seed=0`` unless a seed is given); up to 0.8 is the checkpoint's own
            schedule; above, ``t_max=temperature, t_min=temperature / 2``: more variety, more denoising steps.
        seed: the same seed and prompt give the same answer, whatever else runs; ``None`` draws a fresh one per call.
        stop: one string or several that end the answer; they are not part of it.
        timeout: seconds from the call (weights loaded) to its end, else ``RequestTimeoutError``.
        max_denoising_steps: cap on denoising steps per canvas.
        entropy_bound: nats; how unsure the positions accepted in one step may be together.
        t_min: temperature at the last denoising step; instead of ``temperature``.
        t_max: temperature at the first denoising step; instead of ``temperature``.
        stability_threshold: further steps the canvas must stay the same before it is final.
        confidence_threshold: nats; mean entropy below which a canvas may be final.
        canvas_length: positions denoised together.
        stop_at_eos: positions after the answer's end neither delay it nor are computed again.
        thinking: ask the model to think before it answers; chat responses hold its thoughts as a
            ``ThinkingBlock``.
        drafts: streams also yield a chunk per denoising step, with ``delta=""`` and the canvas as it reads now in
            ``additional_kwargs["draft"]`` (``text``, ``step``, ``entropy``).
        allow_image_urls: whether images that a message only names by an ``http(s)`` address are downloaded.

    Raises:
        ValueError: on an unknown keyword argument or a bad value.

    Examples:
        ```python
        from llama_index.core.llms import ChatMessage
        from dgemma_integrations.llama_index import DiffusionGemma

        llm = DiffusionGemma(max_tokens=64, seed=0)
        response = llm.chat([ChatMessage(role="user", content="Which planet is the largest?")])
        print(response.message.content, response.raw["usage"])

        for chunk in llm.stream_complete("Name three rivers."):
            print(chunk.delta, end="", flush=True)
        ```
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(default="embedded", description="'embedded', a Hub id or a local folder.")
    revision: str | None = Field(default=None, description="Hub branch, tag or commit.")
    device: str = Field(default="auto", description="'auto' or a torch device.")
    dtype: str = Field(default="auto", description="'auto', 'float32', 'bfloat16' or 'float16'.")
    quantization: str | None = Field(default=None, description="None, 'int8' or 'nf4'.")
    max_context: _Int | None = Field(default=None, description="Tokens of prompt plus answer.")
    max_batch_tokens: _Int | None = Field(default=None, description="Tokens in one forward pass, over all requests.")
    max_queue: _Int = Field(default=DEFAULT_MAX_QUEUE, description="Requests that may wait.")
    prefix_cache_bytes: _Int = Field(default=DEFAULT_PREFIX_CACHE_BYTES, description="Bytes kept for prefix reuse.")

    max_tokens: _Int | None = Field(default=None, description="Exact upper bound on the answer's tokens.")
    temperature: float | None = Field(default=None, description="0: repeatable; above 0.8: more variety.")
    seed: _Int | None = Field(default=None, description="Seed of each request's own random generator.")
    stop: tuple[str, ...] = Field(default=(), description="Strings that end the answer.")
    timeout: float | None = Field(default=None, description="Seconds a request may take.")
    max_denoising_steps: _Int | None = Field(default=None, description="Cap on denoising steps per canvas.")
    entropy_bound: float | None = Field(default=None, description="Nats accepted together in one step.")
    t_min: float | None = Field(default=None, description="Temperature at the last denoising step.")
    t_max: float | None = Field(default=None, description="Temperature at the first denoising step.")
    stability_threshold: _Int | None = Field(default=None, description="Further steps a canvas must stay the same.")
    confidence_threshold: float | None = Field(default=None, description="Mean entropy (nats) of a final canvas.")
    canvas_length: _Int | None = Field(default=None, description="Positions denoised together.")
    stop_at_eos: bool = Field(default=True, description="Positions after the answer's end do not delay it.")
    thinking: bool = Field(default=False, description="Ask the model to think before it answers.")
    drafts: bool = Field(default=False, description="Stream the canvas after every denoising step, too.")
    allow_image_urls: bool = Field(default=False, description="Download images that are named by their address.")

    _given_engine: Any = PrivateAttr(default=None)

    def __init__(self, *, engine: Engine | None = None, **settings: Any) -> None:
        # A dumped LLM carries its class name.
        settings.pop("class_name", None)
        reject_unknown(settings, {*type(self).model_fields, "engine"}, owner=type(self).__name__)
        if engine is not None:
            settings |= load_settings(engine, {n: v for n, v in settings.items() if n in LOAD_FIELDS})
        super().__init__(**settings)
        self._given_engine = engine

    @field_validator("model", "device", "dtype", mode="before")
    @classmethod
    def _name_of(cls, value: Any) -> Any:
        """Takes ``pathlib.Path``, ``torch.device`` and ``torch.dtype`` objects, too."""
        return value if value is None else str(value).removeprefix("torch.")

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value or ()

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        self._spec()
        self._options({})
        return self

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex stores and restores this LLM."""
        return "DiffusionGemma"

    @property
    def engine(self) -> Engine:
        """The engine that serves this object. Reading it, its tokenizer or its stats loads no weights."""
        spec = self._spec()
        return self._given_engine_for(spec) or engine_for(spec)

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex plans prompts with. Reads the checkpoint's configuration once, never its weights."""
        window, length = self._limits()
        return LLMMetadata(
            context_window=window,
            num_output=self.max_tokens or length,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model,
        )

    def to_payload(self) -> dict[str, Any]:
        """This object's settings for events and callbacks; unlike ``metadata`` it never touches a file."""
        settings = {name: getattr(self, name) for name in (*LOAD_FIELDS, *_SAMPLING_FIELDS, *_CALL_FIELDS)}
        return {"class_name": self.class_name(), "model_name": self.model, "is_chat_model": True, **settings}

    # --- the eight endpoints; each fires one LLM event, so none calls another ---

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answers a conversation.

        Args:
            messages: the conversation.
            **kwargs: settings for this call alone, such as ``max_tokens``, ``seed``, ``stop`` or ``timeout``; ``tools``
                (OpenAI function dicts), ``tool_choice``, ``tool_required`` and ``allow_parallel_tool_calls``, which
                :meth:`chat_with_tools` fills in; ``response_format`` (OpenAI's form) or ``grammar`` for an answer that
                always fits.

        Raises:
            ValueError: on an unknown keyword argument or a bad value.
            ContextOverflowError: prompt plus answer do not fit the context window.
            DGemmaError: loading or generating failed.
        """
        return self._answer(self._messages(messages), kwargs, _chat_respond(kwargs))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answers a prompt.

        Args:
            prompt: the text of one user message.
            formatted: the prompt already carries the chat template's markup, with its control tokens.
            **kwargs: as for :meth:`chat`, without those about tools.
        """
        return self._answer(_completion_prompt(prompt, formatted, kwargs), kwargs, completion_response)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """As :meth:`chat`, one chunk per finished canvas; the last chunk carries the usage.

        Closing the generator, or dropping it, cancels the request.
        """
        return cast(ChatResponseGen, self._stream(self._messages(messages), kwargs, _chat_respond(kwargs)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """As :meth:`complete`, streamed like :meth:`stream_chat`."""
        asked = _completion_prompt(prompt, formatted, kwargs)
        return cast(CompletionResponseGen, self._stream(asked, kwargs, completion_response))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """As :meth:`chat`, without blocking the event loop; cancelling the task cancels the request."""
        return await self._aanswer(await self._amessages(messages), kwargs, _chat_respond(kwargs))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """As :meth:`complete`, without blocking the event loop."""
        return await self._aanswer(_completion_prompt(prompt, formatted, kwargs), kwargs, completion_response)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """As :meth:`stream_chat`, without blocking the event loop."""
        stream = await self._astream(await self._amessages(messages), kwargs, _chat_respond(kwargs))
        return cast(ChatResponseAsyncGen, stream)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """As :meth:`stream_complete`, without blocking the event loop."""
        stream = await self._astream(_completion_prompt(prompt, formatted, kwargs), kwargs, completion_response)
        return cast(CompletionResponseAsyncGen, stream)

    # --- tools ---

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Keyword arguments of :meth:`chat` for a conversation with tools.

        ``tool_choice`` is ``"auto"``, ``"none"``, ``"any"``, ``"required"``, or the name of the tool to call.
        """
        asked = chat_arguments(tools, user_msg, chat_history, allow_parallel_tool_calls, tool_required, tool_choice)
        return {**asked, **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of a response, or of a chunk of a stream.

        Raises:
            ValueError: there are none and ``error_on_no_tool_call``.
        """
        calls = selections(response)
        if error_on_no_tool_call and not calls:
            raise ValueError(
                f"expected a tool call, but the model answered {response.message.content!r}; tool_required=True forces "
                "one"
            )
        return calls

    # --- structured prediction ---

    @_dispatcher.span
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An object of a Pydantic class: the answer always parses and fits the class's schema.

        Args:
            output_cls: the class.
            prompt: asks for the object; the class's schema is added to it.
            llm_kwargs: settings for this call, as for :meth:`chat`.
            **prompt_args: variables of the prompt.

        Raises:
            GrammarError: the class has a schema that cannot be enforced (a ``ValueError``).
            AnswerBudgetError: ``max_tokens`` is less than the shortest object takes.
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

    @_dispatcher.span
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

    # What stream_structured_predict and astream_structured_predict, which fire the events, take their objects from.

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

    # --- copies ---

    def __getstate__(self) -> dict[Any, Any]:
        """The settings, from which an equal object is built; LlamaIndex's own deletes fields of the live object."""
        if self._given_engine is not None and self._given_engine.in_memory:
            raise PicklingError(
                "DiffusionGemma with an engine made by Engine.from_model cannot be pickled: its weights exist in this "
                "process only"
            )
        settings = {name: getattr(self, name) for name in self.model_fields_set - _PROCESS_FIELDS}
        return {"__dict__": settings}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        type(self).__init__(self, **state["__dict__"])

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # Settings are immutable values; the engine and the handlers are the same ones.
        return self.model_copy()

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "model", self.model
        for name in (*LOAD_FIELDS, *_SAMPLING_FIELDS, *_CALL_FIELDS):
            value = getattr(self, name)
            if name != "model" and value != type(self).model_fields[name].default:
                yield name, value

    # --- from a call to the engine and back ---

    def _limits(self) -> tuple[int, int]:
        """Tokens of the context window, and of an answer unless a call says.

        From the configuration files where they are at hand: LlamaIndex asks on event loops, and an engine would import
        torch and read the tokenizer first.
        """
        spec = self._spec()
        engine = self._given_engine_for(spec)
        if engine is None:
            facts = checkpoint_facts(spec)
            if facts.window is not None and facts.answer_tokens is not None:
                return min(facts.window, spec.max_context or facts.window), facts.answer_tokens
            engine = engine_for(spec)
        return engine.context_window, engine.default_max_new_tokens

    def _spec(self) -> LoadSpec:
        return load_spec(**{name: getattr(self, name) for name in LOAD_FIELDS})

    def _given_engine_for(self, spec: LoadSpec) -> Engine | None:
        engine: Engine | None = self._given_engine
        # Load settings assigned later win over the engine given at the start.
        return engine if engine is not None and engine.spec == spec else None

    def _options(self, overrides: Mapping[str, Any]) -> _Options:
        owner = type(self).__name__
        use = tool_use(overrides, self.thinking)
        given = {name: value for name, value in overrides.items() if name not in _SENT_BY_LLAMA_INDEX | TOOL_NAMES}
        reject_unknown(given, {*PARAMETER_NAMES, "timeout", *TOOL_NAMES}, owner=owner)
        timeout = given.pop("timeout", None)
        timeout = self.timeout if timeout is None else timeout
        check_timeout(timeout)
        defaults = {name: getattr(self, name) for name in _SAMPLING_FIELDS}
        own = all(value is None for value in given.values())
        if use.grammar is not None:
            if given.get("grammar") is not None:
                raise ValueError(
                    f"{owner}: response_format and grammar both say what the answer must fit; give one of them"
                )
            given["grammar"] = use.grammar
        return _Options(sampling_params(defaults, given, owner=owner), own, timeout, use)

    def _messages(self, messages: Sequence[ChatMessage]) -> list[Message]:
        return to_engine_messages(messages, allow_image_urls=self.allow_image_urls)

    async def _amessages(self, messages: Sequence[ChatMessage]) -> list[Message]:
        return await ato_engine_messages(messages, allow_image_urls=self.allow_image_urls)

    def _submit(self, engine: Engine, prompt: _Prompt, options: _Options) -> RequestHandle:
        params, use, timeout = options.params, options.tool_use, options.timeout
        try:
            engine.check_settings(params)
        except ValueError as error:
            if not options.own:
                raise
            # Nobody gave it with this call, which is LlamaIndex's own as a rule: its synthesizers swallow ValueErrors.
            raise DGemmaError(f"{type(self).__name__}: {error}") from error
        if isinstance(prompt, str):
            return engine.submit(engine.encode_markup(prompt), params, timeout=timeout)
        try:
            return use.submit(engine, prompt, params, timeout)
        except ContextOverflowError as error:
            # LlamaIndex fills the window to the brim without counting the template's markup: that much may come off the
            # answer's upper bound.
            excess = error.prompt_tokens + error.max_new_tokens - error.context_window
            room = error.max_new_tokens - excess
            bare = [replace(message, content="x") for message in prompt]
            if room < 1 or excess > engine.count_tokens(bare, use.tools, thinking=use.thinking):
                raise
            return use.submit(engine, prompt, replace(params, max_new_tokens=room), timeout)

    def _start(self, prompt: _Prompt, overrides: Mapping[str, Any]) -> RequestHandle:
        options = self._options(overrides)
        engine = self.engine
        engine.load()
        return self._submit(engine, prompt, options)

    async def _astart(self, prompt: _Prompt, overrides: Mapping[str, Any]) -> RequestHandle:
        options = self._options(overrides)
        spec = self._spec()
        engine = self._given_engine_for(spec) or await aengine_for(spec)
        await engine.aload()
        await aprepare(engine, [prompt])
        return await options.tool_use.off_loop(prompt, options.params, lambda: self._submit(engine, prompt, options))

    def _answer(self, prompt: _Prompt, overrides: Mapping[str, Any], respond: Respond[Response]) -> Response:
        handle = self._start(prompt, overrides)
        try:
            return finished_response(respond, handle.result(), self.model)
        finally:
            handle.cancel()  # Nothing to cancel unless the wait was interrupted.

    async def _aanswer(self, prompt: _Prompt, overrides: Mapping[str, Any], respond: Respond[Response]) -> Response:
        handle = await self._astart(prompt, overrides)
        return finished_response(respond, await handle, self.model)

    def _stream(self, prompt: _Prompt, overrides: Mapping[str, Any], respond: Respond[Response]) -> Iterator[Response]:
        # Submitted here, not in the generator: errors belong to the call, and nothing waits for the first next().
        handle = self._start(prompt, overrides)
        stream = _chunks(handle, StreamChunks(respond, self.model))
        _cancel_with(stream, handle)
        return stream

    async def _astream(
        self, prompt: _Prompt, overrides: Mapping[str, Any], respond: Respond[Response]
    ) -> AsyncIterator[Response]:
        handle = await self._astart(prompt, overrides)
        stream = _achunks(handle, StreamChunks(respond, self.model))
        _cancel_with(stream, handle)
        return stream


def _chunks(handle: RequestHandle, chunks: StreamChunks[Response]) -> Iterator[Response]:
    try:
        for event in handle:
            chunk = chunks.chunk(event)
            if chunk is not None:
                yield chunk
    finally:
        handle.cancel()


async def _achunks(handle: RequestHandle, chunks: StreamChunks[Response]) -> AsyncIterator[Response]:
    try:
        async for event in handle:
            chunk = chunks.chunk(event)
            if chunk is not None:
                yield chunk
    finally:
        handle.cancel()


def _cancel_with(stream: object, handle: RequestHandle) -> None:
    """Cancels with a stream that nobody ever started: its ``finally`` does not run."""
    weakref.finalize(stream, handle.cancel).atexit = False


def _chat_respond(arguments: Mapping[str, Any]) -> ChatRespond:
    return ChatRespond(arguments.get("tool_names"))


def _completion_prompt(prompt: str, formatted: bool, arguments: Mapping[str, Any]) -> _Prompt:
    if arguments.get("tools"):
        raise ValueError("tools: a completion has no place for tool calls; give them to chat or chat_with_tools")
    if formatted and arguments.get("thinking"):
        raise ValueError(
            "thinking=True is asked for by the chat template: with formatted=True, write it into the prompt"
        )
    return prompt if formatted else [Message("user", prompt)]
