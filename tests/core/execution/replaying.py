"""Replays recordings on backends and compares the results."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dgemma_core.execution.backend import Prediction, StepResult
from dgemma_core.execution.backend_calls import Open
from dgemma_core.execution.recording import Recording, Replayed
from tests.checkpoints import make_model
from tests.core.execution.record_steps import SCENARIOS, file_of

TOLERANCE = 1e-4  # Of entropies, in nats, and of logits.


@lru_cache
def committed(name: str) -> Recording:
    """The recording of a scenario that is kept in the repository."""
    return Recording.load(file_of(name))


def model_of(recording: Recording) -> Any:
    """The model whose steps were recorded; no test changes it."""
    return _model(json.dumps(recording.weights))


@lru_cache(len(SCENARIOS))
def _model(weights: str) -> Any:
    return make_model(**json.loads(weights))


def numbers(result: Any) -> list[Tensor]:
    """The tensors of a call's result, in order."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, StepResult):
        canvases = [t for canvas in result.canvases if canvas for t in (canvas.argmax, canvas.sample, canvas.entropy)]
        return [*canvases, *(t for prediction in result.predictions for t in numbers_of(prediction))]
    return list(result) if isinstance(result, tuple) else []


def numbers_of(prediction: Prediction) -> list[Tensor]:
    """The tensors of a prediction, in order."""
    own = prediction.logprobs
    return [prediction.tokens] if own is None else [prediction.tokens, own.chosen, own.top_tokens, own.top]


def same(one: Any, other: Any) -> bool:
    """Whether two values of a step, a result or a call are equal, their tensors bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


def check_equal(replayed: Replayed) -> None:
    """The new result is the recorded one, bit for bit."""
    if not isinstance(replayed.call, Open):
        assert same(replayed.recorded, replayed.new), replayed.call


def check_close(replayed: Replayed) -> None:
    """Tokens are equal; entropies and logits are close."""
    for recorded, new in _pairs(replayed):
        if recorded.dtype == torch.float32:
            torch.testing.assert_close(new, recorded, atol=TOLERANCE, rtol=0)
        else:
            assert torch.equal(recorded, new), replayed.call


def _pairs(replayed: Replayed) -> list[tuple[Tensor, Tensor]]:
    recorded, new = replayed.recorded, replayed.new
    assert type(recorded) is type(new)
    if isinstance(recorded, StepResult):
        assert isinstance(new, StepResult)
        assert [canvas is None for canvas in recorded.canvases] == [canvas is None for canvas in new.canvases]
    pairs = list(zip(numbers(recorded), numbers(new), strict=True))
    for old, now in pairs:
        assert (old.dtype, old.shape, now.device.type) == (now.dtype, now.shape, "cpu")
    return pairs
