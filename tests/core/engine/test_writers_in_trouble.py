"""Answers in the causal mode where something goes wrong or does not fit: failures, cancellation, small budgets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from dgemma_core import BlockEvent, DraftEvent, Engine, Grammar, LoadSpec, Message, SamplingParams
from dgemma_core.engine.step import StepRunner
from dgemma_core.errors import DGemmaError, EngineClosedError, RequestTimeoutError
from dgemma_core.execution.backbone import Backbone
from dgemma_core.execution.backend import Step, StepResult
from dgemma_core.execution.eager import EagerBackend
from dgemma_core.execution.readout import Readout
from dgemma_core.structured.causal_grammar import CausalGrammar
from tests.checkpoints import make_model, make_tokenizer

BOTH = pytest.mark.parametrize("decoding", ["verified", "typewriter"])
QUESTION = [Message("user", "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?")]
FACTS = "The Vexal bridge was built in 1931. The Dorfin tower is painted green. The Kelmar museum is old."
PROMPTS = [[2, *range(40, 90), 300 + i] for i in range(3)]


def params(decoding: Any = "verified", **settings: Any) -> SamplingParams:
    return SamplingParams(decoding=decoding, **{"seed": 3, "max_new_tokens": 40, **settings})


def small_engine(**options: Any) -> Engine:
    return Engine.from_model(make_model(damping=0.5, never_ends=True), make_tokenizer(), **options)


def after_each_run(monkeypatch: pytest.MonkeyPatch, happens: Callable[[Step], None]) -> None:
    """Let something happen after the backend's work of each pass is done, when keys and values are written."""
    original = EagerBackend.run

    def run(self: EagerBackend, step: Step) -> StepResult:
        result = original(self, step)
        happens(step)
        return result

    monkeypatch.setattr(EagerBackend, "run", run)


# Passes that fail.


@pytest.mark.parametrize(
    ("place", "error", "rule"),
    [
        ((Backbone, "forward"), torch.OutOfMemoryError("out of memory"), {"temperature": 0.9}),
        ((Readout, "__call__"), torch.OutOfMemoryError("out of memory"), {}),
        ((EagerBackend, "_predict"), ArithmeticError("once"), {"temperature": 0.9}),
    ],
    ids=["layers", "canvas", "predictions"],
)
def test_passes_that_fail_are_repeated_to_the_letter(
    embedded_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[type, str],
    error: Exception,
    rule: dict[str, Any],
) -> None:
    asked = [QUESTION, [Message("user", "List three colors.")]]
    grammar = Grammar.json_schema({"type": "object", "properties": {"year": {"type": "string"}}, "required": ["year"]})
    settings = [params(**rule, logprobs=True), params(grammar=grammar, max_new_tokens=24, **rule)]
    requests = list(itertools.product(asked, settings))
    expected = [embedded_engine.generate([prompt], how)[0] for prompt, how in requests]
    passes = itertools.count()

    original, forward = getattr(*place), StepRunner.forward
    sizes: list[int] = []

    def fail(self: Any, *args: Any) -> Any:
        result = original(self, *args)
        # A request fails if its pass fails for another reason than memory and it runs alone.
        if (sizes[-1] > 1 or isinstance(error, torch.OutOfMemoryError)) and next(passes) % 3 == 0:
            raise error
        return result

    monkeypatch.setattr(*place, fail)
    monkeypatch.setattr(StepRunner, "forward", lambda self, work: sizes.append(len(work)) or forward(self, work))
    handles = [embedded_engine.submit(prompt, how) for prompt, how in requests]
    found = [handle.result() for handle in handles]
    assert [(g.token_ids, g.finish_reason) for g in found] == [(g.token_ids, g.finish_reason) for g in expected]
    assert [g.logprobs for g in found] == [g.logprobs for g in expected]


