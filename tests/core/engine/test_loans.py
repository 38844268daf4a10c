"""Prompts of one step that begin alike: the beginning is encoded once, and nobody's answer depends on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgemma_core import Engine, EngineStats, Generation, LoadSpec, Message, SamplingParams
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import save_checkpoint
from tests.helpers.failures import sabotage
from tests.helpers.pictures import img

COMMON = [2, *range(40, 120)]
PROMPTS = [[*COMMON, *range(200 + 10 * i, 205 + 10 * i)] for i in range(4)]
PARAMS = SamplingParams(seed=5, max_new_tokens=24)


def run(prompts: list[Any], params: SamplingParams = PARAMS, **spec: Any) -> tuple[list[Generation], EngineStats]:
    """All at once: they are queued before the weights are there. No prefix is kept from one request to the next."""
    with Engine(LoadSpec(prefix_cache_bytes=0, **spec)) as engine:
        return engine.generate(prompts, params), engine.stats()


def alone(prompts: list[Any], **spec: Any) -> list[tuple[int, ...]]:
    with Engine(LoadSpec(prefix_cache_bytes=0, **spec)) as engine:
        return [engine.generate([prompt], PARAMS)[0].token_ids for prompt in prompts]


def test_a_common_beginning_is_encoded_once(tiny_checkpoint: str) -> None:
    answers, stats = run(PROMPTS, model=tiny_checkpoint)
    assert [a.token_ids for a in answers] == alone(PROMPTS, model=tiny_checkpoint)
    # The second canvas of each answer is encoded, too: nobody lends that.
    canvases = 4 * 16
    assert stats.prefill_tokens == len(COMMON) + 4 * 5 + canvases
    assert (stats.prefix_hits, stats.prefix_tokens) == (3, 3 * len(COMMON))
    assert sorted(a.usage.cached_tokens for a in answers) == [0, *[len(COMMON)] * 3]


def test_the_longest_beginning_is_taken(tiny_checkpoint: str) -> None:
    first, other, like_first = [*COMMON, *range(200, 260)], [*COMMON[:40], 300], [*COMMON, *range(200, 240), 301]
    answers, stats = run([first, other, like_first], model=tiny_checkpoint)
    assert [a.usage.cached_tokens for a in answers] == [0, 40, len(COMMON) + 40]
    assert [a.token_ids for a in answers] == alone([first, other, like_first], model=tiny_checkpoint)
    assert stats.prefix_hits == 2


def test_equal_prompts_are_encoded_once(tiny_checkpoint: str) -> None:
    answers, stats = run([PROMPTS[0]] * 3, SamplingParams(seed=5, max_new_tokens=16), model=tiny_checkpoint)
    assert len({a.token_ids for a in answers}) == 1
    assert stats.prefill_tokens == len(PROMPTS[0])


def test_short_beginnings_are_not_worth_it(tiny_checkpoint: str) -> None:
    _, stats = run([[*COMMON[:20], 200 + i] for i in range(3)], model=tiny_checkpoint)
    assert stats.prefix_hits == 0


@pytest.mark.parametrize("budget", [24, 60, 90])
def test_beginnings_that_take_several_steps(tiny_checkpoint: str, budget: int) -> None:
    answers, _ = run(PROMPTS, model=tiny_checkpoint, max_batch_tokens=budget)
    assert [a.token_ids for a in answers] == alone(PROMPTS, model=tiny_checkpoint)


def test_modes_that_do_not_share_weights(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = EagerBackend.__init__

    def init(self: EagerBackend, *args: Any) -> None:
        original(self, *args)
        self.backbone._tied = False  # Two walks a pass, as for quantized weights.

    monkeypatch.setattr(EagerBackend, "__init__", init)
    answers, stats = run(PROMPTS, model=tiny_checkpoint)
    assert stats.prefix_hits == 3
    assert [a.token_ids for a in answers] == alone(PROMPTS, model=tiny_checkpoint)


def test_a_split_pass_relies_on_nobody(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = alone(PROMPTS, model=tiny_checkpoint)
    sabotage(monkeypatch, marked=40, error=torch.OutOfMemoryError("out of memory"), smallest=3)
    answers, stats = run(PROMPTS, model=tiny_checkpoint)
    assert [a.token_ids for a in answers] == expected
    assert stats.prefix_hits == 0


def test_an_image_is_encoded_once(tmp_path: Any) -> None:
    model = str(save_checkpoint(tmp_path / "images", canvas_length=16, image_attention="vision"))
    prompts = [[Message("user", [img(1), text])] for text in ("the quick brown fox", "the lazy dog", "system context")]
    other = [Message("user", [img(2), "the lazy dog"])]
    answers, stats = run([*prompts, other], model=model)
    assert [a.token_ids for a in answers] == alone([*prompts, other], model=model)
    assert stats.prefix_hits == 2
    assert answers[3].usage.cached_tokens == 0
