"""The answers of the eight endpoints."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse, MessageRole
from llama_index.core.llms.llm import LLM

from .base import ConformanceBase, needs
from .calls import ENDPOINTS, each_endpoint, text_of, usage_of


class AnswerTests(ConformanceBase):
    """One call: its answer."""

    @each_endpoint
    def test_endpoint_answers(self, llm: LLM, endpoint: str) -> None:
        """Fails: the endpoint cannot be used. Core calls each of the eight somewhere."""
        responses = self.call(llm, endpoint)
        assert responses, "no response"
        for response in responses:
            if "chat" in endpoint:
                assert isinstance(response, ChatResponse)
                assert response.message.role == MessageRole.ASSISTANT
            else:
                assert isinstance(response, CompletionResponse)
        assert text_of(responses[-1]).strip(), "an empty answer"

    @needs("is_deterministic")
    def test_endpoints_agree(self, llm: LLM) -> None:
        """Fails: an index gives different answers sync, async and streamed. On a chat model ``complete`` is one user
        message (``base/llms/base.py``), so all eight must give the same answer.
        """
        answers = {endpoint: self.answer(llm, endpoint) for endpoint in ENDPOINTS}
        if not llm.metadata.is_chat_model:
            answers = {name: text for name, text in answers.items() if "chat" not in name}
        assert len(set(answers.values())) == 1, answers

    def test_answer_is_one_text_block(self, llm: LLM) -> None:
        """Fails: ``ChatMessage.content`` puts newlines inside the answer, because it joins text blocks with them."""
        (response,) = self.call(llm, "chat")
        texts = [block for block in response.message.blocks if block.block_type == "text"]
        assert len(texts) == 1, response.message.blocks

    def test_no_markup_of_thoughts_in_answer(self, llm: LLM) -> None:
        """Fails: thoughts end up in answers, summaries and JSON. They belong in a ``ThinkingBlock``."""
        for endpoint in ("chat", "complete"):
            text = self.answer(llm, endpoint)
            assert not [mark for mark in self.thinking_marks if mark in text], text

    @needs("thinking_params")
    def test_thoughts_are_a_block(self) -> None:
        """Fails: a UI cannot show thoughts apart from the answer, and agents take them for the answer."""
        llm = self.make(**(self.thinking_params or {}))
        (response,) = self.call(llm, "chat")
        thoughts = [block for block in response.message.blocks if block.block_type == "thinking"]
        assert thoughts, response.message.blocks
        assert all(block.content not in text_of(response) for block in thoughts if block.content)

    @needs("supports_max_tokens")
    @each_endpoint
    def test_max_tokens_of_one_call(self, llm: LLM, endpoint: str) -> None:
        """Fails: a limit is ignored, so costs and waiting times are not bounded. ``DocumentContextExtractor`` sends
        ``max_tokens`` with each call.
        """
        full, cut = self.call(llm, endpoint)[-1], self.call(llm, endpoint, **self.limit(1))[-1]
        if self.reports_usage and usage_of(cut)[1]:
            assert usage_of(cut)[1] == 1
        if len(text_of(full)) > 12:
            assert len(text_of(cut)) < len(text_of(full)), (text_of(cut), text_of(full))

    @needs("supports_stop", "is_deterministic")
    @each_endpoint
    def test_stop_of_one_call(self, llm: LLM, endpoint: str) -> None:
        """Fails: the answer goes on after a stop string, or includes it. ReAct loops invent their own observations."""
        full = self.answer(llm, endpoint)
        stop = full[len(full) // 2 :][:3]
        if not stop:
            pytest.skip("the answer is too short to stop in")
        assert self.answer(llm, endpoint, **{self.stop_kwarg: [stop]}) == full[: full.index(stop)]

    @each_endpoint
    def test_what_core_sends_is_accepted(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``DocumentContextExtractor`` (``extra_headers``) and programs (tool switches) get a TypeError."""
        extra = {"extra_headers": {"anthropic-beta": "x"}, "tool_choice": None, "verbose": False, **self.limit(2)}
        assert self.call(llm, endpoint, **extra)

    @needs("refuses_unknown_kwargs")
    @each_endpoint
    def test_unknown_kwarg_is_named(self, llm: LLM, endpoint: str) -> None:
        """Fails: a misspelt setting has no effect, and nobody notices."""
        with pytest.raises(Exception, match="max_tokns"):
            self.call(llm, endpoint, max_tokns=3)

    @pytest.mark.parametrize("endpoint", [name for name in ENDPOINTS if "complete" in name])
    def test_formatted_prompt(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``predict`` breaks on a model that is no chat model, because it always passes ``formatted=True``."""
        prompt = self.formatted_prompt or self.prompt
        text = self.answer(llm, endpoint, prompt, formatted=True)
        if self.formatted_prompt is not None and self.is_deterministic:
            assert text == self.answer(llm, endpoint)
