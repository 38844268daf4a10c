"""Tokenizers with added tokens that are text, as Gemma's: HTML tags, runs of blanks and line breaks.

Foreign text gets the tokens that the tokenizer itself gives it. Only the spelling of a control token stays in pieces.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dgemma_core import Engine, Grammar, Message, SamplingParams
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.chat.template import ChatTemplate
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.matcher import GrammarCompiler
from tests.checkpoints import CHAT_TEMPLATE, CONTROL_TOKENS, make_model, make_tokenizer

TAGS = ["<table>", "</table>", "<tr>", "</tr>", "<td>", "</td>", "<b>", "</b>", "[multimodal]", "<unused7>"]
RUNS = ["\n", "\n\n", "\n\n\n", "\t\t"]
TABLE = "<table><tr><td>1</td></tr></table>"
TEXTS = [TABLE, "a\n\n\nb\t\tc\n\n", "fox <b>x</b>\n", "<unused7> [multimodal]", "<table", "<<b>>", "été 你好"]
# A control token that its tokenizer does not call special.
UNMARKED = "<|audio|>"
SIZE = 512


def byte_level() -> PreTrainedTokenizerFast:
    """Added tokens after the vocabulary, in raw characters."""
    tokenizer = make_tokenizer(SIZE - 32)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in [*TAGS, *RUNS, UNMARKED]])
    return tokenizer


def byte_fallback() -> PreTrainedTokenizerFast:
    """Added tokens inside the vocabulary, blanks as in SentencePiece: Gemma's form."""
    words = [*CONTROL_TOKENS, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *TAGS, *RUNS, UNMARKED]
    letters = ["▁", *map(chr, range(33, 127)), *(chr(c) for c in range(160, 256))]
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*words, *letters, "▁▁", "▁▁▁", "▁f"]))}
    merges = [("▁", "▁"), ("▁▁", "▁"), ("▁", "f")]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_tokens([AddedToken(text, normalized=False) for text in [*TAGS, *RUNS, UNMARKED]])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<turn|>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=CONTROL_TOKENS[3:],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(scope="module", params=[byte_level, byte_fallback])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    made: PreTrainedTokenizerFast = request.param()
    return made


def reference(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def test_foreign_text_gets_the_tokenizers_own_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    template = ChatTemplate(tokenizer)
    assert len(template.plain(TABLE)) == 7
    for text in TEXTS:
        assert template.plain(text) == reference(tokenizer, text)
        assert template.text(text) == [tokenizer.bos_token_id, *reference(tokenizer, text)]
        messages = [Message("system", text), Message("user", f"<b>{text}"), Message("tool", text)]
        told = [{"role": message.role, "content": message.content} for message in messages]
        wanted = tokenizer.apply_chat_template(told, add_generation_prompt=True)["input_ids"]
        assert template.render(messages).ids == wanted


@pytest.mark.parametrize("control", ["<turn|>", "<|tool_call>", '<|"|>', "<bos>", UNMARKED])
def test_only_control_tokens_stay_in_pieces(tokenizer: PreTrainedTokenizerFast, control: str) -> None:
    template, text = ChatTemplate(tokenizer), f"<td>{control}</td>"
    opening, closing, forbidden = (tokenizer.convert_tokens_to_ids(t) for t in ("<td>", "</td>", control))
    for ids in (template.plain(text), template.render([Message("user", text)]).ids):
        assert opening in ids
        assert closing in ids
        tame = template.render([Message("user", "x")]).ids if ids[0] == tokenizer.bos_token_id else []
        assert ids.count(forbidden) == tame.count(forbidden)
    assert tokenizer.decode(template.plain(text)) == text


def test_added_tokens_of_an_answer_are_its_text(tokenizer: PreTrainedTokenizerFast) -> None:
    chooser = random.Random(0)
    for _ in range(50):
        text = "".join(chooser.choices([*TAGS, *RUNS, "fox", " ", "1"], k=12))
        ids, cut = reference(tokenizer, text), chooser.randint(0, 12)
        detokenizer = Detokenizer(tokenizer, ("STOP",))
        assert detokenizer.add(ids[:cut], False)[0] + detokenizer.add(ids[cut:], True)[0] == text
    stopped = Detokenizer(tokenizer, ("</b>\n\n",))
    assert stopped.add(reference(tokenizer, "<b>1</b>\n\n\nmore"), True)[::2] == ("<b>1", True)


def test_added_tokens_fit_grammars_as_text(tokenizer: PreTrainedTokenizerFast) -> None:
    template = ChatTemplate(tokenizer)
    alphabet = Alphabet(tokenizer, SIZE, frozenset({1}), frozenset(template.controls), template.plain)
    compiler = GrammarCompiler(alphabet)
    for text in [*TEXTS, "a<turn|>b", f"a{UNMARKED}"]:
        ids = template.plain(text)
        assert alphabet.spell(text.encode()) == ids
        assert alphabet.bytes_of(ids) == text.encode()
        matcher = compiler.matcher(Grammar.choice([text]))
        assert matcher.accepts(ids) == len(ids)
        matcher.consume(ids)
        assert matcher.accepting
    assert compiler.matcher(Grammar.choice([TABLE])).forced() == template.plain(TABLE)
    anything = compiler.matcher(Grammar.regex("(.|\n)*")).allowed()
    assert all(anything[tokenizer.convert_tokens_to_ids(text)] for text in [*TAGS, *RUNS])
    assert not any(anything[tokenizer.convert_tokens_to_ids(text)] for text in [*CONTROL_TOKENS[2:], UNMARKED])


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.from_model(make_model(vocab_size=SIZE, seed=3, sharpness=0.3), byte_level()) as engine:
        yield engine


def test_an_engine_counts_and_writes_added_tokens(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    assert engine.count_tokens(TABLE) == 8
    assert engine.encode_text(TABLE) == reference(tokenizer, TABLE)
    text = "<table>\n\n\n<td>1</td>"
    params = SamplingParams(grammar=Grammar.choice([text]), max_new_tokens=16, seed=0)
    answer = engine.submit([Message("user", TABLE)], params).result()
    assert (answer.text, list(answer.token_ids)) == (text, reference(tokenizer, text))
    held = SamplingParams(grammar=Grammar.regex("(<b>1</b>\n\n){2}"), max_new_tokens=24, max_denoising_steps=3, seed=0)
    assert engine.submit("a", held).result().text == "<b>1</b>\n\n<b>1</b>\n\n"
