"""Ctrl-C in a process's first seconds: nothing is torn, the next call works, and the process ends without noise."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What is imported or begun by a first call, in this order.
MOMENTS = ("torch", "torch._C", "torch.nn", "transformers", "tokenizers", "loading")


def run(way: str, mode: str, *moments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.integrations.cold_start", way, mode, *moments]
    folders = [str(ROOT), str(ROOT / "core")]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": ":".join(folders)},
    )


def check_again(done: subprocess.CompletedProcess[str], interrupts: int) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupts:", str(interrupts)]
    assert not done.stderr


def check_once(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode in (1, 130, -signal.SIGINT), (done.returncode, done.stderr)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt"), done.stderr
    assert done.stderr.count("Traceback") == 1, done.stderr


def test_a_first_call_interrupted_again_and_again_answers_in_the_end() -> None:
    check_again(run("langchain", "again", "asyncio", "torch", "torch.nn", "transformers", "loading"), 5)


@pytest.mark.landing
@pytest.mark.parametrize("way", ["batch", "llama_index", "rerank", "engine", "tokens", "structured"])
def test_other_first_calls_answer_in_the_end(way: str) -> None:
    moments = MOMENTS[:5] if way == "tokens" else MOMENTS
    if way in ("llama_index", "rerank"):
        moments = ("yaml", *moments)
    check_again(run(way, "again", *moments), len(moments))


@pytest.mark.landing
@pytest.mark.parametrize("moment", ["torch", "torch.nn", "transformers", "loading"])
def test_an_interrupt_that_nobody_catches_ends_the_process_with_it_alone(moment: str) -> None:
    check_once(run("langchain", "once", moment))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["again", "once"])
# A cold call imports about 3,000 modules.
@pytest.mark.parametrize("number", random.Random(7).sample(range(1, 2900), 20))
def test_twenty_random_moments(number: int, mode: str) -> None:
    done = run("langchain", mode, f"+{number}")
    if mode == "again":
        check_again(done, 1)
    else:
        check_once(done)
