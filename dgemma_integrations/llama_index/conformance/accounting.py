"""Prompts, token counts and events of a call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate

from .base import ConformanceBase, needs
from .calls import STREAMS, each_endpoint, run, text_of, usage_of, usage_or_skip
from .recording import RecordingHandler, recorded

SYSTEM = "You answer like a sailor named Brontes."
PREDICT = PromptTemplate("{greeting} Name a river.")


class AccountingTests(ConformanceBase):
    """One call: the prompt that the model gets, the tokens that are counted, the events in traces."""

    # --- predict ---

    @pytest.mark.parametrize("method", ["predict", "apredict", "stream", "astream"])
    def test_predict(self, method: str) -> None:
        """Fails: ``LLM.system_prompt`` is lost, or ``predict`` breaks. Every synthesizer and selector uses it."""
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
        """Prompt tokens of the LLM call that ``work`` makes."""
        with recorded() as events:
            work()
        return usage_or_skip(events.ends[-1].response)[0]

    def test_chat_template_in_predict(self, llm: LLM) -> None:
        """Fails: prompts with several roles, like core's own chat refine prompts, do not work."""
        template = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "Name {what}.")])
        assert isinstance(llm.predict(template, what="a river {sic}"), str)

    # --- token counts ---

    @needs("reports_usage")
    @each_endpoint
    def test_usage_is_counted_once(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``TokenCountingHandler`` counts nothing, twice, or with a foreign tokenizer; so do budgets on it."""
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
        """Fails: events, agent outputs and stored chats cannot be written as JSON, or keep tensors alive. ``raw`` is in
        ``AgentStream``, ``AgentOutput`` and every end event.
        """
        for response in self.call(llm, endpoint):
            raw = response.raw.model_dump() if hasattr(response.raw, "model_dump") else response.raw
            assert len(json.dumps([raw, response.additional_kwargs])) < 100_000

    # --- events ---

    @each_endpoint
    def test_one_event_per_call(self, llm: LLM, endpoint: str) -> None:
        """Fails: traces show calls that never happened, and costs are counted twice or three times. The cause is an
        endpoint that calls another public one, as in ``CustomLLM``.
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
        """Fails: traces of streamed calls show only a piece of the answer."""
        with recorded() as events:
            chunks = self.call(llm, endpoint)
        kind = "LLMChatEndEvent" if "chat" in endpoint else "LLMCompletionEndEvent"
        assert events.named(kind), "no end event"
        for end in events.named(kind):
            assert text_of(end.response) == text_of(chunks[-1])

    @each_endpoint
    def test_rate_limiter_is_asked_once(self, llm: LLM, endpoint: str) -> None:
        """Fails: ``LLM.rate_limiter`` throttles nothing, or twice as much as it should."""

        class Limiter:
            asked = 0

            def acquire(self) -> None:
                self.asked += 1

            async def async_acquire(self) -> None:
                self.asked += 1

        llm.rate_limiter = Limiter()
        self.call(llm, endpoint, **self.limit(2))
        assert llm.rate_limiter.asked == 1
