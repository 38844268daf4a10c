"""The ways of decoding give the same text, on weights that agree with no draft and on weights that agree with many."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from dgemma_core import BlockEvent, DraftEvent, Engine, Grammar, LoadSpec, Message, SamplingParams
from tests.checkpoints import make_model, make_tokenizer
from tests.helpers.plain_loop import typed

FACTS = "The Vexal bridge was built in 1931. The Dorfin tower is painted green."
PROMPTS = [
    f"{FACTS}\n\nWhen was the Vexal bridge built?",
    f"{FACTS}\n\nList the facts.",
    "The Kelmar museum weighs 512 kilograms.\n\nHow much does the Kelmar museum weigh?",
]
VERIFIED = SamplingParams(decoding="verified", seed=3, max_new_tokens=60)
TYPED = SamplingParams(decoding="typewriter", seed=3, max_new_tokens=60)
BOTH = pytest.mark.parametrize("decoding", ["verified", "typewriter"])
RULES = pytest.mark.parametrize(
    "rule",
    [{}, {"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.9}, {"temperature": 1.0, "top_k": 5, "min_p": 0.01}],
    ids=["greedy", "cool", "hot top-p", "top-k min-p"],
)


def ask(question: str) -> list[Message]:
    return [Message("user", question)]


def params(decoding: Any, **settings: Any) -> SamplingParams:
    return SamplingParams(decoding=decoding, **{"seed": 3, "max_new_tokens": 60, **settings})


@BOTH
def test_greedy_text_is_that_of_a_plain_loop_over_transformers(decoding: str) -> None:
    model = make_model(seed=1, sharpness=0.1, damping=2.0, varied_scales=True, sliding_window=12)
    prompt = [2, *range(40, 60)]
    expected = typed(model, prompt, 24)
    assert len(set(expected)) > 12
    with Engine.from_model(model, make_tokenizer()) as engine:
        assert list(engine.generate([prompt], params(decoding, max_new_tokens=24))[0].token_ids) == expected


@RULES
@pytest.mark.parametrize("question", PROMPTS)
def test_verified_text_is_the_typewriters(embedded_engine: Engine, question: str, rule: dict[str, Any]) -> None:
    typed, verified = (
        embedded_engine.generate([ask(question)], params(decoding, **rule))[0]
        for decoding in ("typewriter", "verified")
    )
    assert verified.token_ids == typed.token_ids
    assert verified.finish_reason == typed.finish_reason


def test_verified_takes_fewer_passes(embedded_engine: Engine) -> None:
    typed, verified = (
        sum(g.usage.forward_passes for g in embedded_engine.generate([ask(q) for q in PROMPTS], how))
        for how in (TYPED, VERIFIED)
    )
    assert verified < typed / 2


@RULES
def test_seeded_text_does_not_depend_on_neighbours(embedded_engine: Engine, rule: dict[str, Any]) -> None:
    how = params("verified", **rule)
    alone = embedded_engine.generate([ask(PROMPTS[0])], how)[0]
    prompts = [ask(PROMPTS[i % 3] + "?" * i) for i in range(15)]
    settings = [params(("verified", "typewriter", "diffusion")[i % 3], max_new_tokens=20) for i in range(15)]
    handles = [embedded_engine.submit(prompt, s) for prompt, s in zip(prompts, settings, strict=True)]
    among = embedded_engine.submit(ask(PROMPTS[0]), how).result()
    assert [handle.result().finish_reason for handle in handles]
    assert among.token_ids == alone.token_ids


@BOTH
def test_a_tiny_step_budget_changes_nothing(decoding: str) -> None:
    prompt = [2, *range(40, 90)]
    how = params(decoding, max_new_tokens=20, temperature=0.8)
    texts = []
    for budget in (4096, 7):
        with Engine.from_model(make_model(damping=0.5), make_tokenizer(), max_batch_tokens=budget) as engine:
            texts.append([g.token_ids for g in engine.generate([prompt, prompt[:30]], how)])
    assert texts[0] == texts[1]


@BOTH
@pytest.mark.parametrize("room", [1, 2, 3, 7, 17])
def test_the_room_is_kept_exactly(decoding: str, room: int) -> None:
    with Engine.from_model(make_model(never_ends=True), make_tokenizer()) as engine:
        (generation,) = engine.generate([[2, 30, 31]], params(decoding, max_new_tokens=room))
    assert len(generation.token_ids) == room
    assert generation.finish_reason == "length"


@BOTH
def test_a_stop_string_ends_the_answer(embedded_engine: Engine, decoding: str) -> None:
    whole = embedded_engine.generate([ask(PROMPTS[0])], params(decoding))[0].text
    stop = whole[2:5]
    cut = embedded_engine.generate([ask(PROMPTS[0])], params(decoding, stop=[stop]))[0]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


@BOTH
def test_text_streams_from_the_first_token_on(embedded_engine: Engine, decoding: str) -> None:
    handle = embedded_engine.submit(ask(PROMPTS[1]), params(decoding))
    blocks = [event for event in handle if isinstance(event, BlockEvent)]
    assert len(blocks) > 3
    assert len(blocks[0].token_ids) == 1
    assert "".join(block.text for block in blocks) == handle.result().text


def test_drafts_are_shown(embedded_engine: Engine) -> None:
    handle = embedded_engine.submit(ask(PROMPTS[0]), params("verified", drafts=True))
    drafts = [event for event in handle if isinstance(event, DraftEvent)]
    assert [draft.step for draft in drafts] == list(range(1, len(drafts) + 1))
    assert any(draft.text for draft in drafts)


def test_a_text_without_a_seed_takes_the_same_passes_every_time() -> None:
    how = SamplingParams(decoding="verified")
    with Engine(LoadSpec(prefix_cache_bytes=0)) as engine:
        runs = [list(engine.submit(ask(PROMPTS[1]), how)) for _ in range(3)]
    assert runs[0][:-1] == runs[1][:-1] == runs[2][:-1]


def test_a_draft_stands_after_the_text_confirmed_so_far(embedded_engine: Engine) -> None:
    handle = embedded_engine.submit(ask(PROMPTS[0]), params("verified", drafts=True))
    text, guesses = "", []
    for event in handle:
        if isinstance(event, BlockEvent):
            text += event.text
        elif isinstance(event, DraftEvent):
            guesses.append(text + event.text)
    # The canvas sees the text before it, so that its first word goes on from there.
    assert text.startswith("The Vexal bridge")
    assert guesses[0].startswith("The V")


def test_a_way_without_drafts_refuses_to_show_them() -> None:
    with pytest.raises(ValueError, match="drafts=True has no meaning with decoding='typewriter'"):
        SamplingParams(decoding="typewriter", drafts=True)
    assert SamplingParams(drafts=True).decoding_by("typewriter") == "verified"


@BOTH
def test_log_probabilities_know_which_tokens_are_text(tiny_engine: Engine, decoding: str) -> None:
    grammar = Grammar.lark('start: <|channel> "thought\\n" /[a-z]{4}/ <channel|> /[A-Z]{3,9}/')
    found = tiny_engine.generate([ask("x")], params(decoding, grammar=grammar, logprobs=True))[0]
    assert found.logprobs is not None
    assert len(found.logprobs) == len(found.token_ids)
    assert "".join(token.text for token in found.logprobs if token.in_text) == found.text != ""
    assert "<channel|>" in [token.text for token in found.logprobs if not token.in_text]


@BOTH
def test_a_prefix_is_reused_and_changes_nothing(decoding: str) -> None:
    with Engine(LoadSpec()) as engine:
        first, second = (engine.generate([ask(PROMPTS[0])], params(decoding))[0] for _ in range(2))
    assert first.usage.cached_tokens == 0 < second.usage.cached_tokens
    assert first.token_ids == second.token_ids


@BOTH
def test_prompts_that_begin_alike_share_their_beginning(decoding: str) -> None:
    prompts = [ask(f"{FACTS} {FACTS}\n\nWho is number {i}?") for i in range(4)]
    with Engine(LoadSpec(prefix_cache_bytes=0)) as engine:
        alone = [engine.generate([prompt], params(decoding))[0].token_ids for prompt in prompts]
        together = engine.generate(prompts, params(decoding))
    assert [generation.token_ids for generation in together] == alone
    assert sum(generation.usage.cached_tokens > 0 for generation in together) >= 2


def test_an_engine_says_how_it_writes(embedded_engine: Engine, tiny_engine: Engine) -> None:
    assert embedded_engine.facts().decoding == "verified"
    assert tiny_engine.facts().decoding == "diffusion"


# Grammars.

GRAMMARS = {
    "schema": Grammar.json_schema(
        {
            "type": "object",
            "properties": {"name": {"type": "string"}, "year": {"type": "integer"}, "kind": {"enum": ["red", "blue"]}},
            "required": ["name", "year", "kind"],
            "additionalProperties": False,
        }
    ),
    "choice": Grammar.choice(["the fox", "the dog", "a lazy dog"]),
    "regex": Grammar.regex(r"[a-z]{3,9}-[0-9]{2}"),
    "one text": Grammar.choice(["only this"]),
}


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
@pytest.mark.parametrize("room", [36, 60])
@pytest.mark.parametrize("weights", ["embedded", "random"])
@RULES
def test_texts_of_grammars_are_equal_and_fit(
    embedded_engine: Engine, tiny_engine: Engine, grammar: Grammar, room: int, weights: str, rule: dict[str, Any]
) -> None:
    engine = embedded_engine if weights == "embedded" else tiny_engine
    typed, verified = (
        engine.generate([ask(PROMPTS[0])], params(decoding, grammar=grammar, max_new_tokens=room, **rule))[0]
        for decoding in ("typewriter", "verified")
    )
    assert typed.token_ids == verified.token_ids
    assert typed.finish_reason == verified.finish_reason
    assert len(typed.token_ids) <= room
    matcher = engine._admission.parts.compiler.matcher(grammar)
    matcher.consume(list(typed.token_ids))
    assert matcher.accepting


# Settings.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoding": "diffusion", "top_p": 0.5}, "top_p=0.5 has no meaning with decoding='diffusion'"),
        ({"decoding": "typewriter", "entropy_bound": 0.5}, "entropy_bound=0.5 has no meaning"),
        ({"decoding": "verified", "canvas_length": 8}, "canvas_length=8 has no meaning"),
        ({"decoding": "typing"}, "decoding='typing': choose"),
        ({"top_p": 1.5}, "top_p=1.5: must be at most 1"),
        ({"top_logprobs": 3}, "top_logprobs=3: set logprobs=True"),
    ],
)
def test_settings_of_another_way_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        SamplingParams(**settings)


# Sampling.


def next_probabilities(model: Any, prompts: list[list[int]], rule: dict[str, Any]) -> torch.Tensor:
    """The distributions that the next token is drawn from, by transformers' modules and filters."""
    with torch.inference_mode():
        hidden = model.model.encoder(input_ids=torch.tensor(prompts)).last_hidden_state[:, -1]
        cap = model.final_logit_softcapping
        logits = torch.tanh(model.lm_head(hidden) / cap) * cap / rule["temperature"]
    for name, warper in (("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper)):
        if name in rule:
            logits = warper(rule[name])(None, logits)
    return logits.softmax(-1).double()


def pair_probabilities(model: Any, prompt: list[int], rule: dict[str, Any]) -> dict[tuple[int, ...], float]:
    """Exact probabilities of answers of at most two tokens. An end token is not part of an answer."""
    ends = set(model.generation_config.eos_token_id)
    first = next_probabilities(model, [prompt], rule)[0]
    second = next_probabilities(model, [[*prompt, token] for token in range(len(first))], rule)
    expected: Counter[tuple[int, ...]] = Counter()
    for one, chance in enumerate(first.tolist()):
        if one in ends:
            expected[()] += chance
            continue
        for other, following in enumerate(second[one].tolist()):
            expected[(one,) if other in ends else (one, other)] += chance * following
    return dict(expected)


@BOTH
@pytest.mark.landing
@pytest.mark.parametrize(
    "rule",
    [{"temperature": 0.7}, {"temperature": 1.3}, {"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.0, "top_k": 5}],
)
def test_two_tokens_follow_the_causal_distribution(decoding: str, rule: dict[str, Any]) -> None:
    """Chi-square of pairs of tokens against exact probabilities, at the level of one in a million."""
    model = make_model(sharpness=0.12, vocab_size=320, damping=0.5)
    prompt = [2, 30, 31, 30, 31]
    draws = 3000
    with Engine.from_model(model, make_tokenizer(320)) as engine:
        handles = [engine.submit(prompt, params(decoding, seed=i, max_new_tokens=2, **rule)) for i in range(draws)]
        found = Counter(handle.result().token_ids for handle in handles)
    expected = pair_probabilities(model, prompt, rule)
    common = [pair for pair, chance in expected.items() if chance * draws > 5]
    rest = 1 - sum(expected[pair] for pair in common)
    statistic = sum((found[pair] - draws * expected[pair]) ** 2 / (draws * expected[pair]) for pair in common)
    others = draws - sum(found[pair] for pair in common)
    if rest * draws > 5:
        statistic += (others - rest * draws) ** 2 / (rest * draws)
    freedom = len(common)
    assert freedom > 3
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5
