"""The parts of a checkpoint that work on the host: made once, at their first use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dgemma_core import Grammar, LoadSpec
from dgemma_core.checkpoint.description import CheckpointDescription, describe
from dgemma_core.engine import checkpoint_parts as module
from dgemma_core.engine.checkpoint_parts import CheckpointParts
from tests.checkpoints import make_model
from tests.core.engine.making import tokenizer


@pytest.fixture(scope="module")
def description() -> CheckpointDescription:
    model = make_model()
    return describe(tokenizer(), model.config, model.generation_config)


def adopted(description: CheckpointDescription, model: str = "embedded") -> CheckpointParts:
    parts = CheckpointParts(LoadSpec(model=model))
    parts.adopt(description)
    return parts


def from_threads(get: Callable[[], object], count: int = 4) -> list[object]:
    """What every thread gets, all of them asking at once."""
    got: list[object] = []
    barrier = threading.Barrier(count)

    def ask() -> None:
        barrier.wait()
        got.append(get())

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return got


def test_the_description_is_read_at_its_first_use(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    original = module.read_description

    def read(spec: LoadSpec) -> CheckpointDescription:
        reads.append(spec)
        return original(spec)

    monkeypatch.setattr(module, "read_description", read)
    spec = LoadSpec(model=tiny_checkpoint)
    parts = CheckpointParts(spec)
    assert not reads
    got = from_threads(lambda: parts.description)
    assert len(got) == 4
    assert len(set(map(id, got))) == 1
    assert reads == [spec]


def test_one_that_was_handed_over_is_taken(description: CheckpointDescription) -> None:
    assert adopted(description, model="/no/such").description is description


@pytest.mark.parametrize(
    ("name", "made"), [("template", "ChatTemplate"), ("images", "ImagePreprocessor"), ("compiler", "GrammarCompiler")]
)
def test_every_part_is_made_once(
    description: CheckpointDescription, monkeypatch: pytest.MonkeyPatch, name: str, made: str
) -> None:
    original = getattr(module, made)
    count = []

    def slow(*arguments: Any) -> Any:
        count.append(made)
        time.sleep(0.02)
        return original(*arguments)

    monkeypatch.setattr(module, made, slow)
    parts = adopted(description)
    got = from_threads(lambda: getattr(parts, name))
    assert len(got) == 4
    assert len(set(map(id, got))) == 1
    assert count == [made]


@pytest.mark.parametrize("slow", ["_images_lock", "_compiler_lock"])
def test_what_takes_long_holds_up_nobody_else(description: CheckpointDescription, slow: str) -> None:
    parts = adopted(description)
    got: list[object] = []
    with getattr(parts, slow):
        thread = threading.Thread(target=lambda: got.append(parts.template))
        thread.start()
        thread.join(30)
    assert got


def test_after_a_fork_no_lock_is_held(description: CheckpointDescription) -> None:
    """Neither those of the parts themselves nor those that the parts hold."""
    parts = adopted(description)
    held = [parts._lock, parts._images_lock, parts._compiler_lock, parts.images._lock, parts.compiler._lock]
    template = parts.template
    for lock in held:
        lock.acquire()
    parts.renew_locks()
    assert parts.template is template
    assert not parts.images._lock.locked()
    parts.compiler.matcher(Grammar.choice(["a"]))


async def test_aopen_prepares_the_template(description: CheckpointDescription) -> None:
    parts = adopted(description)
    await parts.aopen()
    assert parts._template is not None
    await parts.aopen()