def test_a_split_pass_over_equal_prompts_with_forced_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one request borrows of another in a pass is encoded by itself when the pass is split."""
    grammar = Grammar.regex("the quick brown fox jumps over the lazy dog [a-z]{8}")
    how = params(grammar=grammar, max_new_tokens=60)
    # What the grammar forces has occurred before in it, so a draft is looked up.
    prompt = "the quick brown fox jumps over the lazy dog user model " * 4
    with small_engine(prefix_cache_bytes=0) as engine:
        expected = engine.generate([prompt], how)[0].token_ids
    with small_engine(prefix_cache_bytes=0) as engine:  # They are queued before it is ready, and begin together.
        failures = iter([True])

        original = EagerBackend._predict

        def fail(self: EagerBackend, *args: Any) -> Any:
            if len(args[0]) > 1 and next(failures, False):
                raise ArithmeticError("once")
            return original(self, *args)

        monkeypatch.setattr(EagerBackend, "_predict", fail)
        found = engine.generate([prompt] * 4, how)
    assert [g.token_ids for g in found] == [expected] * 4


def test_equal_prompts_with_forced_text_share_the_prompt() -> None:
    grammar = Grammar.regex("the quick brown fox jumps over the lazy dog [a-z]{8}")
    how = params(grammar=grammar, max_new_tokens=60)
    prompt = "the quick brown fox jumps over the lazy dog user model " * 4
    with small_engine(prefix_cache_bytes=0) as engine:
        alone = engine.generate([prompt], how)[0].token_ids
    with small_engine(prefix_cache_bytes=0) as engine:  # They are queued before it is ready, and begin together.
        found = engine.generate([prompt] * 4, how)
    assert [g.token_ids for g in found] == [alone] * 4
    assert sorted(g.usage.cached_tokens for g in found) == [0, *[g.usage.prompt_tokens - 1 for g in found[1:]]]


@pytest.mark.parametrize("method", ["walk", "take"])
def test_a_grammar_that_fails_costs_its_own_request(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    expected = tiny_engine.generate([PROMPTS[0]], params())[0].token_ids
    calls = itertools.count()
    original = getattr(CausalGrammar, method)

    def fail(self: CausalGrammar, *args: Any) -> Any:
        if next(calls) == 3:
            raise ArithmeticError("no such state")
        return original(self, *args)

    monkeypatch.setattr(CausalGrammar, method, fail)
    good = tiny_engine.submit(PROMPTS[0], params())
    bad = tiny_engine.submit(PROMPTS[1], params(grammar=Grammar.regex("[a-z ]{30,40}")))
    with pytest.raises(DGemmaError, match="no such state"):
        bad.result()
    assert good.result().token_ids == expected
    assert tiny_engine.stats().running == 0


# Requests that end early.


@BOTH
def test_cancelling_keeps_the_text_so_far(tiny_engine: Engine, decoding: str) -> None:
    how = params(decoding, max_new_tokens=400, logprobs=True)
    whole = tiny_engine.generate([PROMPTS[0]], how)[0]
    handle = tiny_engine.submit(PROMPTS[0], how)
    for event in handle:
        if isinstance(event, BlockEvent) and event.index == 2:
            handle.cancel()
    cut = handle.result()
    assert cut.finish_reason == "cancelled"
    assert 2 < len(cut.token_ids) < len(whole.token_ids)
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    assert cut.logprobs is not None
    assert [entry.token_id for entry in cut.logprobs] == list(cut.token_ids)
    assert tiny_engine.stats().running == 0


def test_a_timeout_says_how_far_the_answer_was(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = itertools.count(1)

    def be_late(_step: Step) -> None:
        if next(passes) == 4:
            for sequence in tiny_engine._worker._loop.scheduler.running:  # type: ignore[union-attr]
                sequence.costs.deadline = 0.0

    after_each_run(monkeypatch, be_late)
    with pytest.raises(RequestTimeoutError, match=r"while its answer was written \(4 forward passes in all\)"):
        tiny_engine.submit(PROMPTS[0], params(), timeout=1000.0).result()


@BOTH
def test_logprobs_of_a_stopped_answer_are_those_of_its_tokens(embedded_engine: Engine, decoding: str) -> None:
    whole = embedded_engine.generate([QUESTION], params(decoding, logprobs=True))[0]
    stop = whole.text[-3:]
    cut = embedded_engine.generate([QUESTION], params(decoding, logprobs=True, stop=[stop]))[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert whole.logprobs is not None
    assert cut.logprobs == whole.logprobs[: len(cut.token_ids)]


@BOTH
def test_closing_ends_an_answer_that_is_being_written(decoding: str) -> None:
    with small_engine() as engine:
        handle = engine.submit(PROMPTS[0], params(decoding, max_new_tokens=1500))
        events = iter(handle)
        assert isinstance(next(events), BlockEvent)
    with pytest.raises(EngineClosedError):
        handle.result()


@BOTH
def test_without_a_seed_only_a_temperature_makes_texts_differ(tiny_engine: Engine, decoding: str) -> None:
    def texts(**settings: Any) -> set[tuple[int, ...]]:
        how = params(decoding, seed=None, **settings)
        return {generation.token_ids for generation in tiny_engine.generate([PROMPTS[0]] * 3, how)}

    assert len(texts()) == len(texts(temperature=0)) == 1
    assert len(texts(temperature=2.0)) == 3


# Budgets of positions.


@pytest.fixture
def rows_of_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions that each pass computes."""
    seen: list[int] = []

    def note(step: Step) -> None:
        seen.append(sum(len(s.tokens) for s in step.encode) + sum(c.active for c in step.canvases))

    after_each_run(monkeypatch, note)
    return seen


