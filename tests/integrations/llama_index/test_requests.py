"""What becomes of a call's request."""

from __future__ import annotations

import pytest
from llama_index.core.llms import ChatMessage

from dgemma_core import Message
from dgemma_core.errors import ContextOverflowError, RequestTimeoutError
from dgemma_integrations.llama_index import DiffusionGemma


def test_empty_prompts_are_refused(llm: DiffusionGemma) -> None:
    for call in (llm.complete, llm.stream_complete):
        with pytest.raises(ValueError, match="nothing to answer"):
            call("")
        with pytest.raises(ValueError, match="nothing to answer"):
            call("", formatted=True)
    with pytest.raises(ValueError, match="nothing to answer"):
        llm.chat([])


async def test_overflow_is_raised_by_the_call_itself(tiny_checkpoint: str) -> None:
    llm = DiffusionGemma(model=tiny_checkpoint, max_context=64, max_tokens=16)
    long = [ChatMessage(content="word " * 200)]
    for call in (llm.chat, llm.stream_chat):
        with pytest.raises(ContextOverflowError) as caught:
            call(long)
        assert caught.value.context_window == 64
        assert caught.value.max_new_tokens == 16
        assert not isinstance(caught.value, ValueError)
    for acall in (llm.achat, llm.astream_chat):
        with pytest.raises(ContextOverflowError):
            await acall(long)
    with pytest.raises(ContextOverflowError):
        llm.stream_complete("word " * 200)


def test_the_templates_own_markup_may_cost_answer_tokens(tiny_checkpoint: str) -> None:
    # PromptHelper counts text only; without this, packing the window as it does would overflow by a few tokens.
    llm = DiffusionGemma(model=tiny_checkpoint, max_tokens=16, max_denoising_steps=1)
    prompt = llm.engine.count_tokens([Message("user", "a short question")])
    tight = DiffusionGemma(model=tiny_checkpoint, max_tokens=16, max_denoising_steps=1, max_context=prompt + 14)
    assert tight.complete("a short question").raw["usage"]["completion_tokens"] == 14
    too_tight = DiffusionGemma(model=tiny_checkpoint, max_tokens=200, max_denoising_steps=1, max_context=prompt + 14)
    with pytest.raises(ContextOverflowError):
        too_tight.complete("a short question")


def test_a_timeout_is_a_timeout_error(tiny_checkpoint: str) -> None:
    llm = DiffusionGemma(model=tiny_checkpoint, max_tokens=400, stop_at_eos=False, timeout=0.01)
    with pytest.raises(RequestTimeoutError):
        llm.complete("Count.")
    assert issubclass(RequestTimeoutError, TimeoutError)
    assert llm.complete("Count.", max_tokens=2, timeout=60).text is not None
