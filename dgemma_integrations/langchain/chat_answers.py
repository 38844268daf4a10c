"""The methods by which LangChain asks a chat model: whole, streamed or as protocol events, each also async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, BaseRunManager, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.utils.utils import LC_ID_PREFIX

from dgemma_core.api.events import DraftEvent
from dgemma_core.api.messages import Message
from dgemma_integrations.langchain import requests
from dgemma_integrations.langchain.chat_settings import ChatSettings
from dgemma_integrations.langchain.lists import WholeLists
from dgemma_integrations.langchain.messages import ato_engine_messages, to_engine_messages
from dgemma_integrations.langchain.protocol_events import EventWriter
from dgemma_integrations.langchain.responses import ChunkWriter, chat_result
from dgemma_integrations.langchain.settings import Call
from dgemma_integrations.shared.unheard import tell_unheard

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData


class ChatAnswers(WholeLists, ChatSettings, BaseChatModel):
    """A chat model that answers from an engine."""

    if TYPE_CHECKING:
        # WholeLists serves runnables of any output.
        def batch(  # noqa: D102
            self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
        ) -> list[AIMessage]: ...
        async def abatch(  # noqa: D102
            self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
        ) -> list[AIMessage]: ...

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._without_draft_events(stop, kwargs)
        prompt = self._prompt(messages)
        (generation,) = requests.generate(self._engine(call.model), [prompt], call)
        return chat_result(generation, call.model)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._without_draft_events(stop, kwargs)
        prompt = await self._aprompt(messages)
        (generation,) = await requests.agenerate(await self._aengine(call.model), [prompt], call)
        return chat_result(generation, call.model)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._without_draft_events(stop, kwargs)
        prompt = self._prompt(messages)
        writer = ChunkWriter(call.model)
        with closing(requests.stream(self._engine(call.model), prompt, call)) as events:
            for event in events:
                chunk = writer.chunk(event)
                # Without a run manager, LangChain itself reports the token.
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
        call = self._without_draft_events(stop, kwargs)
        prompt = await self._aprompt(messages)
        writer = ChunkWriter(call.model)
        # Without aclosing, an async generator that is left early is closed only when it is collected.
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
        prompt = self._prompt(messages)
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
        prompt = await self._aprompt(messages)
        chunks, writer = ChunkWriter(call.model), EventWriter(call.model, _message_id(run_manager))
        async with aclosing(requests.awatch(await self._aengine(call.model), prompt, call)) as events:
            async for event in events:
                if run_manager is not None and not isinstance(event, DraftEvent):
                    chunk = chunks.chunk(event)
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                for message in writer.events(event):
                    yield message

    def _without_draft_events(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> Call:
        call = self._call(stop, kwargs)
        if kwargs.get("draft_events") is not None and call.draft_events:
            tell_unheard("draft_events=True", 'stream_events(version="v3"), or on_draft')
        return call

    def _prompt(self, messages: list[BaseMessage]) -> list[Message]:
        return to_engine_messages(messages, allow_image_urls=self.allow_image_urls)

    async def _aprompt(self, messages: list[BaseMessage]) -> list[Message]:
        return await ato_engine_messages(messages, allow_image_urls=self.allow_image_urls)


def _message_id(run_manager: BaseRunManager | None) -> str:
    return "" if run_manager is None else f"{LC_ID_PREFIX}-{run_manager.run_id}"
