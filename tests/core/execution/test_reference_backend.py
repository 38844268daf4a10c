"""The float64 backend agrees with the recorded steps of the eager one, and answers an engine's requests alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgemma_core import Engine, Grammar, SamplingParams
from dgemma_core.execution.backend import CanvasResult, Predict, Prediction, StepResult
from dgemma_core.execution.backend_calls import Run
from dgemma_core.execution.recording import replay
from tests.checkpoints import make_model, make_tokenizer
from tests.core.execution.record_steps import SCENARIOS, prompt
from tests.core.execution.replaying import TOLERANCE, check_close, committed, model_of
from tests.reference_backend import ReferenceBackend

CLEAR = 1e-5  # Probability: below it two tokens are as likely, and a draw is on a boundary between two.


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_agrees_with_the_recorded_steps(name: str) -> None:
    recording = committed(name)
    backend = ReferenceBackend(model_of(recording))
    rows = unclear = 0
    for replayed in replay(recording, backend):
        if not isinstance(replayed.call, Run):
            check_close(replayed)
            continue
        asked = [segment.predict for segment in replayed.call.step.encode if segment.predict]
        for predict, recorded_one, new_one, chances in zip(
            asked, replayed.recorded.predictions, replayed.new.predictions, backend.chances, strict=True
        ):
            rows += predict.rows
            unclear += check_prediction(predict, recorded_one, new_one, chances)
        canvases = replayed.call.step.canvases
        results = (result.canvases for result in replayed[1:] if isinstance(result, StepResult))
        for canvas, recorded, new, probabilities in zip(canvases, *results, backend.probabilities, strict=True):
            assert (recorded is None) == (new is None) == (canvas.reads is not None)
            if recorded and new and probabilities is not None:
                rows += canvas.active
                unclear += check_canvas(recorded, new, probabilities, canvas.uniform)
    assert unclear <= rows / 1000


def check_canvas(recorded: CanvasResult, new: CanvasResult, probabilities: Tensor, uniform: Tensor) -> int:
    """Compare two results; returns how many positions have no clear winner or no clear sample."""
    torch.testing.assert_close(new.entropy, recorded.entropy, atol=TOLERANCE, rtol=0)
    won, drawn = clear_winner(probabilities), inside_a_token(probabilities, uniform)
    assert torch.equal(new.argmax[won], recorded.argmax[won])
    assert torch.equal(new.sample[drawn], recorded.sample[drawn])
    return int((~(won & drawn)).sum())


def check_prediction(asked: Predict, recorded: Prediction, new: Prediction, chances: Tensor) -> int:
    """Compare two predictions; returns how many rows have no clear winner or no clear draw."""
    clear = clear_winner(chances) if asked.rule.greedy else inside_a_token(chances, asked.uniform)
    assert torch.equal(new.tokens[clear], recorded.tokens[clear])
    assert (new.logprobs is None) == (recorded.logprobs is None) == (asked.logprobs is None)
    if new.logprobs and recorded.logprobs:
        torch.testing.assert_close(new.logprobs.chosen[clear], recorded.logprobs.chosen[clear], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(new.logprobs.top, recorded.logprobs.top, atol=TOLERANCE, rtol=0)
    return int((~clear).sum())


def clear_winner(probabilities: Tensor) -> Tensor:
    """Bool ``[rows]``: whether one token is clearly likelier than all others."""
    best = probabilities.topk(2).values
    return best[:, 0] - best[:, 1] > CLEAR


def inside_a_token(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Bool ``[rows]``: whether the draw lies within a token's interval, not on its boundary."""
    return ((probabilities.cumsum(-1) - uniform.double()[:, None]).abs() > CLEAR).all(-1)


def test_an_engine_gives_the_same_answers_with_it() -> None:
    model = make_model(seed=3, damping=0.5, varied_scales=True)
    choice = SamplingParams(seed=1, max_new_tokens=12, grammar=Grammar.choice(["quick fox", "lazy dog"]))
    answers = []
    for reference in (False, True):
        with Engine.from_model(model, make_tokenizer(), max_batch_tokens=40) as engine:
            if reference:
                engine._loader.make_backend = ReferenceBackend
            prompts = [prompt(50, seed=1), prompt(6, seed=2)]
            free = engine.generate(prompts, SamplingParams(seed=1, max_new_tokens=24))
            guided = engine.generate([prompts[0]], choice)
        answers.append([generation.token_ids for generation in (*free, *guided)])
    assert answers[0] == answers[1]
