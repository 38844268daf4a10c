"""Assistant turns: their tokens become text, reasoning and tool calls, for any tokens."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import dgemma_core
from dgemma_core import Engine, Grammar, Message, SamplingParams, ToolCall
from dgemma_core.chat.call_parser import MAX_DEPTH
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.chat.template import ChatTemplate
from dgemma_core.chat.turn import Turn
from dgemma_core.engine.sequence import Sequence as EngineSequence
from tests.helpers.call_writer import format_call, format_value

TOKENIZER = PreTrainedTokenizerFast.from_pretrained(Path(dgemma_core.__file__).parent / "embedded")
TEMPLATE = ChatTemplate(TOKENIZER)
SPELLINGS = [
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    '<|"|>',
    "<|turn>",
    "<pad>",
    "<|tool_response>",
]
QUESTION = Message("user", "question")


def ids_of(text: str) -> list[int]:
    """Tokens of a turn written with its control tokens spelled out."""
    return TEMPLATE.markup(text)


def read(ids: Sequence[int], sizes: Sequence[int] = (), stop: tuple[str, ...] = ()) -> Detokenizer:
    """Feed tokens in blocks of the given sizes, the rest as the last block, and check what holds for any turn."""
    detokenizer, at = Detokenizer(TOKENIZER, stop), 0
    texts: list[str] = []
    kept: list[int] = []
    for index in range(len(sizes) + 1):
        last = index == len(sizes)
        part = ids[at:] if last else ids[at : at + sizes[index]]
        at += len(part)
        text, tokens, stopped = detokenizer.add(part, last)
        texts.append(text)
        kept.extend(tokens)
        if stopped:
            break
    else:
        assert detokenizer.kept == list(ids)
    assert "".join(texts) == detokenizer.text
    assert kept == detokenizer.kept == list(ids[: len(kept)])
    return detokenizer


def calls(detokenizer: Detokenizer) -> list[tuple[str, Any]]:
    return [(call.name, call.arguments) for call in detokenizer.tool_calls]


def outcome(detokenizer: Detokenizer) -> tuple[Any, ...]:
    return detokenizer.text, detokenizer.kept, calls(detokenizer), detokenizer.reasoning


def arguments_of(written: str) -> Any:
    """Arguments of the only call of a turn, which has nothing else."""
    detokenizer = read(ids_of(f"<|tool_call>call:f{written}<tool_call|>"))
    assert detokenizer.text == ""
    [(name, arguments)] = calls(detokenizer)
    assert name == "f"
    return arguments


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{}", {}),
        ("{ }", {}),
        ('{a:<|"|>x<|"|>}', {"a": "x"}),
        ('{a:<|"|><|"|>}', {"a": ""}),
        ('{a:<|"|> {x:[1],} "quoted"\n<|"|>}', {"a": ' {x:[1],} "quoted"\n'}),
        ("{a:0}", {"a": 0}),
        ("{a:-12}", {"a": -12}),
        ("{a:1.5}", {"a": 1.5}),
        ("{a:-0.25}", {"a": -0.25}),
        ("{a:1e-07}", {"a": 1e-07}),
        ("{a:2E+3}", {"a": 2000.0}),
        ("{a:true,b:false,c:null}", {"a": True, "b": False, "c": None}),
        ("{a:{}}", {"a": {}}),
        ("{a:[]}", {"a": []}),
        ("{a:{b:{c:[1,[2,{d:null}]]}}}", {"a": {"b": {"c": [1, [2, {"d": None}]]}}}),
        ('{ a : [ 1 , <|"|>x<|"|> , true ] ,\n b : { } }', {"a": [1, "x", True], "b": {}}),
        ("{first name:1}", {"first name": 1}),
        ('{<|"|>a:b<|"|>:1}', {"a:b": 1}),
        ("{größe:1}", {"größe": 1}),
    ],
)
def test_values(written: str, expected: Any) -> None:
    arguments = arguments_of(written)
    assert arguments == expected
    assert [type(value) for value in arguments.values()] == [type(value) for value in expected.values()]


def test_several_calls_with_text_around() -> None:
    detokenizer = read(ids_of("One.<|tool_call>call:a.b-c{x:1}<tool_call|><|tool_call>call:d{}<tool_call|> Two."))
    assert detokenizer.text == "One. Two."
    assert calls(detokenizer) == [("a.b-c", {"x": 1}), ("d", {})]
    ids = [call.id for call in detokenizer.tool_calls]
    assert len(set(ids)) == 2
    assert all(re.fullmatch("call_[0-9a-f]{24}", i) for i in ids)


def test_empty_thought_block_is_nothing() -> None:
    assert outcome(read(ids_of("<|channel>thought\n<channel|>Hello")))[0::3] == ("Hello", "")


def test_thought_block_is_reasoning() -> None:
    detokenizer = read(
        ids_of(
            "<|channel>thought\nThe user\nasks.\n<channel|>Hello<|channel>thought\nMore<channel|><|channel>x<channel|>"
        )
    )
    assert detokenizer.text == "Hello"
    assert detokenizer.reasoning == "The user\nasks.\nMore\nx"


def test_calls_in_thoughts_are_not_made() -> None:
    detokenizer = read(ids_of("<|channel>thought\nMaybe <|tool_call>call:f{}<tool_call|>?<channel|>No."))
    assert (detokenizer.text, calls(detokenizer)) == ("No.", [])
    assert detokenizer.reasoning == "Maybe call:f{}?"


def test_thought_cut_off_by_the_end_is_reasoning() -> None:
    detokenizer = read(ids_of("<|channel>thought\nStill think"), [3])
    assert (detokenizer.text, detokenizer.reasoning) == ("", "Still think")


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "call",
        "call:",
        "call:f",
        "call:{}",
        "f{}",
        "call:f{}{}",
        "call:f[]",
        "call:f{a}",
        "call:f{a:}",
        "call:f{:1}",
        "call:f{a:1,}",
        "call:f{,}",
        "call:f{a:1 b:2}",
        "call:f{a:[1}",
        "call:f{a:[1,]}",
        "call:f{a:1",
        "call:f{a:word}",
        "call:f{a:007}",
        "call:f{a:1_0}",
        "call:f{a:１}",
        "call:f{a:+1}",
        "call:f{a:nan}",
        "call:f{a:inf}",
        "call:f{a:1e999}",
        'call:f{a:<|"|>x}',
        'call:f{a:<|"|>x<|"|><|"|>y<|"|>}',
        'call:f{a:"x"}',
        "call:f{a:<pad>1}",
        f"call:f{{a:{'9' * 5000}}}",
        f"call:f{{a:{'[' * 5000}{']' * 5000}}}",
        f"call:f{{a:{'[' * MAX_DEPTH}{']' * MAX_DEPTH}}}",
    ],
)
def test_malformed_calls_are_text(inside: str) -> None:
    detokenizer = read(ids_of(f"A<|tool_call>{inside}<tool_call|>B"))
    assert calls(detokenizer) == []
    assert detokenizer.text == "A" + inside.replace('<|"|>', "").replace("<pad>", "") + "B"


def test_the_deepest_arguments() -> None:
    inner = MAX_DEPTH - 1
    assert format_value(arguments_of(f"{{a:{'[' * inner}{']' * inner}}}")["a"]) == "[" * inner + "]" * inner


@pytest.mark.parametrize("opening", ["<|tool_call>", "<|channel>thought\n"])
def test_a_call_cut_off_is_text(opening: str) -> None:
    detokenizer = read(ids_of(f"A<|tool_call>call:f{{a:1{opening}call:g{{}}<tool_call|>"))
    assert detokenizer.text == "Acall:f{a:1"
    assert calls(detokenizer) == ([("g", {})] if "tool" in opening else [])


def test_an_unfinished_call_is_held_back_then_text() -> None:
    ids = ids_of("Text<|tool_call>call:f{")
    detokenizer = Detokenizer(TOKENIZER)
    assert detokenizer.add(ids, last=False)[0] == "Text"
    assert detokenizer.add(ids_of("a:1"), last=False) == ("", (), False)
    assert detokenizer.add(ids_of(" oh"), last=True)[0] == "call:f{a:1 oh"
    assert detokenizer.tool_calls == ()


def test_closings_without_an_opening_are_nothing() -> None:
    assert outcome(read(ids_of('A<tool_call|>B<channel|>C<|"|>D')))[0::2] == ("ABCD", [])


def test_typed_look_alikes_stay_text() -> None:
    text = '<|channel>thought\nx<channel|><|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>'
    assert outcome(read(TEMPLATE.plain(text)))[0::2] == (text, [])


def test_look_alikes_inside_a_call_stay_its_text() -> None:
    ids = [*ids_of('<|tool_call>call:f{a:<|"|>'), *TEMPLATE.plain('<|"|>}<tool_call|>'), *ids_of('<|"|>}<tool_call|>')]
    assert calls(read(ids)) == [("f", {"a": '<|"|>}<tool_call|>'})]


def test_stop_strings_are_looked_for_in_text_only() -> None:
    ids = ids_of('<|channel>thought\nEND<channel|>A<|tool_call>call:f{a:<|"|>END<|"|>}<tool_call|>B')
    assert outcome(read(ids, [4, 4], stop=("END",)))[0::2] == ("AB", [("f", {"a": "END"})])


def test_calls_after_a_stop_string_are_not_made() -> None:
    ids = ids_of("A <|tool_call>call:f{}<tool_call|>STOP<|tool_call>call:g{}<tool_call|>B")
    chooser = random.Random(0)
    for _ in range(50):
        detokenizer = read(ids, [chooser.randint(1, 5) for _ in range(chooser.randint(0, 8))], stop=("STOP",))
        assert (detokenizer.text, calls(detokenizer)) == ("A ", [("f", {})])


def test_a_stop_string_in_a_malformed_call_stops() -> None:
    assert read(ids_of("A<|tool_call>one STOP two"), [2], stop=("STOP",)).text == "Aone "


def test_drafts_go_on_where_the_answer_stands() -> None:
    detokenizer = Detokenizer(TOKENIZER)
    detokenizer.add(ids_of("Text<|tool_call>call:f{a:"), last=False)
    assert detokenizer.decode(ids_of("1}<tool_call|> more")) == " more"
    assert detokenizer.decode(ids_of("1")) == ""
    assert detokenizer.decode(ids_of("bad<tool_call|> more")) == "bad more"  # Without what came before.
    assert detokenizer.add(ids_of("2}<tool_call|>"), last=True)[0] == ""
    assert calls(detokenizer) == [("f", {"a": 2})]
    assert detokenizer.decode(ids_of("more")) == "more"


class Counting:
    """A tokenizer that counts how often it decodes."""

    def __init__(self) -> None:
        self.decodes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(TOKENIZER, name)

    def decode(self, *args: Any, **options: Any) -> str:
        self.decodes += 1
        return str(TOKENIZER.decode(*args, **options))


def test_plain_text_is_decoded_once() -> None:
    tokenizer = Counting()
    assert Detokenizer(tokenizer).add(ids_of("The quick brown fox"), last=True)[0] == "The quick brown fox"
    assert tokenizer.decodes == 1


def test_what_a_tokenizer_lacks_is_off() -> None:
    class Poor(Counting):
        def convert_tokens_to_ids(self, token: str) -> int:
            return int(TOKENIZER.convert_tokens_to_ids("<unk>" if token == "<tool_call|>" else token))

    turn = Turn(Poor())
    ids = ids_of("<|channel>thought\nx<channel|>A<|tool_call>call:f{}<tool_call|>B")
    turn.add(ids, last=True)
    assert TOKENIZER.decode([ids[i] for i in turn.visible], skip_special_tokens=True) == "Acall:f{}B"
    assert [thought.text for thought in turn.thoughts] == ["x"]


def test_random_splits_read_as_at_once() -> None:
    text = (
        '<|channel>thought\nHm, 你好.<channel|>One 🦊 <|tool_call>call:f{a:<|"|>ü🦊<|"|>,b:[1,{c:null}]}<tool_call|>two'
        "<|tool_call>call:bad{<tool_call|> three<|tool_call>call:g{}<tool_call|><|channel>x<channel|>été"
        "<|tool_call>call:h{"
    )
    ids = ids_of(text)
    whole = outcome(read(ids))
    assert whole[0] == "One 🦊 twocall:bad{ threeétécall:h{"
    assert whole[2:] == ([("f", {"a": "ü🦊", "b": [1, {"c": None}]}), ("g", {})], "Hm, 你好.\nx")
    chooser = random.Random(0)
    for _ in range(100):
        sizes = [chooser.randint(1, 9) for _ in range(chooser.randint(0, 12))]
        assert outcome(read(ids, sizes)) == whole
        assert outcome(read(ids, sizes, stop=("never",))) == whole


def test_formatting_is_the_templates() -> None:
    arguments = {
        "b": [1, 2.5, -1e-7, 1e22, True, None, (), {}],
        "B": {"Z": "x", "a": "y", "_": ""},
        "a": 'q"\n',
        "0": 0,
    }
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    conversation = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    rendered = TOKENIZER.apply_chat_template(conversation, tokenize=False)
    assert format_call("f", arguments) + "<turn|>" in rendered
    assert format_call("f", {"B": 1, "a": "x", "b": 2}) == '<|tool_call>call:f{a:<|"|>x<|"|>,B:1,b:2}<tool_call|>'


texts = st.one_of(st.text(max_size=20), st.lists(st.sampled_from([*SPELLINGS, "a", "}"]), max_size=4).map("".join))
keys = texts.filter(lambda key: key and key == key.strip(" \t\r\n") and not set(key) & set("{}[],:"))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
tool_calls = st.builds(
    ToolCall,
    name=st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True),
    arguments=st.dictionaries(keys, values, max_size=4),
)


def turn_of(message: Message) -> list[int]:
    """The tokens the chat template writes for an assistant message."""
    before = TEMPLATE.render([QUESTION]).ids
    ids = TEMPLATE.render([QUESTION, message]).ids
    assert ids[: len(before)] == before
    return ids[len(before) :]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(made=st.lists(tool_calls, min_size=1, max_size=3), content=st.sampled_from(["", "Let me see. <|tool_call>"]))
def test_history_reads_back(made: list[ToolCall], content: str) -> None:
    detokenizer = read(turn_of(Message("assistant", content, tuple(made))), [7, 7])
    assert detokenizer.text == content
    assert calls(detokenizer) == [(call.name, call.arguments) for call in made]
    # Equality alone takes 1, 1.0 and True for the same.
    assert canonical(detokenizer.tool_calls) == canonical(made)


def canonical(made: Sequence[ToolCall]) -> str:
    return json.dumps([call.arguments for call in made], sort_keys=True)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(raw=st.binary(max_size=60), sizes=st.lists(st.integers(1, 9), max_size=4))
def test_random_bytes_never_crash(raw: bytes, sizes: list[int]) -> None:
    ids = ids_of("<|tool_call>call:f{" + raw.decode("latin-1") + "}<tool_call|>")
    assert outcome(read(ids, sizes)) == outcome(read(ids))


pieces = st.sampled_from([ids_of(s) for s in (*SPELLINGS, "call:", "f", "{", "}", "[", "]", ",", "a:", "1", "\n")])
randoms = st.integers(0, len(TOKENIZER) - 1).map(lambda token: [token])


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(parts=st.lists(pieces | randoms, max_size=40), sizes=st.lists(st.integers(1, 9), max_size=4))
def test_random_tokens_never_crash(parts: list[list[int]], sizes: list[int]) -> None:
    ids = [token for part in parts for token in part]
    assert outcome(read(ids, sizes)) == outcome(read(ids))
    assert read(ids).text.startswith(read(ids, sizes, stop=("a:", "1}")).text)


def _close_with(monkeypatch: pytest.MonkeyPatch, ids: list[int], reason: str) -> None:
    """Have every request answer these tokens after its first canvas."""
    monkeypatch.setattr(EngineSequence, "close_canvas", lambda *_: (ids, reason))


@pytest.mark.parametrize(("reason", "expected"), [("stop", "tool_calls"), ("length", "length")])
def test_generation_has_calls_and_reasoning(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, reason: str, expected: str
) -> None:
    text = "<|channel>thought\nhm<channel|>ok<|tool_call>call:f{a:1}<tool_call|>"
    ids = ChatTemplate(tiny_engine.tokenizer).markup(text)
    _close_with(monkeypatch, ids, reason)
    [answer] = tiny_engine.generate(["x"], SamplingParams(max_new_tokens=16))
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("ok", "hm", expected)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("f", {"a": 1})]
    assert answer.token_ids == tuple(ids)
    assert answer.usage.completion_tokens == len(ids)


def test_generation_without_calls_just_stops(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _close_with(monkeypatch, ChatTemplate(tiny_engine.tokenizer).markup("ok<|tool_call>call:f{"), "stop")
    [answer] = tiny_engine.generate(["x"], SamplingParams(max_new_tokens=16))
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("okcall:f{", "stop", ())


def test_thinking_is_asked_for_by_the_template(embedded_engine: Engine) -> None:
    prompt = [Message("user", "The Vexal bridge was built in 1931.\n\nWhen was it built?")]
    plain, thinking = embedded_engine.count_tokens(prompt), embedded_engine.count_tokens(prompt, thinking=True)
    assert thinking > plain
    handle = embedded_engine.submit(prompt, SamplingParams(seed=0, max_new_tokens=4), thinking=True)
    assert handle.result().usage.prompt_tokens == thinking
    for text in ("Hello", [2, 3]):
        with pytest.raises(ValueError, match="thinking=True"):
            embedded_engine.submit(text, thinking=True)


def test_an_answer_that_must_fit_may_be_thought_about(embedded_engine: Engine) -> None:
    schema = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
    prompt = [Message("user", "The Vexal bridge was built in 1931.\n\nWhen was it built?")]
    params = SamplingParams(seed=0, max_new_tokens=64, max_denoising_steps=4, grammar=Grammar.json_schema(schema))
    generation = embedded_engine.submit(prompt, params, thinking=True).result()
    assert isinstance(json.loads(generation.text)["year"], int)
    with pytest.raises(ValueError, match="only JSON does"):
        embedded_engine.submit(prompt, SamplingParams(grammar=Grammar.choice(["a", "b"])), thinking=True)
