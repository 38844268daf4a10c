"""A writer's part in a step: its known tokens and drafts as segments, and the results that come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_core.api.events import TokenLogprob
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.denoise.causal_writer import Accepted
from dgemma_core.engine.scheduler import Work
from dgemma_core.execution.backend import (
    Backend,
    CanvasResult,
    CanvasSegment,
    EncodeSegment,
    ImageInput,
    Logprobs,
    Predict,
    Prediction,
    Slot,
)


@dataclass(frozen=True)
class Written:
    """The result of a writer's part in a step.

    Attributes:
        predictions: one per draft.
        canvas: None if the canvas took no part.
    """

    predictions: tuple[Prediction, ...]
    canvas: CanvasResult | None


def predicts(part: Work) -> bool:
    """Whether a writer's part encodes everything that is known, so that the next token can be predicted."""
    return part.sequence.writer is not None and part.begin + part.encode == len(part.sequence.tokens)


def drafts(part: Work) -> bool:
    """Whether the part verifies drafts. With the prompt there are none: its canvas has not been denoised yet."""
    return part.denoise and part.begin >= part.sequence.prompt_length


def propose(part: Work) -> None:
    """Make the drafts that the part verifies. Calls the guide, which may raise."""
    sequence = part.sequence
    if predicts(part) and sequence.writer is not None:
        with sequence.costs.guiding(sequence.writer.guide is not None):
            sequence.writer.propose(drafts(part))


def encode_segments(part: Work, slot: Slot, images: tuple[ImageInput, ...]) -> Iterator[EncodeSegment]:
    """The known tokens, followed by a draft: one segment per draft."""
    sequence, writer, begin = part.sequence, part.sequence.writer, part.begin
    known = sequence.tokens[begin : begin + part.encode]
    if writer is None or not predicts(part):
        yield EncodeSegment(slot, begin, torch.tensor(known, dtype=torch.long), images, adopt=sequence.unadopted)
        return
    for number, draft in enumerate(writer.propose(drafts(part))):
        yield EncodeSegment(
            slot=slot,
            start=begin,
            tokens=torch.tensor([*known, *draft.tokens], dtype=torch.long),
            images=images,
            predict=Predict(
                uniform=draft.uniform,
                rule=writer.rule,
                allowed=draft.allowed,
                banned=sequence.banned,
                logprobs=writer.logprobs,
                kept=writer.guide is not None,
            ),
            apart=number > 0,
            adopt=0 if number else sequence.unadopted,
        )


def canvas_segment(part: Work, slot: Slot) -> CanvasSegment:
    """The canvas of a writer. It begins with the known tokens; with the prompt it begins after it."""
    writer = part.sequence.writer
    assert writer is not None
    canvas = writer.canvas
    assert canvas is not None, "a writer without a canvas denoises nothing"
    return CanvasSegment(
        slot=slot,
        start=part.begin if drafts(part) else part.begin + part.encode,
        length=canvas.length,
        tokens=canvas.tokens,
        pinned=canvas.conditioned_on_token,
        unconditioned=canvas.unconditioned,
        uniform=canvas.uniform,
        temperature=canvas.temperature,
        shift=canvas.shift,
        banned=part.sequence.banned,
    )


def result_of(part: Work, canvases: Iterator[CanvasResult | None], predictions: Iterator[Prediction]) -> Written | None:
    """The next results of a step that belong to a writer's part. None if it predicts nothing."""
    writer = part.sequence.writer
    if writer is None or not predicts(part):
        return None
    found = tuple(next(predictions) for _ in writer.propose(drafts(part)))
    return Written(found, next(canvases) if part.denoises else None)


def book_written(part: Work, result: Written, backend: Backend, slot: Slot) -> Accepted:
    """Book a writer's pass. Its known tokens are booked already.

    Args:
        part: of the step.
        result: of the part.
        backend: has run the step.
        slot: of the sequence.

    Returns:
        What was accepted.
    """
    sequence, writer = part.sequence, part.sequence.writer
    assert writer is not None
    sequence.costs.predicted()
    if result.canvas is not None and writer.canvas is not None:
        writer.canvas.advance(result.canvas.argmax, result.canvas.sample, result.canvas.entropy)
        sequence.costs.step(writer.canvas.length)
        if writer.canvas.steps == 1:
            sequence.costs.canvas()

    def logits(draft: int, row: int) -> Tensor:
        return backend.prediction_logits(slot, row, apart=draft > 0)

    with sequence.costs.guiding(writer.guide is not None):
        accepted = writer.accept([prediction.tokens for prediction in result.predictions], logits)
    with_prompt = sequence.committed - part.encode < sequence.prompt_length
    if sequence.logprobs is not None:
        sequence.logprobs += _logprobs(accepted, result.predictions[accepted.draft].logprobs, sequence.detokenizer)
    sequence.written(accepted, part.encode, moved=0 if with_prompt else part.encode)
    return accepted


def _logprobs(accepted: Accepted, found: Logprobs | None, detokenizer: Detokenizer) -> Iterator[TokenLogprob]:
    """The log-probabilities of accepted tokens."""
    assert found is not None, "they were asked for"
    for token, row in zip(accepted.tokens, accepted.predicted, strict=True):
        if row is None:
            yield TokenLogprob(token, detokenizer.spelled(token), 0.0)
            continue
        best = zip(found.top_tokens[row].tolist(), found.top[row].tolist(), strict=True)
        top = tuple((other, detokenizer.spelled(other), nats) for other, nats in best)
        yield TokenLogprob(token, detokenizer.spelled(token), float(found.chosen[row]), top)
