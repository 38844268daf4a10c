"""The eight endpoints, what is built on them, their events, their token counts and their errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse, MessageRole
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.response_synthesizers import Refine

from .base import (
    ENDPOINTS,
    STREAMS,
    ConformanceBase,
    RecordingHandler,
    chat,
    each_endpoint,
    needs,
    recorded,
    run,
    text_of,
    usage_of,
    usage_or_skip,
    within,
)

SYSTEM = "You answer like a sailor named Brontes."
PREDICT = PromptTemplate("{greeting} Name a river.")


class EndpointTests(ConformanceBase):
    """One call: what comes back, what is counted, what is raised."""

    # --- answers ---

    @each_endpoint
    def test_endpoint_answers(self, llm: LLM, endpoint: str) -> None:
        """Fails: the endpoint cannot be used at all. Core calls each of the eight somewhere."""
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
        """Fails: an index answers differently sync, async and streamed. ``complete`` on a chat model is one user
        message (``base/llms/base.py``), so that all eight say the same.
        """
        answers = {endpoint: self.answer(llm, endpoint) for endpoint in ENDPOINTS}
        if not llm.metadata.is_chat_model:
            answers = {name: text for name, text in answers.items() if "chat" not in name}
        assert len(set(answers.values())) == 1, answers

    def test_answer_is_one_text_block(self, llm: LLM) -> None:
        """Fails: ``ChatMessage.content`` puts newlines inside the answer, since it joins text blocks with them."""
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
        """Fails: a UI cannot show thoughts apart, and agents read them as the answer."""
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
        """Fails: the answer runs on past a stop string, or includes it; ReAct loops invent their own observations."""
        full = self.answer(llm, endpoint)
        stop = full[len(full) // 2 :][:3]
        if not stop:
            pytest.skip("the answer is too short to stop in")
        assert self.answer(llm, endpoint, **{self.stop_kwarg: [stop]}) == full[: full.index(stop)]

    @each_endpoint
    def test_what_core_sends_is_accepted(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``DocumentContextExtractor`` (``extra_headers``) and the tool switches of programs are a TypeError."""
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
        """Fails: ``predict`` on a model that is no chat model breaks: it always passes ``formatted=True``."""
        prompt = self.formatted_prompt or self.prompt
        text = self.answer(llm, endpoint, prompt, formatted=True)
        if self.formatted_prompt is not None and self.is_deterministic:
            assert text == self.answer(llm, endpoint)

    # --- predict ---

    @pytest.mark.parametrize("method", ["predict", "apredict", "stream", "astream"])
    def test_predict(self, method: str) -> None:
        """Fails: ``LLM.system_prompt`` is lost, or ``predict`` breaks: every synthesizer and selector goes this way."""
        llm = self.make(system_prompt=SYSTEM)

        async def work() -> str:
            result = getattr(llm, method)(PREDICT, greeting="Ahoy.")
            if method == "stream":
                return "".join(result)
            if method == "predict":
                return str(result)
            result = await result
            return str(result) if method == "apredict" else "".join([token async for token in result])

        with recorded() as events:
            text = run(work())
        assert isinstance(text, str)
        assert text.strip()
        assert SYSTEM in events.prompted()
        assert "Ahoy. Name a river." in events.prompted()
        assert [len(events.starts), len(events.ends)] == [1, 1]

    @needs("reports_usage")
    def test_system_prompt_reaches_the_model(self) -> None:
        """Fails: the system prompt is in the events, yet the model never reads it."""
        counts = [
            self.count_prompt(lambda extra=extra: self.make(**extra).predict(PREDICT, greeting="Ahoy."))
            for extra in ({}, {"system_prompt": SYSTEM})
        ]
        assert counts[1] > counts[0]

    def count_prompt(self, work: Any) -> int:
        """Prompt tokens of the LLM call that some work makes."""
        with recorded() as events:
            work()
        return usage_or_skip(events.ends[-1].response)[0]

    def test_chat_template_in_predict(self, llm: LLM) -> None:
        """Fails: prompts with several roles, such as core's own chat refine prompts, do not work."""
        template = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "Name {what}.")])
        assert isinstance(llm.predict(template, what="a river {sic}"), str)

    # --- token counts ---

    @needs("reports_usage")
    @each_endpoint
    def test_usage_is_counted_once(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``TokenCountingHandler``, and any budget on it, counts nothing, twice, or with a foreign tokenizer."""
        counter = TokenCountingHandler(tokenizer=lambda text: ["x"] * 12345)
        llm.callback_manager = CallbackManager([counter])
        response = self.call(llm, endpoint)[-1]
        prompt, completion = usage_of(response)
        assert prompt > 0
        assert completion > 0
        (count,) = counter.llm_token_counts
        assert [count.prompt_token_count, count.completion_token_count] == [prompt, completion]

    @each_endpoint
    def test_raw_is_plain_data(self, llm: LLM, endpoint: str) -> None:
        """Fails: events, agent outputs and stored chats cannot be written as JSON, or hold on to tensors. ``raw`` goes
        into ``AgentStream``, ``AgentOutput`` and every end event.
        """
        for response in self.call(llm, endpoint):
            raw = response.raw.model_dump() if hasattr(response.raw, "model_dump") else response.raw
            assert len(json.dumps([raw, response.additional_kwargs])) < 100_000

    # --- events ---

    @each_endpoint
    def test_one_event_per_call(self, llm: LLM, endpoint: str) -> None:
        """Fails: traces show calls that never happened, and costs are counted twice or three times. It comes from an
        endpoint that calls another public one, as ``CustomLLM`` does.
        """
        handler = RecordingHandler()
        llm.callback_manager = CallbackManager([handler])
        with recorded() as events:
            self.call(llm, endpoint)
        kind = "LLMChat" if "chat" in endpoint else "LLMCompletion"
        assert [type(event).__name__ for event in events.starts] == [f"{kind}StartEvent"]
        assert [type(event).__name__ for event in events.ends] == [f"{kind}EndEvent"]
        assert len(handler.started) == 1
        assert handler.ended == handler.started
        assert not handler.failures
        assert json.dumps(events.starts[0].model_dict)

    @pytest.mark.parametrize("endpoint", STREAMS)
    def test_stream_end_event_has_the_whole_answer(self, llm: LLM, endpoint: str) -> None:
        """Fails: traces of streamed calls show a piece of the answer."""
        with recorded() as events:
            chunks = self.call(llm, endpoint)
        kind = "LLMChatEndEvent" if "chat" in endpoint else "LLMCompletionEndEvent"
        assert events.named(kind), "no end event"
        for end in events.named(kind):
            assert text_of(end.response) == text_of(chunks[-1])

    @each_endpoint
    def test_rate_limiter_is_asked_once(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``LLM.rate_limiter`` throttles nothing, or twice as much as asked for."""

        class Limiter:
            asked = 0

            def acquire(self) -> None:
                self.asked += 1

            async def async_acquire(self) -> None:
                self.asked += 1

        llm.rate_limiter = Limiter()
        self.call(llm, endpoint, **self.limit(2))
        assert llm.rate_limiter.asked == 1

    # --- errors ---

    @property
    def long_prompt(self) -> str:
        """Far more than the context window."""
        return "river " * (2 * self.make().metadata.context_window)

    @needs("checks_context")
    @each_endpoint
    def test_long_prompt_is_an_error(self, llm: LLM, endpoint: str) -> None:
        """Fails: the prompt is cut or garbage comes back; or, where the error is a ValueError or TypeError, the default
        query engine swallows it and answers "Empty Response" (``response_synthesizers/refine.py``).
        """
        handler = RecordingHandler()
        llm.callback_manager = CallbackManager([handler])
        prompt = self.long_prompt
        with pytest.raises(Exception) as caught:  # noqa: PT011
            within(self.call_limit, lambda: self.call(llm, endpoint, prompt))
        assert not isinstance(caught.value, AssertionError), caught.value
        assert not isinstance(caught.value, ValueError | TypeError), repr(caught.value)[:300]
        assert len(handler.started) == len(handler.ended) == 1
        assert handler.failures
        assert self.call(llm, endpoint), "the LLM does not work after an error"

    @needs("checks_context")
    @pytest.mark.parametrize("streaming", [False, True])
    def test_query_engine_shows_the_error(self, llm: LLM, streaming: bool) -> None:
        """Fails: a question over documents that do not fit is answered "Empty Response", without a reason."""
        # A helper that thinks everything fits, as with the tokenizer of another model.
        helper = PromptHelper(context_window=10**8, num_output=8, tokenizer=str.split)
        synthesizer = Refine(llm=llm, prompt_helper=helper, streaming=streaming)
        prompt = self.long_prompt

        def ask() -> str:
            response = synthesizer.get_response("Which river?", [prompt])
            return response if isinstance(response, str) else "".join(response)  # type: ignore[arg-type]

        with pytest.raises(Exception) as caught:  # noqa: PT011
            pytest.fail(f"answered {within(self.call_limit, ask)!r}")
        assert not isinstance(caught.value, AssertionError), caught.value
        assert "Empty Response" not in str(caught.value)

    @each_endpoint
    def test_messages_are_not_changed(self, llm: LLM, endpoint: str) -> None:
        """Fails: a chat engine's memory grows or changes behind its back, since core passes its own lists."""
        messages = chat("Name a river.", "Name a colour.")
        before = [message.model_dump() for message in messages]
        self.call(llm, endpoint, messages if "chat" in endpoint else None, **self.limit(2))
        assert [message.model_dump() for message in messages] == before
