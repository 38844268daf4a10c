"""Many threads and event loops at once, with cancellations and failures in between."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Sequence as Seq
from typing import Any

import psutil
import pytest

from dgemma_core import Engine, LoadSpec, SamplingParams
from dgemma_core.engine.step import StepRunner
from dgemma_core.errors import DGemmaError

pytestmark = [pytest.mark.alone, pytest.mark.landing]
REQUESTS, THREADS, LOOPS = 500, 64, 4
POISON = 77


class InjectedError(Exception):
    """What the test plants in a step."""


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = StepRunner.forward

    def maybe_raise(self: StepRunner, work: Seq[Any]) -> Any:
        if any(w.sequence.tokens[1] == POISON and w.sequence.usage().denoising_steps >= 2 for w in work):
            raise InjectedError("planted")
        return forward(self, work)

    monkeypatch.setattr(StepRunner, "forward", maybe_raise)


def plan(seed: int) -> list[tuple[str, list[int], SamplingParams]]:
    """Kind, prompt and parameters of every request: 20 % are cancelled midway, 5 % fail in a step."""
    chooser = random.Random(seed)
    kinds = ["cancel"] * (REQUESTS // 5) + ["error"] * (REQUESTS // 20)
    kinds += ["answer"] * (REQUESTS - len(kinds))
    chooser.shuffle(kinds)
    requests = []
    for kind in kinds:
        first = POISON if kind == "error" else chooser.randint(100, 400)
        prompt = [2, first, *(chooser.randint(100, 400) for _ in range(chooser.randint(1, 40)))]
        length = 400 if kind == "cancel" else chooser.randint(1, 40)
        steps = 12 if kind != "answer" else chooser.randint(3, 6)
        params = SamplingParams(
            seed=chooser.randint(0, 999), max_new_tokens=length, max_denoising_steps=steps, confidence_threshold=1e-9
        )
        requests.append((kind, prompt, params))
    return requests


def check(kind: str, params: SamplingParams, outcome: Any) -> None:
    assert params.max_new_tokens is not None
    if kind == "error":
        assert isinstance(outcome, DGemmaError), outcome
        assert isinstance(outcome.__cause__, InjectedError)
    elif kind == "cancel":
        assert outcome.finish_reason in ("cancelled", "stop"), outcome
    else:
        assert outcome.finish_reason in ("stop", "length"), outcome
        assert len(outcome.token_ids) <= params.max_new_tokens


@pytest.mark.usefixtures("poisoned")
def test_every_handle_ends_with_its_own_outcome(tiny_checkpoint: str) -> None:
    outcomes: dict[int, Any] = {}
    with Engine(LoadSpec(model=tiny_checkpoint, max_queue=REQUESTS, prefix_cache_bytes=2**20)) as engine:
        engine.generate([[2, 50]] * 4, SamplingParams(seed=0, max_new_tokens=8))
        gc.collect()
        memory = psutil.Process().memory_info().rss
        requests = plan(seed=4)

        def from_thread(indices: list[int]) -> None:
            for index in indices:
                kind, prompt, params = requests[index]
                handle = engine.submit(prompt, params)
                if kind == "cancel":
                    time.sleep(0.002)
                    handle.cancel()
                try:
                    outcomes[index] = handle.result(120)
                except DGemmaError as error:
                    outcomes[index] = error

        async def one(index: int) -> None:
            kind, prompt, params = requests[index]
            handle = engine.submit(prompt, params)
            if kind == "cancel":
                await asyncio.sleep(0.002)
                handle.cancel()
            try:
                async for _ in handle:
                    pass
                outcomes[index] = await handle
            except DGemmaError as error:
                outcomes[index] = error

        async def from_loop(indices: list[int]) -> None:
            await asyncio.gather(*(one(index) for index in indices))

        half = REQUESTS // 2
        threads = [threading.Thread(target=from_thread, args=(list(range(t, half, THREADS)),)) for t in range(THREADS)]
        threads += [
            threading.Thread(target=lambda part=list(range(half + n, REQUESTS, LOOPS)): asyncio.run(from_loop(part)))
            for n in range(LOOPS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(180)
            assert not thread.is_alive()

        assert sorted(outcomes) == list(range(REQUESTS))
        for index, (kind, _prompt, params) in enumerate(requests):
            check(kind, params, outcomes[index])
        # An answer that shared its steps with failing neighbours is the answer it gives alone.
        healthy = next(i for i, (kind, _, _) in enumerate(requests) if kind == "answer")
        alone = engine.generate([requests[healthy][1]], requests[healthy][2])[0]
        assert alone.token_ids == outcomes[healthy].token_ids
        stats = engine.stats()
        assert (stats.waiting, stats.running, stats.kv_bytes) == (0, 0, 0)
        assert stats.failed == sum(kind == "error" for kind, _, _ in requests)
        assert stats.finished + stats.cancelled + stats.failed == stats.submitted == REQUESTS + 5
        assert stats.cancelled > 0
        assert stats.prefix_cache_bytes <= 2**20
        outcomes.clear()
        gc.collect()
        assert psutil.Process().memory_info().rss - memory < 64 * 2**20


async def test_the_event_loop_stays_free(embedded_engine: Engine) -> None:
    """A 1 ms ticker beside a streamed answer: the 99th percentile of its lag stays under 20 ms."""
    await embedded_engine.aload()
    lags: list[float] = []

    async def ticker() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began - 0.001)

    task = asyncio.create_task(ticker())
    params = SamplingParams(seed=0, max_new_tokens=256, confidence_threshold=1e-9, max_denoising_steps=12, drafts=True)
    async for _ in embedded_engine.submit("Once upon a time", params):
        pass
    task.cancel()
    lags.sort()
    assert len(lags) > 50
    assert lags[int(0.99 * len(lags))] < 0.020
