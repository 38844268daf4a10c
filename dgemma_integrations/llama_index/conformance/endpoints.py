"""The eight endpoints: their answers, events, token counts and errors."""

from __future__ import annotations

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.response_synthesizers import Refine

from .accounting import AccountingTests
from .answers import AnswerTests
from .base import needs
from .calls import chat, each_endpoint, within
from .recording import RecordingHandler


class EndpointTests(AnswerTests, AccountingTests):
    """One call: its answer, its token counts, its errors."""

    @property
    def long_prompt(self) -> str:
        """Far more than the context window."""
        return "river " * (2 * self.make().metadata.context_window)

    @needs("checks_context")
    @each_endpoint
    def test_long_prompt_is_an_error(self, llm: LLM, endpoint: str) -> None:
        """Fails: the prompt is cut, or the answer is garbage. If the error is a ValueError or TypeError, the default
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
        # A helper for which everything fits, as with the tokenizer of another model.
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
        """Fails: a chat engine's memory grows or changes unnoticed, because core passes its own lists."""
        messages = chat("Name a river.", "Name a colour.")
        before = [message.model_dump() for message in messages]
        self.call(llm, endpoint, messages if "chat" in endpoint else None, **self.limit(2))
        assert [message.model_dump() for message in messages] == before
