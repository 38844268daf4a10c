"""The engine's public behaviour."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch

from dgemma_core import (
    BlockEvent,
    DraftEvent,
    Engine,
    FinishedEvent,
    Grammar,
    Hole,
    LoadSpec,
    Message,
    Request,
    RequestHandle,
    SamplingParams,
)
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.errors import (
    ContextOverflowError,
    DGemmaError,
    EngineClosedError,
    EngineDeadError,
    OutOfMemoryError,
    QueueFullError,
    RequestTimeoutError,
)
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import make_model, make_tokenizer
from tests.helpers.failures import sabotage
from tests.helpers.waiting import wait_for

FACTS = "The Vexal bridge was built in 1931. The Dorfin tower is painted green."
QUESTIONS = [
    f"{FACTS}\n\nWhen was the Vexal bridge built?",
    f"{FACTS}\n\nWhat color is the Dorfin tower?",
    f"{FACTS}\n\nList the facts.",
    "The Kelmar museum weighs 512 kilograms.\n\nHow much does the Kelmar museum weigh?",
]


def ask(question: str) -> list[Message]:
    return [Message("user", question)]


def neighbours(count: int) -> list[list[Message]]:
    return [
        ask(f"The Lum{i} river costs {i + 10} dollars.\n\nHow much does the Lum{i} river cost?") for i in range(count)
    ]


# Seeds and independence.


@pytest.mark.parametrize("question", QUESTIONS)
def test_seeded_tokens_do_not_depend_on_neighbours_or_prefixes(embedded_engine: Engine, question: str) -> None:
    params = SamplingParams(seed=11, max_new_tokens=80)
    with Engine(LoadSpec(prefix_cache_bytes=0)) as plain:
        alone = plain.generate([ask(question)], params)[0]
    embedded_engine.clear_prefix_cache()
    among = embedded_engine.generate([*neighbours(8), ask(question), *neighbours(7)], params)[8]
    reused = embedded_engine.generate([ask(question)], params)[0]
    assert alone.usage.cached_tokens == 0 < reused.usage.cached_tokens
    assert alone.token_ids == among.token_ids == reused.token_ids
    assert alone.usage.denoising_steps == among.usage.denoising_steps == reused.usage.denoising_steps


def test_seeds_matter(tiny_engine: Engine) -> None:
    prompt = [2, 30, 31, 32]
    first, same, other = (
        tiny_engine.generate([prompt], SamplingParams(seed=seed, max_new_tokens=16))[0].token_ids for seed in (1, 1, 2)
    )
    assert first == same != other


def test_chunked_prefill_gives_the_same_tokens(tiny_checkpoint: str) -> None:
    prompt = [2, *range(40, 140)]
    params = SamplingParams(seed=5, max_new_tokens=32)
    answers = []
    for budget in (4096, 24):
        with Engine(LoadSpec(model=tiny_checkpoint, max_batch_tokens=budget)) as engine:
            answers.append(engine.generate([prompt] * 3, params))
    assert [g.token_ids for g in answers[0]] == [g.token_ids for g in answers[1]]


# Lengths and stops.


@pytest.mark.parametrize("limit", [1, 5, 16, 17, 40])
def test_max_new_tokens_is_exact(tiny_engine: Engine, limit: int) -> None:
    generation = tiny_engine.generate([[2, 50, 51]], SamplingParams(seed=3, max_new_tokens=limit))[0]
    # These weights never end an answer by themselves.
    assert generation.finish_reason == "length"
    assert len(generation.token_ids) == generation.usage.completion_tokens == limit


def test_stop_string(embedded_engine: Engine) -> None:
    full = embedded_engine.generate([ask(QUESTIONS[0])], SamplingParams(seed=0))[0]
    stop = full.text.split()[2]
    cut = embedded_engine.generate([ask(QUESTIONS[0])], SamplingParams(seed=0, stop=(stop,)))[0]
    assert cut.text == full.text[: full.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert full.token_ids[: len(cut.token_ids)] == cut.token_ids


def test_several_canvases_and_a_smaller_one(embedded_engine: Engine) -> None:
    facts = " ".join(f"The Zor{i}dal pump is painted {c}." for i, c in enumerate(["red", "blue", "green", "black"]))
    prompt = ask(f"{facts}\n\nList the facts.")
    small = embedded_engine.generate([prompt], SamplingParams(seed=0, canvas_length=16))[0]
    assert small.usage.canvases == -(-(small.usage.completion_tokens + 1) // 16) > 1
    assert small.usage.positions <= small.usage.denoising_steps * 16


def test_answer_aware_canvas_computes_fewer_positions(embedded_engine: Engine) -> None:
    # The canvas has to stay the same for four steps: at least two of them know its end.
    aware, reference = (
        embedded_engine.generate([ask(QUESTIONS[0])], SamplingParams(seed=0, stop_at_eos=flag, stability_threshold=3))[
            0
        ]
        for flag in (True, False)
    )
    assert aware.text == reference.text
    assert reference.usage.positions == reference.usage.denoising_steps * embedded_engine.canvas_length
    assert aware.usage.positions < aware.usage.denoising_steps * embedded_engine.canvas_length


# Events.


def test_events_tell_the_whole_story(embedded_engine: Engine) -> None:
    handle = embedded_engine.submit(ask(QUESTIONS[2]), SamplingParams(seed=0, drafts=True, canvas_length=16))
    events = list(handle)
    generation = handle.result()
    blocks = [e for e in events if isinstance(e, BlockEvent)]
    drafts = [e for e in events if isinstance(e, DraftEvent)]
    assert isinstance(events[-1], FinishedEvent)
    assert events[-1].generation == generation
    assert "".join(b.text for b in blocks) == generation.text
    assert tuple(t for b in blocks for t in b.token_ids) == generation.token_ids
    assert [b.index for b in blocks] == list(range(len(blocks)))
    assert len(drafts) == generation.usage.denoising_steps
    assert all(len(d.entropy) == 16 for d in drafts)
    assert list(handle) == events  # A late reader sees everything.


async def test_async_events_are_the_same(embedded_engine: Engine) -> None:
    await embedded_engine.aload()
    handle = embedded_engine.submit(ask(QUESTIONS[1]), SamplingParams(seed=0))
    seen = [event async for event in handle]
    assert seen == list(handle)
    assert await handle == handle.result()


# Ending early.


def test_cancel_keeps_the_text_so_far(tiny_engine: Engine) -> None:
    handle = tiny_engine.submit([2, 50], SamplingParams(max_new_tokens=1500, confidence_threshold=1e-9))
    first = next(e for e in handle if isinstance(e, BlockEvent))
    handle.cancel()
    handle.cancel()
    generation = handle.result(10)
    assert generation.finish_reason == "cancelled"
    assert generation.text.startswith(first.text)
    assert 0 < len(generation.token_ids) < 1500
    stats = tiny_engine.stats()
    assert (stats.running, stats.waiting, stats.cancelled) == (0, 0, 1)


async def test_cancelling_the_awaiting_task_cancels_the_request(tiny_engine: Engine) -> None:
    await tiny_engine.aload()
    handle = tiny_engine.submit([2, 50], SamplingParams(max_new_tokens=1500, confidence_threshold=1e-9))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(handle, 0.05)
    assert handle.result(10).finish_reason == "cancelled"


def test_timeout_drops_the_request(tiny_engine: Engine) -> None:
    tiny_engine.load()
    handle = tiny_engine.submit([2, 50], SamplingParams(max_new_tokens=1500, confidence_threshold=1e-9), timeout=0.05)
    with pytest.raises(RequestTimeoutError, match="timeout"):
        handle.result(10)
    assert tiny_engine.stats().running == 0


def test_waiting_in_vain_leaves_the_request_running(tiny_engine: Engine) -> None:
    tiny_engine.load()
    handle = tiny_engine.submit([2, 50], SamplingParams(max_new_tokens=1500, confidence_threshold=1e-9))
    with pytest.raises(RequestTimeoutError, match="still running"):
        handle.result(0.01)
    assert not handle.done()
    handle.cancel()
    handle.result(10)


def test_queue_is_bounded(tiny_checkpoint: str) -> None:
    with Engine(LoadSpec(model=tiny_checkpoint, max_queue=2, max_batch_tokens=8)) as engine:
        params = SamplingParams(max_new_tokens=200, confidence_threshold=1e-9)
        handles: list[RequestHandle] = []

        def flood() -> None:
            handles.extend(engine.submit([2, 50], params) for _ in range(9))

        with pytest.raises(QueueFullError, match="max_queue=2"):
            flood()
        for handle in handles:
            handle.cancel()
            handle.result(10)
        assert engine.generate([[2, 50]] * 6, SamplingParams(max_new_tokens=4, seed=0))  # Waits for room by itself.


def test_close_fails_open_requests_and_later_ones(tiny_checkpoint: str) -> None:
    engine = Engine(LoadSpec(model=tiny_checkpoint))
    handle = engine.submit([2, 50], SamplingParams(max_new_tokens=1500, confidence_threshold=1e-9))
    engine.load()
    engine.close()
    engine.close()
    with pytest.raises(EngineClosedError):
        handle.result(10)
    with pytest.raises(EngineClosedError):
        engine.submit([2, 50])
    assert engine.closed


def test_shared_engines_are_counted(tiny_checkpoint: str) -> None:
    spec = LoadSpec(model=tiny_checkpoint, max_context=500)
    first, second = Engine.shared(spec), Engine.shared(LoadSpec(model=tiny_checkpoint, max_context=500))
    assert first is second
    first.generate([[2, 50]], SamplingParams(max_new_tokens=4))
    first.close()
    assert not second.closed
    assert second.stats().weight_loads == 1
    second.close()
    assert second.closed
    again = Engine.shared(spec)
    assert again is not first
    again.close()


def test_a_forgotten_engine_ends_its_thread(tiny_checkpoint: str) -> None:
    others = set(threading.enumerate())  # A shared engine of another test may serve the same checkpoint.
    engine = Engine(LoadSpec(model=tiny_checkpoint))
    engine.generate([[2, 50]], SamplingParams(max_new_tokens=4))
    (thread,) = [t for t in set(threading.enumerate()) - others if t.name == f"dgemma-{tiny_checkpoint}"]
    del engine
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


# Bad input.


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("", "prompt=''"), ([], r"prompt=\[\]"), ([Message("user", "  ")], "empty"), ([2, 99999], "99999"),
        ([2, -1], "-1"), ([2, True], "True"), ([2, "x"], "'x'"), (7, "prompt=7"),
    ],
)  # fmt: skip
def test_bad_prompts_are_named_at_the_call(tiny_engine: Engine, prompt: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tiny_engine.submit(prompt)
    assert tiny_engine.stats().weight_loads == 0


def test_too_long_is_refused_with_the_numbers_before_any_work(tiny_engine: Engine) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        tiny_engine.submit([2] * 2000, SamplingParams(max_new_tokens=100))
    assert (caught.value.prompt_tokens, caught.value.max_new_tokens, caught.value.context_window) == (2000, 100, 2048)
    assert "2100" in str(caught.value)
    assert not isinstance(caught.value, ValueError)
    assert tiny_engine.stats().weight_loads == 0
    assert tiny_engine.generate([[2] * 2040], SamplingParams(seed=0))[0].usage.completion_tokens == 8


def test_other_misuse_is_named(tiny_engine: Engine) -> None:
    with pytest.raises(ValueError, match="list of prompts"):
        tiny_engine.generate("one prompt")
    with pytest.raises(ValueError, match="canvas_length=17"):
        tiny_engine.submit([2], SamplingParams(canvas_length=17))
    with pytest.raises(ValueError, match="timeout=0"):
        tiny_engine.submit([2], timeout=0)
    with pytest.raises(ValueError, match=r"t_max=0\.1"):
        tiny_engine.submit([2], SamplingParams(t_max=0.1))
    with pytest.raises(ValueError, match="canvas_length=17"):
        tiny_engine.check_settings(SamplingParams(canvas_length=17))
    with pytest.raises(ValueError, match="tools"):
        tiny_engine.submit("text", tools=[{"type": "function"}])
    with pytest.raises(ValueError, match="unknown option 'colour'"):
        Engine.from_model(make_model(), make_tokenizer(), colour=1)
    with pytest.raises(ValueError, match="must be a DiffusionGemmaForBlockDiffusion"):
        Engine.from_model(torch.nn.Linear(1, 1), make_tokenizer())


def test_loading_does_not_count_as_time_of_a_request(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgemma_core.engine import loading as module

    original = module.load_weights

    def slow(*arguments: Any) -> Any:
        time.sleep(1.2)
        return original(*arguments)

    monkeypatch.setattr(module, "load_weights", slow)
    params = SamplingParams(max_new_tokens=4, max_denoising_steps=1)
    assert tiny_engine.submit([2, 50], params, timeout=1.0).result(30).token_ids


# Failures inside a step.


def test_only_the_request_at_fault_fails(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, marked=77, error=ArithmeticError("bad row"))
    params = SamplingParams(seed=1, max_new_tokens=16)
    handles = [tiny_engine.submit([2, 77 if i == 5 else 60 + i, 9], params) for i in range(9)]
    for index, handle in enumerate(handles):
        if index == 5:
            with pytest.raises(DGemmaError, match="bad row") as caught:
                handle.result(30)
            assert isinstance(caught.value.__cause__, ArithmeticError)
        else:
            assert handle.result(30).token_ids
    assert tiny_engine.stats().failed == 1


def test_out_of_memory_is_retried_smaller(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    (made,) = [sabotage(monkeypatch, marked=9, error=torch.OutOfMemoryError("out of memory"), smallest=3)]
    params = SamplingParams(seed=1, max_new_tokens=16)
    answers = tiny_engine.generate([[2, 60 + i, 9] for i in range(4)], params)
    assert all(a.token_ids for a in answers)
    assert 4 in made[0].batches
    assert 2 in made[0].batches


def test_out_of_memory_alone_fails_with_a_remedy(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, marked=9, error=torch.OutOfMemoryError("out of memory"))
    with pytest.raises(OutOfMemoryError, match="Lower max_new_tokens"):
        tiny_engine.generate([[2, 60, 9]], SamplingParams(max_new_tokens=16))


def test_one_out_of_memory_costs_only_the_prefix_cache(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(seed=1, max_new_tokens=16)
    with Engine(LoadSpec(model=tiny_checkpoint)) as engine:
        expected = engine.generate([[2, 60, 9]], params)[0].token_ids
    sabotage(monkeypatch, marked=60, error=torch.OutOfMemoryError("out of memory"), times=1)
    with Engine(LoadSpec(model=tiny_checkpoint)) as engine:
        engine.generate([[2, 61, *range(100, 140)]], params)
        assert engine.stats().prefix_cache_bytes > 0
        held = engine.stats().prefix_cache_bytes
        assert engine.generate([[2, 60, 9]], params)[0].token_ids == expected
        assert engine.stats().prefix_cache_bytes < held  # The first prefix is gone, the new one is in.


def test_what_fails_after_the_pass_costs_one_request(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Canvas.advance

    def advance(self: Canvas, *statistics: Any) -> bool:
        if self.settings.entropy_bound == 7.0:
            raise ArithmeticError("bad canvas")
        return original(self, *statistics)

    monkeypatch.setattr(Canvas, "advance", advance)
    broken = tiny_engine.submit([2, 50], SamplingParams(seed=1, max_new_tokens=16, entropy_bound=7.0))
    fine = tiny_engine.submit([2, 51], SamplingParams(seed=1, max_new_tokens=16))
    with pytest.raises(DGemmaError, match="bad canvas"):
        broken.result(30)
    assert fine.result(30).token_ids
    assert not tiny_engine.closed


def test_a_prompt_that_cannot_be_kept_is_answered(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork_prefix(self: EagerBackend, source: int, into: int, length: int) -> None:
        raise torch.OutOfMemoryError("out of memory")

    params = SamplingParams(seed=1, max_new_tokens=16)
    assert tiny_engine.generate([[2, 50]], params)[0].token_ids
    assert tiny_engine.stats().prefix_cache_bytes > 0
    monkeypatch.setattr(EagerBackend, "fork_prefix", fork_prefix)
    assert tiny_engine.generate([[3, 51]], params)[0].token_ids
    assert tiny_engine.stats().prefix_cache_bytes == 0


def test_a_dead_worker_fails_everyone_at_once(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgemma_core.engine.scheduler import Scheduler

    tiny_engine.load()
    handle = tiny_engine.submit([2, 50], SamplingParams(max_new_tokens=1500, confidence_threshold=1e-9))
    time.sleep(0.1)

    def broken(self: Scheduler) -> Any:
        raise AssertionError("scheduler broke")

    monkeypatch.setattr(Scheduler, "schedule", broken)
    with pytest.raises(EngineDeadError, match="scheduler broke"):
        handle.result(10)
    with pytest.raises(EngineDeadError, match="scheduler broke"):
        tiny_engine.submit([2, 50])
    assert tiny_engine.closed


@pytest.mark.landing
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told(tiny_checkpoint: str) -> None:
    code = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from dgemma_core import Engine, LoadSpec, SamplingParams\n"
        "from dgemma_core.errors import EngineDeadError\n"
        f"spec = LoadSpec(model={tiny_checkpoint!r}, device='cpu')\n"
        "engine = Engine.shared(spec)\n"
        "engine.load()\n"
        "slow = SamplingParams(max_new_tokens=900, max_denoising_steps=9999, confidence_threshold=1e-9)\n"
        "handle = engine.submit('Hello', slow)\n"
        "child = os.fork()\n"
        "if child:\n"
        "    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "    handle.cancel()\n"
        "    engine.generate(['Hello'], SamplingParams(max_new_tokens=2, max_denoising_steps=1))\n"
        "    sys.exit(status)\n"
        "try:\n"
        "    engine.submit('Hello')\n"
        "except EngineDeadError as error:\n"
        "    told = 'forked' in str(error) and engine.closed and Engine.shared(spec) is not engine\n"
        "try:\n"
        "    handle.result(30)\n"
        "except EngineDeadError:\n"
        "    os._exit(7 if told else 1)\n"
        "os._exit(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == 7


@pytest.mark.parametrize("end", ["cancelled", "closed"])
@pytest.mark.parametrize("way", ["asubmit", "ainfill"])
def test_a_task_that_ends_while_its_request_is_prepared_leaves_none(tiny_checkpoint: str, way: str, end: str) -> None:
    grammar = Grammar.choice(["fox", "dog"])
    with Engine(LoadSpec(model=tiny_checkpoint)) as engine:
        engine.load()
        loop = asyncio.new_event_loop()
        if way == "asubmit":
            work: Any = engine.asubmit(Request(ask("Who?"), SamplingParams(max_new_tokens=8, grammar=grammar)))
        else:
            work = engine.ainfill(["It was ", Hole(4, grammar), "."])
        task = loop.create_task(work)
        with engine._parts._compiler_lock:  # The first grammar waits for it, on a thread.
            loop.run_until_complete(asyncio.sleep(0.05))
            assert not task.done()
            if end == "cancelled":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    loop.run_until_complete(task)
            else:
                loop._default_executor.shutdown(wait=False)  # type: ignore[attr-defined]
                loop.close()
        wait_for(lambda: engine._parts._compiler is not None)
        time.sleep(0.05)
        assert engine.stats().submitted == 0
        if end == "cancelled":
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
