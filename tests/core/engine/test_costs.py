"""What a request has cost, on a clock of the test's own."""

from __future__ import annotations

import time

import pytest

from dgemma_core.engine.costs import Costs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_seconds_are_split_into_queue_prefill_and_denoising(clock: list[float]) -> None:
    costs = Costs(None)
    clock[0] = 102.0
    costs.start()
    clock[0] = 105.0
    costs.step(8)
    clock[0] = 109.0
    costs.step(5)
    costs.canvas()
    clock[0] = 110.0
    usage = costs.usage(prompt_tokens=3, completion_tokens=2, reasoning_tokens=1)
    assert (usage.queue_s, usage.prefill_s, usage.denoise_s) == (2.0, 3.0, 5.0)
    assert (usage.denoising_steps, usage.positions, usage.canvases) == (2, 13, 1)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens) == (3, 2, 1)


def test_what_has_not_begun_has_taken_no_time(clock: list[float]) -> None:
    costs = Costs(None)
    clock[0] = 104.0
    waiting = costs.usage(1, 0, 0)
    assert (waiting.queue_s, waiting.prefill_s, waiting.denoise_s) == (4.0, 0.0, 0.0)
    costs.start()
    clock[0] = 106.0
    encoding = costs.usage(1, 0, 0)
    assert (encoding.queue_s, encoding.prefill_s, encoding.denoise_s) == (4.0, 2.0, 0.0)


def test_the_deadline_can_begin_anew(clock: list[float]) -> None:
    assert Costs(None).deadline is None
    costs = Costs(2.5)
    assert costs.deadline == 102.5
    clock[0] = 130.0
    costs.restart_clock()
    assert costs.deadline == 132.5
    without = Costs(None)
    without.restart_clock()
    assert without.deadline is None


def test_a_guides_time_is_counted(clock: list[float]) -> None:
    costs = Costs(None)
    for _ in range(2):
        with costs.guiding():
            clock[0] += 1.5
    assert costs.usage(1, 0, 0).guide_s == 3.0
