"""A run that was saved and restored goes on exactly as if it had not stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from training.config import PRESETS
from training.data.mixture import DEFAULT_MIX
from training.train import Trainer, learning_rate
from training.tree import draw_batches
from training.walk import Packed

pytestmark = pytest.mark.landing  # It trains a tokenizer and models.


@pytest.fixture(scope="module")
def run(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def _batches(trainer: Trainer) -> list[Packed]:
    return list(draw_batches(trainer.tokenizer, "resume", DEFAULT_MIX, 0.0, 512, trees=8))[:3]


def test_resume_is_exact(run: Path) -> None:
    straight = Trainer(run, PRESETS["tiny"], "cpu", seed=0)
    batches = _batches(straight)
    for number, batch in enumerate(batches):
        straight.train_step(batch, 0.1)
        if number == 0:
            straight.save()
    resumed = Trainer(run, PRESETS["tiny"], "cpu", seed=5)
    resumed.restore()
    for batch in batches[1:]:
        resumed.train_step(batch, 0.1)
    assert (resumed.step, resumed.examples) == (straight.step, straight.examples)
    for a, b in zip(straight.parameters, resumed.parameters, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)
    for a, b in zip(straight.average, resumed.average, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_loss_falls_on_one_batch(run: Path) -> None:
    trainer = Trainer(run, PRESETS["tiny"], "cpu", seed=0)
    batch = _batches(trainer)[0]
    trainer.step = 200  # past the warm-up
    losses = []
    for _ in range(15):
        trainer.train_step(batch, 0.0)
        losses.append(trainer.report()["causal"])
    assert losses[-1] < losses[0] - 0.5


def test_learning_rate_follows_the_budget() -> None:
    assert learning_rate(0, 0.0) < 0.02
    assert learning_rate(1000, 0.0) == pytest.approx(1.0)
    assert learning_rate(1000, 0.5) == pytest.approx(0.515)
    assert learning_rate(1000, 1.0) == pytest.approx(0.03)