@pytest.mark.parametrize("budget", [5, 20, 55, 70])
def test_passes_keep_the_budget_and_drafts_are_shown_once(rows_of_passes: list[int], budget: int) -> None:
    grammar = Grammar.regex("[a-z]{2} the quick brown fox jumps over the lazy dog the quick brown fox [a-z ]{9}")
    how = params(grammar=grammar, max_new_tokens=90, drafts=True)
    with small_engine(max_batch_tokens=4096) as engine:
        expected = engine.generate([PROMPTS[0]], how)[0].token_ids
    rows_of_passes.clear()
    with small_engine(max_batch_tokens=budget) as engine:
        handle = engine.submit(PROMPTS[0], how)
        drafts = [event.step for event in handle if isinstance(event, DraftEvent)]
        assert handle.result().token_ids == expected
    assert max(rows_of_passes) <= budget
    assert drafts == list(range(1, len(drafts) + 1))


# What is kept.


@BOTH
def test_a_conversation_goes_on_from_the_encoded_answer(decoding: str) -> None:
    first = [Message("user", f"{FACTS}\n\nList the facts.")]
    with Engine(LoadSpec(prefix_cache_bytes=0)) as engine:
        answer = engine.generate([first], params(decoding))[0]
        prompt = [*first, Message("assistant", answer.text), Message("user", "And where is it?")]
        expected = engine.generate([prompt], params(decoding, logprobs=True))[0]
    with Engine(LoadSpec()) as engine:
        engine.generate([first], params(decoding))
        found = engine.generate([prompt], params(decoding, logprobs=True))[0]
    assert answer.usage.completion_tokens > 12
    assert found.usage.cached_tokens > answer.usage.prompt_tokens + 6
    assert found.token_ids == expected.token_ids
    assert found.logprobs == expected.logprobs


def test_prompts_are_kept_once_and_answers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the text is held back for long, as that of a tool call is."""
    call = Grammar.regex(r"<\|tool_call>call:[a-z]{12}")
    kept: list[int] = []
    with small_engine() as engine:
        loop = engine.submit(PROMPTS[2], params(max_new_tokens=1)).result() and engine._worker._loop
        assert loop is not None
        original = loop.prefixes.put

        def note(tokens: Sequence[int], slot: int) -> None:
            kept.append(len(tokens))
            original(tokens, slot)

        monkeypatch.setattr(loop.prefixes, "put", note)
        usage = engine.generate([[2, *range(200, 240)]], params(grammar=call))[0].usage
    assert usage.forward_passes > 4
    assert len(kept) == 2


def test_a_canvas_counts_once_and_a_typewriter_has_none(tiny_engine: Engine) -> None:
    typed = tiny_engine.generate([PROMPTS[0]], params("typewriter"))[0].usage
    verified = tiny_engine.generate([PROMPTS[0]], params("verified"))[0].usage
    stats = tiny_engine.stats()
    assert (typed.canvases, typed.denoising_steps, typed.positions) == (0, 0, 0)
    assert typed.forward_passes == typed.completion_tokens == 40
    assert verified.canvases == stats.canvases == 1
    assert verified.denoising_steps == stats.denoising_steps == verified.forward_passes
    assert verified.positions == stats.positions == 16 * verified.denoising_steps
    assert verified.completion_tokens == 40
    assert stats.forward_passes == typed.forward_passes + verified.forward_passes
