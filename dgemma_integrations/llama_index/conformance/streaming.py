"""Streams: their chunks, events and usage."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest
from llama_index.core.base.llms.types import MessageRole
from llama_index.core.llms.llm import LLM

from .base import ConformanceBase, needs
from .calls import STREAMS, chat, each_stream, run, text_of, usage_of, within
from .recording import recorded


class StreamingTests(ConformanceBase):
    """Streams: cumulative text, new text in ``delta``, one end."""

    @each_stream
    def test_deltas_add_up(self, llm: LLM, endpoint: str) -> None:
        """Fails: words are lost, doubled or None in the UI. Query engines join ``delta`` (``llms/llm.py``,
        ``stream_chat_response_to_tokens``), and agents read the cumulative ``content``.
        """
        text = ""
        for chunk in self.call(llm, endpoint):
            assert chunk.delta is not None, "delta is None"
            text += chunk.delta
            assert text_of(chunk) == text, "the text is not the sum of the deltas so far"
            if "chat" in endpoint:
                assert chunk.message.role == MessageRole.ASSISTANT
        assert text.strip()

    @needs("is_deterministic")
    @each_stream
    def test_stream_says_what_the_plain_call_says(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``streaming=True`` changes the answer: lost last tokens, leading blanks, end marks."""
        plain = endpoint.replace("stream_", "")
        assert self.answer(llm, endpoint) == self.answer(llm, plain)

    @needs("reports_usage")
    @each_stream
    def test_last_chunk_carries_the_usage(self, llm: LLM, endpoint: str) -> None:
        """Fails: streamed calls cost nothing in token counters, which read only the last chunk's ``raw``."""
        chunks = self.call(llm, endpoint)
        prompt, completion = usage_of(chunks[-1])
        assert prompt > 0
        assert completion > 0
        if self.is_deterministic:
            plain = self.call(llm, endpoint.replace("stream_", ""))[-1]
            assert (prompt, completion) == usage_of(plain)

    @needs("streams_tokens")
    @each_stream
    def test_answer_comes_in_pieces(self, endpoint: str) -> None:
        """Fails: the user waits for the whole answer, because the stream has a single chunk."""
        chunks = within(self.call_limit, lambda: self.call(self.make_slow(), endpoint))
        assert sum(bool(chunk.delta) for chunk in chunks) > 1

    @pytest.mark.parametrize("endpoint", ["astream_chat", "astream_complete"])
    def test_async_stream_is_awaited_first(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``await llm.astream_chat(...)``, the only way in which core calls it, raises a TypeError."""

        async def work() -> None:
            call = getattr(llm, endpoint)(self.argument(endpoint))
            assert inspect.isawaitable(call)
            stream = await call
            assert hasattr(stream, "__aiter__")
            assert [chunk async for chunk in stream]

        run(work())

    @pytest.mark.parametrize("endpoint", ["stream_chat", "stream_complete"])
    def test_stream_is_consumed_in_another_thread(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``ChatEngine.stream_chat`` breaks. It makes the stream in one thread and reads it in another."""
        stream = getattr(llm, endpoint)(self.argument(endpoint))
        maker = threading.get_ident()

        def consume() -> list[Any]:
            assert threading.get_ident() != maker
            return list(stream)

        chunks = within(self.call_limit, consume)
        assert text_of(chunks[-1]).strip()

    @each_stream
    def test_chunks_are_not_changed_later(self, llm: LLM, endpoint: str) -> None:
        """Fails: chunks that events and agents keep change later, because one object is sent again and again."""
        chunks = self.call(llm, endpoint)
        texts = []
        text = ""
        for chunk in chunks:
            text += chunk.delta or ""
            texts.append(text)
        assert len({id(chunk) for chunk in chunks}) == len(chunks)
        assert [text_of(chunk) for chunk in chunks] == texts

    def test_progress_events(self, llm: LLM) -> None:
        """Fails: tracing tools do not see streamed text. Each chunk needs an event."""
        for endpoint in STREAMS:
            with recorded() as events:
                chunks = self.call(llm, endpoint)
            assert len(events.named("LLMChatInProgressEvent", "LLMCompletionInProgressEvent")) == len(chunks), endpoint

    @pytest.mark.parametrize("endpoint", ["chat", "stream_chat"])
    def test_chat_engine(self, llm: LLM, endpoint: str) -> None:
        """Fails: chat engines do not answer, or forget the conversation."""
        from llama_index.core.chat_engine import SimpleChatEngine
        from llama_index.core.memory import ChatMemoryBuffer

        memory = ChatMemoryBuffer.from_defaults(token_limit=1000, tokenizer_fn=str.split)
        engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory)

        def ask(text: str) -> str:
            response = getattr(engine, endpoint)(text)
            return "".join(response.response_gen) if endpoint == "stream_chat" else str(response)

        first = within(self.call_limit, lambda: ask("Name a river."))
        within(self.call_limit, lambda: ask("Name another."))
        history = engine.chat_history
        assert [message.role for message in history] == [MessageRole.USER, MessageRole.ASSISTANT] * 2
        assert history[1].content == first
        if self.is_deterministic and llm.metadata.is_chat_model:
            assert first == self.answer(llm, "chat", chat("Name a river."))
