"""A chat that declares no tools is answered in words, even if its history holds calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dgemma_core import BlockEvent, Engine, Generation, Grammar, Message, Request, SamplingParams, ToolCall
from tests.checkpoints import make_model, make_tokenizer

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CHAT = [
    Message("user", "What is the weather in Zonel?"),
    Message("assistant", "", (ToolCall("get_weather", {"city": "Zonel"}, "1"),)),
    Message("tool", "It rains in Zonel, 12 degrees.", tool_call_id="1"),
    Message("user", "and?"),
]
CALL = ("<|tool_call>", "<tool_call|>", '<|"|>')


def params(seed: int) -> SamplingParams:
    return SamplingParams(seed=seed, max_new_tokens=24, canvas_length=16, max_denoising_steps=6)


def test_a_question_after_a_call_is_answered_in_words(embedded_engine: Engine) -> None:
    banned = set(embedded_engine.tokenizer.convert_tokens_to_ids(list(CALL)))
    handles = [embedded_engine.submit(CHAT, params(seed)) for seed in range(20)]
    for answer in [handle.result() for handle in handles]:
        assert answer.text
        assert (answer.tool_calls, answer.finish_reason in ("stop", "length")) == ((), True)
        assert not banned & set(answer.token_ids)


def test_a_declared_tool_is_still_called(embedded_engine: Engine) -> None:
    answer = embedded_engine.submit(CHAT[:1], params(0), tools=[TOOL]).result()
    assert [call.name for call in answer.tool_calls] == ["get_weather"]


def test_a_stream_without_tools_has_no_call(embedded_engine: Engine) -> None:
    handle = embedded_engine.submit(CHAT, params(0))
    blocks = [event for event in handle if isinstance(event, BlockEvent)]
    assert not any(block.tool_calls for block in blocks)
    assert "".join(block.text for block in blocks) == handle.result().text


@pytest.fixture(scope="module")
def eager_to_call() -> Iterator[Engine]:
    """Random weights whose favourite token is made one that opens a call."""
    model, tokenizer = make_model(never_ends=True), make_tokenizer()
    with Engine.from_model(model, tokenizer) as engine:
        said = [token for prompt in ("fox", "dog") for token in engine.submit(prompt, params(0)).result().token_ids]
    weight = model.lm_head.weight.data
    weight[tokenizer.convert_tokens_to_ids("<|tool_call>")] = 3 * weight[max(said, key=said.count)]
    with Engine.from_model(model, tokenizer) as engine:
        yield engine


def calls_in(answer: Generation, engine: Engine) -> bool:
    return bool({engine.tokenizer.convert_tokens_to_ids(token) for token in CALL} & set(answer.token_ids))


def test_only_messages_without_tools_are_held_to_words(eager_to_call: Engine) -> None:
    """Raw text and token ids may declare tools in their own words, and a grammar may spell a call."""
    engine = eager_to_call
    ids = engine.encode_markup("<|turn>user\nfox<turn|>\n<|turn>model\n")
    cases = {
        "chat": (Request([Message("user", "fox")], params(0)), False),
        "chat, no calls": (Request([Message("user", "fox")], params(0), tool_choice="none"), False),
        "chat, thinking": (Request([Message("user", "fox")], params(0), thinking=True), False),
        "raw text": (Request("fox", params(0)), True),
        "token ids": (Request(ids, params(0)), True),
        "token ids, no calls": (Request(ids, params(0), tool_choice="none"), False),
    }
    for name, (request, wanted) in cases.items():
        assert calls_in(engine.submit(request).result(), engine) == wanted, name
    own = Grammar.lark('start: <|tool_call> "call:f{}" <tool_call|>')
    (call,) = engine.submit([Message("user", "fox")], SamplingParams(grammar=own, seed=0)).result().tool_calls
    assert call.name == "f"


def test_a_chat_and_a_raw_prompt_share_a_step(eager_to_call: Engine) -> None:
    requests = [Request(prompt, params(3)) for prompt in ([Message("user", "fox")], "fox", [Message("user", "dog")])]
    handles = [eager_to_call.submit(request) for request in requests]
    together = [handle.result().token_ids for handle in handles]
    assert together == [eager_to_call.submit(request).result().token_ids for request in requests]
    assert [calls_in(handle.result(), eager_to_call) for handle in handles] == [False, True, False]
