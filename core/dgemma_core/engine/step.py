"""Turns scheduled work into a step, and books the step's result. Only this module joins sequences and tensors.

Canvases are opened, and guides called, before the pass. So a step is plain data, and a failed pass can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_core.chat.image_patches import PlacedImage
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.engine.scheduler import Work
from dgemma_core.engine.sequence import Sequence
from dgemma_core.execution.backend import (
    Backend,
    CanvasResult,
    CanvasSegment,
    EncodeSegment,
    ImageInput,
    PrefixCopy,
    Slot,
    Step,
)


@dataclass(frozen=True)
class SlotRows:
    """The :class:`~dgemma_core.denoise.guide.Rows` of one slot's canvas after a step.

    Attributes:
        backend: has run the step.
        slot: of the sequence.
        temperature: divisor of the logits.
    """

    backend: Backend
    slot: Slot
    temperature: float

    def logits(self, start: int, stop: int) -> Tensor:
        """Processed logits of canvas positions: float32 ``[stop - start, vocab]`` on the host."""
        return self.backend.logits(self.slot, start, stop, self.temperature)

    def label_logits(self, positions: Seq[int], labels: Seq[Seq[int]]) -> list[Tensor]:
        """Soft-capped logits of a few tokens per position: per position float32 ``[labels]`` on the host."""
        return self.backend.label_logits(self.slot, positions, labels)


class StepRunner:
    """Runs scheduled work through a backend.

    Args:
        backend: computes the steps.
        end_ids: token ids that end an answer.
    """

    def __init__(self, backend: Backend, end_ids: frozenset[int]) -> None:
        self.backend = backend
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.long)

    def open_canvas(self, work: Work) -> None:
        """Open a canvas for work that denoises, unless it has one. Calls the guide, which may raise."""
        if work.denoise:
            work.sequence.open_canvas(self.backend.vocab_size, self._end_ids)

    def forward(self, work: Seq[Work]) -> list[CanvasResult | None]:
        """One forward pass over work whose canvases are open. It does not change sequences, so it can be repeated.

        Returns:
            One entry per part: the result of its canvas. None if it denoises nothing, or if a guide only reads.
        """
        results = iter(self.backend.run(build_step(work)).canvases)
        return [next(results) if part.denoise else None for part in work]

    def rows(self, sequence: Sequence, canvas: Canvas) -> SlotRows:
        """Distributions of the canvas's positions after its last step."""
        return SlotRows(self.backend, slot_of(sequence), canvas.temperature)


def commit(work: Seq[Work]) -> None:
    """Book the encoded and the borrowed tokens after a successful pass."""
    for part in work:
        if part.loan:
            part.sequence.borrowed(part.loan.length)
        if part.encode:
            part.sequence.encoded(part.encode)


def book(work: Work, result: CanvasResult | None) -> bool:
    """Book the result of a denoising step.

    Returns:
        Whether the canvas's own stopping rule ends it here. True if a guide only reads the canvas.
    """
    canvas, positions = work.sequence.canvas, work.sequence.active
    assert canvas is not None, "only work with a canvas is booked"
    settled = True
    if result is not None:
        settled = canvas.advance(result.argmax, result.sample, result.entropy)
    work.sequence.costs.step(positions)
    return settled


def build_step(work: Seq[Work]) -> Step:
    """The work's parts as plain data."""
    return Step(
        encode=tuple(_encode_segment(part) for part in work if part.encode),
        canvases=tuple(_canvas_segment(part) for part in work if part.denoise),
        copies=tuple(
            PrefixCopy(slot_of(part.sequence), slot_of(part.loan.lender), part.begin - part.loan.length, part.begin)
            for part in work
            if part.loan is not None
        ),
    )


def slot_of(sequence: Sequence) -> Slot:
    """The slot of a sequence that runs."""
    assert sequence.slot is not None, "a sequence is given its slot when it is admitted"
    return sequence.slot


def _encode_segment(part: Work) -> EncodeSegment:
    sequence, begin = part.sequence, part.begin
    tokens = torch.tensor(sequence.tokens[begin : begin + part.encode], dtype=torch.long)
    images = sequence.images_within(begin, part.encode) if sequence.images else ()
    return EncodeSegment(slot_of(sequence), begin, tokens, tuple(map(_image_input, images)))


def _image_input(image: PlacedImage) -> ImageInput:
    return ImageInput(image.start, image.length, image.patches, image.positions)


def _canvas_segment(part: Work) -> CanvasSegment:
    sequence, canvas = part.sequence, part.sequence.canvas
    assert canvas is not None, "canvases are opened before the pass"
    return CanvasSegment(
        slot=slot_of(sequence),
        start=part.begin + part.encode,
        length=canvas.length,
        # Copies, because the canvas changes in place after the pass, and a recorded step must not change.
        tokens=canvas.tokens[: canvas.active].clone(),
        pinned=canvas.conditioned_on_token.clone(),
        unconditioned=canvas.unconditioned[: canvas.active].clone(),
        uniform=canvas.uniform,
        temperature=canvas.temperature,
        reads=sequence.reads,
        guided=sequence.guide is not None,
        banned=sequence.banned,
    )
