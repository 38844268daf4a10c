"""The chat template writes Gemma 4's wire format and tolerates what frameworks send."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from training.config import EMBEDDED
from training.data.mixture import DEFAULT_MIX, draw_tree, source_for
from training.tokenizer import CONTROL
from training.tree import encode_branches, render

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find_boat",
        "description": "Finds a boat.",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "The name."},
                "colors": {"type": "array", "items": {"type": "string"}},
                "mode": {"type": "string", "enum": ["a", "b"]},
            },
            "required": ["name"],
        },
    },
}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "find_boat", "arguments": {"name": "Ola", "n": 4, "b": True}},
}


pytestmark = pytest.mark.landing  # It trains a tokenizer and models.


def _text(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]], **options: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def test_control_tokens_and_sides(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids(CONTROL) == list(range(len(CONTROL)))
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token) == (0, 2, "<turn|>")
    assert tokenizer.padding_side == "left"
    assert len(tokenizer("2026", add_special_tokens=False).input_ids) == 4
    for text in ("你好 Zoë", "a\n- b", "x  y"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_the_template_is_the_one_that_ships(tokenizer: PreTrainedTokenizerFast) -> None:
    shipped = PreTrainedTokenizerFast.from_pretrained(EMBEDDED)
    assert tokenizer.chat_template == shipped.chat_template


def test_plain_conversation(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi"}]
    expected = "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\n"
    assert _text(tokenizer, messages, add_generation_prompt=True) == expected
    thinking = _text(tokenizer, messages[1:], enable_thinking=True)
    assert thinking == "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nHi<turn|>\n"


def test_tools_calls_and_results(tokenizer: PreTrainedTokenizerFast) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Find Ola"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "in port"},
    ]
    text = _text(tokenizer, messages, tools=[TOOL], add_generation_prompt=True)
    declared = (
        '<|tool>declaration:find_boat{description:<|"|>Finds a boat.<|"|>,parameters:{properties:{'
        'colors:{items:{type:<|"|>STRING<|"|>},type:<|"|>ARRAY<|"|>},'
        'mode:{enum:[<|"|>a<|"|>,<|"|>b<|"|>],type:<|"|>STRING<|"|>},'
        'name:{description:<|"|>The name.<|"|>,type:<|"|>STRING<|"|>}},'
        'required:[<|"|>name<|"|>],type:<|"|>OBJECT<|"|>}}<tool|>'
    )
    turn = (
        '<|tool_call>call:find_boat{b:true,n:4,name:<|"|>Ola<|"|>}<tool_call|>'
        '<|tool_response>response:find_boat{value:<|"|>in port<|"|>}<tool_response|>'
    )
    assert text == f"<bos><|turn>system\n{declared}<turn|>\n<|turn>user\nFind Ola<turn|>\n<|turn>model\n{turn}"
    closed = _text(tokenizer, [*messages, {"role": "assistant", "content": "It is in port."}], tools=[TOOL])
    assert closed == f"{text}It is in port.<turn|>\n"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, {"role": "user", "content": "c"}],
        [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}],
        [{"role": "user", "content": None}],
        [{"role": "tool", "content": "42", "name": "f"}],
    ],
)
def test_unusual_conversations_render(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]]) -> None:
    text = _text(tokenizer, messages, add_generation_prompt=True)
    assert text.startswith("<bos><|turn>")
    assert text.count("<|turn>") - text.count("<turn|>") == 1


def test_training_sees_what_the_template_writes(tokenizer: PreTrainedTokenizerFast) -> None:
    source = source_for("rendered", held_out=False)
    for _ in range(25):
        tree = draw_tree(source, DEFAULT_MIX | {"infill": 0.0}, 1.0)  # Blanks stand in raw text, not in a chat.
        for branch, encoded in zip(tree, encode_branches(tokenizer, tree), strict=True):
            prompt, target = render(tokenizer, branch)
            ids = tokenizer.apply_chat_template(branch.messages, tools=branch.tools, add_generation_prompt=True)
            assert encoded.prompt == ids["input_ids"]
            if branch.asked:  # Typed answers are laid out by the engine's own writer of templates.
                continue
            assert tokenizer.decode(encoded.target) == target
            # Later turns read the answer as part of one text: the split must not change its tokens.
            whole = tokenizer(prompt + target, add_special_tokens=False).input_ids
            assert whole == encoded.prompt + encoded.target
