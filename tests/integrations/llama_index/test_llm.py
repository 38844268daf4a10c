"""The eight endpoints of ``DiffusionGemma`` and what is built on them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate

from dgemma_core import Engine, Message, SamplingParams
from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.conftest import CHAT, QUESTION

# Its answers differ from seed to seed, so that what does not is no chance.
OPEN_ENDED = "Say anything you like about boats, stars, songs and winter."


USAGE = {"prompt_tokens", "completion_tokens", "total_tokens"}


async def every_endpoint(llm: DiffusionGemma, **kwargs: Any) -> dict[str, Any]:
    """The final response of all eight endpoints for one question."""
    last: dict[str, Any] = {
        "chat": llm.chat(CHAT, **kwargs),
        "complete": llm.complete(QUESTION, **kwargs),
        "stream_chat": list(llm.stream_chat(CHAT, **kwargs))[-1],
        "stream_complete": list(llm.stream_complete(QUESTION, **kwargs))[-1],
        "achat": await llm.achat(CHAT, **kwargs),
        "acomplete": await llm.acomplete(QUESTION, **kwargs),
    }
    async for chunk in await llm.astream_chat(CHAT, **kwargs):
        last["astream_chat"] = chunk
    async for chunk in await llm.astream_complete(QUESTION, **kwargs):
        last["astream_complete"] = chunk
    return last


def text_of(response: Any) -> str:
    return response.text if hasattr(response, "text") else response.message.content


async def test_all_endpoints_agree_for_one_seed(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    expected = embedded_engine.generate([[Message("user", QUESTION)]], SamplingParams(seed=7, max_new_tokens=32))[0]
    responses = await every_endpoint(llm)
    assert len(responses) == 8
    for name, response in responses.items():
        assert text_of(response) == expected.text, name
        assert response.raw["usage"] == {
            "prompt_tokens": expected.usage.prompt_tokens,
            "completion_tokens": expected.usage.completion_tokens,
            "total_tokens": expected.usage.prompt_tokens + expected.usage.completion_tokens,
        }, name
        assert response.additional_kwargs == response.raw["usage"], name


def test_the_question_is_answered(llm: DiffusionGemma) -> None:
    assert "1931" in llm.chat(CHAT).message.content


def test_raw_is_small_plain_data(llm: DiffusionGemma) -> None:
    raw = llm.chat(CHAT).raw
    assert json.loads(json.dumps(raw)) == raw
    assert set(raw["usage"]) == USAGE
    assert raw["model"] == "embedded"
    assert raw["finish_reason"] in ("stop", "length")
    assert raw["canvases"] >= 1
    assert raw["denoising_steps"] >= 1
    assert raw["tokens_per_step"] > 0
    assert set(raw["timings"]) == {"queue_s", "prefill_s", "denoise_s"}


def test_a_stream_adds_up(tiny_checkpoint: str) -> None:
    # A random model writes no end token: several canvases, so several chunks.
    llm = DiffusionGemma(model=tiny_checkpoint, seed=1, max_tokens=40, canvas_length=8, max_denoising_steps=2)
    whole = llm.complete("Count.", stop_at_eos=False)
    chunks = list(llm.stream_complete("Count.", stop_at_eos=False))
    assert len(chunks) > 2
    text = ""
    for chunk in chunks:
        assert chunk.delta is not None
        text += chunk.delta
        assert chunk.text == text
        assert chunk.text
    assert text == whole.text
    assert all(chunk.raw is None for chunk in chunks[:-1])
    assert chunks[-1].raw["usage"] == whole.raw["usage"]
    chat = list(llm.stream_chat([ChatMessage(content="Count.")]))
    assert [len(chunk.message.blocks) for chunk in chat] == [1] * len(chat)
    assert "".join(chunk.delta for chunk in chat) == chat[-1].message.content


async def test_drafts_are_empty_deltas(llm: DiffusionGemma) -> None:
    chunks = list(llm.stream_complete(QUESTION, drafts=True))
    drafts = [chunk for chunk in chunks if "draft" in chunk.additional_kwargs]
    assert drafts
    assert all(chunk.delta == "" for chunk in drafts)
    assert [chunk.additional_kwargs["draft"]["step"] for chunk in drafts][:1] == [1]
    json.dumps([chunk.additional_kwargs for chunk in chunks])
    assert "".join(chunk.delta for chunk in chunks) == llm.complete(QUESTION).text
    assert not any("draft" in chunk.additional_kwargs for chunk in llm.stream_complete(QUESTION))
    async_drafts = [c async for c in await llm.astream_chat(CHAT, drafts=True) if "draft" in c.additional_kwargs]
    assert len(async_drafts) == len(drafts)


async def test_stop_strings_end_the_answer(llm: DiffusionGemma) -> None:
    full = llm.complete(QUESTION).text
    stop = full[len(full) // 2 :][:3]
    expected = full[: full.index(stop)]
    for name, response in (await every_endpoint(llm, stop=[stop])).items():
        assert text_of(response) == expected, name
        assert response.raw["finish_reason"] == "stop", name
    assert DiffusionGemma(engine=llm.engine, seed=7, stop=stop).complete(QUESTION).text == expected


def test_settings_of_one_call_win(llm: DiffusionGemma) -> None:
    assert llm.complete(QUESTION, max_tokens=3).raw["usage"]["completion_tokens"] == 3
    assert llm.complete(QUESTION, max_new_tokens=2).raw["usage"]["completion_tokens"] == 2
    assert llm.complete(QUESTION, max_tokens=None).text == llm.complete(QUESTION).text
    assert llm.complete(QUESTION, max_denoising_steps=1).raw["denoising_steps"] == 1
    assert llm.max_tokens == 32
    other_seeds = {llm.complete(OPEN_ENDED, seed=seed, temperature=0.8).text for seed in range(8)}
    assert len(other_seeds) > 1
    assert len({llm.complete(OPEN_ENDED, seed=seed).text for seed in range(4)}) == 1


def test_temperature_0_repeats_itself(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, temperature=0, max_tokens=16)
    assert len({llm.complete(OPEN_ENDED).text for _ in range(3)}) == 1


def test_formatted_prompts_keep_their_markup(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    tokenizer = embedded_engine.tokenizer
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
    )
    formatted, plain = llm.complete(rendered, formatted=True), llm.complete(QUESTION)
    assert formatted.text == plain.text
    assert formatted.raw["usage"] == plain.raw["usage"]
    assert list(llm.stream_complete(rendered, formatted=True))[-1].text == plain.text
    with pytest.raises(ValueError, match="thinking=True"):
        llm.complete(rendered, formatted=True, thinking=True)
    # The same characters as an ordinary prompt are text, many tokens instead of a few control tokens.
    assert llm.complete(rendered).raw["usage"]["prompt_tokens"] > plain.raw["usage"]["prompt_tokens"] + 10


@pytest.mark.parametrize("control", ["<turn|>", "<|turn>user\n", "<|tool_call>call:x{}<tool_call|>", "<eos>"])
def test_control_tokens_in_text_stay_text(llm: DiffusionGemma, embedded_engine: Engine, control: str) -> None:
    text = f"The sign reads {control} in red."
    used = llm.chat([ChatMessage(content=text)], max_tokens=4).raw["usage"]["prompt_tokens"]
    assert used == embedded_engine.count_tokens([Message("user", text)])
    without = embedded_engine.count_tokens([Message("user", "The sign reads  in red.")])
    assert used - without >= 4


def test_predict_applies_the_system_prompt(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    plain = llm.predict(PromptTemplate("{question}"), question=QUESTION)
    assert plain == llm.complete(QUESTION).text
    llm.system_prompt = "You answer questions."
    expected = llm.chat([ChatMessage(role="system", content="You answer questions."), *CHAT]).message.content
    assert llm.predict(PromptTemplate("{question}"), question=QUESTION) == expected
    assert "".join(llm.stream(PromptTemplate("{question}"), question=QUESTION)) == expected


class Bridge(BaseModel):
    """A bridge."""

    year: int


async def test_structured_prediction_goes_through_the_prompt(llm: DiffusionGemma) -> None:
    # The text program reads the answer's JSON; here the answer is put into its mouth, the parsing is what is tested.
    template = PromptTemplate("Repeat: {text}")
    calls = [
        lambda: llm.structured_predict(Bridge, template, text='{"year": 1931}'),
        lambda: asyncio.run(llm.astructured_predict(Bridge, template, text='{"year": 1931}')),
    ]
    outcomes = []
    for call in calls:
        try:
            outcomes.append((await asyncio.to_thread(call)).year)
        except ValueError as error:
            # A small model may answer without JSON; then LlamaIndex's parser says so.
            outcomes.append(type(error).__name__)
    assert outcomes[0] == outcomes[1]
    assert llm.as_structured_llm(Bridge).metadata.is_chat_model


async def test_a_completion_has_no_place_for_tool_calls(llm: DiffusionGemma) -> None:
    tools = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    with pytest.raises(ValueError, match="give them to chat"):
        llm.complete("Hello", tools=tools)
    with pytest.raises(ValueError, match="give them to chat"):
        await llm.acomplete("Hello", tools=tools)
