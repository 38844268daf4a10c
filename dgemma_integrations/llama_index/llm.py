"""``DiffusionGemma``: LlamaIndex's LLM interface over one shared engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

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
from llama_index.core.llms.llm import ToolSelection

from dgemma_integrations.llama_index import requests
from dgemma_integrations.llama_index.cut_answers import report_cut_response
from dgemma_integrations.llama_index.instrumentation import chat_event, completion_event
from dgemma_integrations.llama_index.messages import ato_engine_messages, to_engine_messages
from dgemma_integrations.llama_index.responses import (
    ChatRespond,
    Respond,
    Response,
    StreamChunks,
    completion_response,
    finished_response,
)
from dgemma_integrations.llama_index.settings import Call, DiffusionGemmaSettings
from dgemma_integrations.llama_index.structured_llm import SchemaHeldLLM
from dgemma_integrations.llama_index.tools import chat_arguments, selections
from dgemma_integrations.shared.unheard import tell_unheard

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool


class DiffusionGemma(DiffusionGemmaSettings, SchemaHeldLLM):
    """A block-diffusion language model that runs in this process, for all components that take an LLM.

    Making an object is cheap, because weights load at the first request. All objects with the same load settings share
    one engine, which computes concurrent requests together. Any thread and any event loop may call every method.

    Keyword arguments are fields, and each field has a description. ``None`` means the default.

    - Which weights, where and how: the fields of ``dgemma_core.LoadSpec``. Or ``engine``, which is used instead.
    - Settings of an answer: the fields of ``dgemma_core.SamplingParams``, with ``max_tokens`` for ``max_new_tokens``;
      also ``temperature``, ``timeout`` and ``thinking``. All of these may also be given per call.
    - ``logprobs``, ``top_logprobs``: responses hold a list for each token of the text, the token itself first.
    - ``thinking``: chat responses hold the model's thoughts as a ``ThinkingBlock``.
    - ``on_length``: ``"warn"`` or ``"raise"`` if a structured answer was cut for want of room.
    - ``drafts``: streams also yield a chunk per denoising step. It has ``delta=""``, and the canvas as text is in
      ``additional_kwargs["draft"]`` (``text``, ``step``, ``entropy``).
    - ``system_prompt``: comes first in every prompt but those that the next fields write.
    - ``query_wrapper_prompt``: wraps the text of a completion, and the last question of a prompt template.
    - ``completion_to_prompt``, ``messages_to_prompt``: functions that write the whole prompt with the chat template's
      markup. Control tokens are active in it, so give them only text that you trust. They have no place for tools.
    - ``allow_image_urls``: download images that a message names by an ``http(s)`` address.

    Raises:
        ValueError: an unknown keyword argument or a bad value.

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

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores and restores this LLM."""
        return "DiffusionGemma"

    @property
    def metadata(self) -> LLMMetadata:
        """Facts with which LlamaIndex plans prompts. Reads the checkpoint's configuration once, never its weights."""
        window, length = self._limits()
        return LLMMetadata(
            context_window=window,
            num_output=self.max_tokens or length,
            is_chat_model=self._is_chat_model,
            is_function_calling_model=True,
            model_name=self.model,
        )

    def to_payload(self) -> dict[str, Any]:
        """This object's settings, for events and callbacks. Unlike ``metadata`` it never reads a file."""
        named = {"class_name": self.class_name(), "model_name": self.model, "is_chat_model": self._is_chat_model}
        return {**named, **self._shown_settings()}

    # --- the eight endpoints; none calls another, because each fires one LLM event ---

    @chat_event
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation.

        Args:
            messages: the conversation.
            **kwargs: settings for this call alone, like ``max_tokens``, ``seed``, ``stop`` or ``timeout``. An answer
                always fits ``response_format`` (OpenAI's form) or ``grammar``. :meth:`chat_with_tools` fills in
                ``tools`` (OpenAI function dicts), ``tool_choice``, ``tool_required`` and ``allow_parallel_tool_calls``.

        Raises:
            ValueError: an unknown keyword argument or a bad value.
            ContextOverflowError: prompt plus answer do not fit the context window.
            DGemmaError: loading or generating failed.
        """
        return self._answer(self._prompt(messages, kwargs), kwargs, _chat_respond(kwargs))

    @completion_event
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt.

        Args:
            prompt: the text of one user message.
            formatted: whether the prompt already has the chat template's markup, with its control tokens.
            **kwargs: as for :meth:`chat`, without those about tools.
        """
        return self._answer(self._completion(prompt, formatted, kwargs), kwargs, completion_response)

    @chat_event
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """As :meth:`chat`, in chunks of text that can no longer change. The last chunk has the usage.

        A chunk's ``logprobs`` are those of its ``delta``.

        Closing or dropping the generator cancels the request.
        """
        return cast(ChatResponseGen, self._stream(self._prompt(messages, kwargs), kwargs, _chat_respond(kwargs)))

    @completion_event
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """As :meth:`complete`, in chunks as :meth:`stream_chat`."""
        asked = self._completion(prompt, formatted, kwargs)
        return cast(CompletionResponseGen, self._stream(asked, kwargs, completion_response))

    @chat_event
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """As :meth:`chat`, without blocking the event loop. Cancelling the task cancels the request."""
        return await self._aanswer(await self._aprompt(messages, kwargs), kwargs, _chat_respond(kwargs))

    @completion_event
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """As :meth:`complete`, without blocking the event loop."""
        return await self._aanswer(self._completion(prompt, formatted, kwargs), kwargs, completion_response)

    @chat_event
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """As :meth:`stream_chat`, without blocking the event loop."""
        stream = await self._astream(await self._aprompt(messages, kwargs), kwargs, _chat_respond(kwargs))
        return cast(ChatResponseAsyncGen, stream)

    @completion_event
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """As :meth:`stream_complete`, without blocking the event loop."""
        stream = await self._astream(self._completion(prompt, formatted, kwargs), kwargs, completion_response)
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

        If ``error_on_no_tool_call`` is true and the response was cut for want of room, the log gets a warning.

        Raises:
            ValueError: there are no calls, and ``error_on_no_tool_call`` is true.
            AnswerCutError: instead of the warning, with ``on_length="raise"``.
        """
        calls = selections(response)
        if error_on_no_tool_call and not calls:
            raise ValueError(
                f"expected a tool call, but the model answered {response.message.content!r}; tool_required=True forces "
                "one"
            )
        if error_on_no_tool_call:
            # Programs run the calls at once and keep nothing of the response. Agents ask without this, and keep it.
            report_cut_response(response, self.on_length)
        return calls

    # --- from a call to the engine and back ---

    @property
    def _is_chat_model(self) -> bool:
        # LlamaIndex gives templates to chat models as messages, which completion_to_prompt would never see.
        return self._writes_conversations or not self._writes_completions

    def _prompt(self, messages: Sequence[ChatMessage], arguments: Mapping[str, Any]) -> requests.Prompt:
        prompt = self._own_conversation(messages, arguments)
        return prompt if isinstance(prompt, str) else to_engine_messages(prompt, allow_image_urls=self.allow_image_urls)

    async def _aprompt(self, messages: Sequence[ChatMessage], arguments: Mapping[str, Any]) -> requests.Prompt:
        prompt = self._own_conversation(messages, arguments)
        if isinstance(prompt, str):
            return prompt
        return await ato_engine_messages(prompt, allow_image_urls=self.allow_image_urls)

    def _completion(self, prompt: str, formatted: bool, arguments: Mapping[str, Any]) -> requests.Prompt:
        if not isinstance(prompt, str):
            raise ValueError(f"prompt={prompt!r}: must be a text; give messages to chat")
        if arguments.get("tools"):
            raise ValueError("tools: a completion has no place for tool calls; give them to chat or chat_with_tools")
        if formatted:
            if arguments.get("thinking"):
                raise ValueError(
                    "thinking=True is asked for by the chat template: with formatted=True, write it into the prompt"
                )
            return prompt
        written = self._own_completion(prompt, arguments)
        return written if isinstance(written, str) else to_engine_messages(written)

    def _answer(self, prompt: requests.Prompt, overrides: Mapping[str, Any], respond: Respond[Response]) -> Response:
        call = self._whole_call(overrides)
        return finished_response(respond, requests.generate(self.engine, prompt, call), self.model)

    async def _aanswer(
        self, prompt: requests.Prompt, overrides: Mapping[str, Any], respond: Respond[Response]
    ) -> Response:
        call = self._whole_call(overrides)
        return finished_response(respond, await requests.agenerate(await self._aengine(), prompt, call), self.model)

    def _whole_call(self, overrides: Mapping[str, Any]) -> Call:
        call = self._call(overrides)
        if overrides.get("drafts") is not None and call.params.drafts:
            tell_unheard("drafts=True", "a method whose name has stream in it")
        return call

    def _stream(
        self, prompt: requests.Prompt, overrides: Mapping[str, Any], respond: Respond[Response]
    ) -> Iterator[Response]:
        call = self._call(overrides)
        return requests.stream(self.engine, prompt, call, StreamChunks(respond, self.model))

    async def _astream(
        self, prompt: requests.Prompt, overrides: Mapping[str, Any], respond: Respond[Response]
    ) -> AsyncIterator[Response]:
        call = self._call(overrides)
        return await requests.astream(await self._aengine(), prompt, call, StreamChunks(respond, self.model))


def _chat_respond(arguments: Mapping[str, Any]) -> ChatRespond:
    return ChatRespond(arguments.get("tool_names"))
