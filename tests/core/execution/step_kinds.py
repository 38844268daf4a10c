"""What occurs in a recording, so that the recorded steps cannot silently lose a case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dgemma_core.execution.backend import CanvasSegment, EncodeSegment, ImageInput, Slot, Step
from dgemma_core.execution.backend_calls import Close, ForkPrefix, ReadLabelLogits, ReadLogits, Run
from dgemma_core.execution.recording import Recording

KINDS = {
    "a prompt in one pass",
    "a prompt in several passes",
    "an encoded chunk alone",
    "a canvas's first step",
    "a canvas's later step",
    "a canvas is committed, and the next one denoised in the same pass",
    "one sequence prefills while others denoise",
    "several canvases",
    "canvases of several lengths",
    "several temperatures",
    "a frozen tail",
    "a frozen tail is computed again",
    "pinned positions",
    "a pinned position after a free one",
    "disturbed positions",
    "positions that are only read",
    "some canvases are only read, others denoised",
    "a canvas is read twice",
    "logits",
    "logits of a canvas with a frozen tail",
    "label logits",
    "a prediction after a prompt",
    "a prediction alone",
    "a draft",
    "two drafts of one sequence",
    "a draft beside its canvas",
    "a draft that was kept apart is adopted",
    "a canvas that has moved",
    "predictions of several rules",
    "predictions within a grammar",
    "log-probabilities",
    "an image",
    "several images in a slot",
    "images whose tokens see earlier tokens only",
    "images whose tokens see each other",
    "a prefix copied within a step",
    "an image copied within a step",
    "a prefix copied, and its slot not denoised",
    "a prefix fork",
    "an image in a prefix fork",
    "a closed slot",
    "a prefix longer than the sliding window",
    "one expert a token",
    "several experts a token",
    "three layers",
}


def count_kinds(recording: Recording) -> Counter[str]:
    """How often each kind occurs."""
    weights = recording.weights
    counts = Counter(_kinds_of_calls(recording, weights.get("sliding_window", 24)))
    counts["one expert a token" if weights.get("top_k") == 1 else "several experts a token"] += 1
    counts["three layers"] += len(weights.get("layers", ())) == 3
    whole = weights.get("image_attention") == "vision"
    counts[f"images whose tokens see {'each other' if whole else 'earlier tokens only'}"] += counts["an image"]
    return +counts


def _kinds_of_calls(recording: Recording, window: int) -> Iterator[str]:
    seen = _Seen()
    for call in recording.calls:
        if isinstance(call, Run):
            yield from _kinds_of_step(call.step, seen, window)
        elif isinstance(call, ReadLogits):
            yield "logits"
            if (canvas := seen.canvases[call.slot]).active < canvas.length:
                yield "logits of a canvas with a frozen tail"
        elif isinstance(call, ReadLabelLogits):
            yield "label logits"
        elif isinstance(call, ForkPrefix):
            yield "a prefix fork"
            if images := [i for i in seen.images_of(call.source) if i.stop <= call.length]:
                yield "an image in a prefix fork"
            seen.images[call.into] = images
        elif isinstance(call, Close):
            yield "a closed slot"


class _Seen:
    """What the slots held before the present call."""

    def __init__(self) -> None:
        self.canvases: dict[Slot, CanvasSegment] = {}
        self.encoded: dict[Slot, EncodeSegment] = {}
        self.images: dict[Slot, list[ImageInput]] = {}

    def images_of(self, slot: Slot) -> list[ImageInput]:
        return self.images.setdefault(slot, [])


def _kinds_of_step(step: Step, seen: _Seen, window: int) -> Iterator[str]:
    denoising = {canvas.slot for canvas in step.canvases}
    for segment in step.encode:
        yield from _kinds_of_encoding(segment, denoising, seen)
    yield from _kinds_of_predictions(step)
    for copy in step.copies:
        yield "a prefix copied within a step"
        if copy.into not in denoising:
            yield "a prefix copied, and its slot not denoised"
        if any(copy.start <= image.start < copy.stop for image in seen.images_of(copy.source)):
            yield "an image copied within a step"
    for canvas in step.canvases:
        yield from _kinds_of_canvas(canvas, seen.canvases.get(canvas.slot))
        seen.canvases[canvas.slot] = canvas
        if canvas.start > window:
            yield "a prefix longer than the sliding window"
    yield from _kinds_of_batch(step.canvases)


def _kinds_of_encoding(segment: EncodeSegment, denoising: set[Slot], seen: _Seen) -> Iterator[str]:
    slot, before = segment.slot, seen.encoded.get(segment.slot)
    canvas = seen.canvases.get(slot)
    if canvas is not None and canvas.start == segment.start and slot in denoising:
        yield "a canvas is committed, and the next one denoised in the same pass"
    elif canvas is None and before is not None and before.start + len(before.tokens) == segment.start:
        yield "a prompt in several passes"
    elif segment.start == 0 and slot in denoising:
        yield "a prompt in one pass"
    if slot not in denoising:
        yield "one sequence prefills while others denoise" if denoising else "an encoded chunk alone"
    for image in segment.images:
        yield "an image"
        seen.images_of(slot).append(image)
        if len(seen.images_of(slot)) > 1:
            yield "several images in a slot"
    seen.encoded[slot] = segment


def _kinds_of_predictions(step: Step) -> Iterator[str]:
    predicting = [(segment, segment.predict) for segment in step.encode if segment.predict is not None]
    places = {(canvas.slot, canvas.start) for canvas in step.canvases}
    for segment, asked in predicting:
        if asked.rows == 1:
            yield "a prediction alone" if len(segment.tokens) == 1 else "a prediction after a prompt"
        else:
            yield "a draft"
            if (segment.slot, segment.start) in places:
                yield "a draft beside its canvas"
        if segment.apart:
            yield "two drafts of one sequence"
        if segment.adopt:
            yield "a draft that was kept apart is adopted"
        if asked.allowed is not None:
            yield "predictions within a grammar"
        if asked.logprobs is not None:
            yield "log-probabilities"
    if len({asked.rule for _, asked in predicting}) > 1:
        yield "predictions of several rules"


def _kinds_of_canvas(canvas: CanvasSegment, before: CanvasSegment | None) -> Iterator[str]:
    if canvas.shift:
        yield "a canvas that has moved"
    continues = before is not None and before.start == canvas.start
    yield "a canvas's later step" if continues else "a canvas's first step"
    if canvas.active < canvas.length:
        yield "a frozen tail"
    elif before is not None and continues and before.active < before.length:
        yield "a frozen tail is computed again"
    if bool(canvas.pinned.any()):
        yield "pinned positions"
        if (
            int((~canvas.pinned).nonzero()[0]) < int(canvas.pinned.nonzero()[-1])
            if not bool(canvas.pinned.all())
            else False
        ):
            yield "a pinned position after a free one"
    if canvas.reads is not None:
        yield "positions that are only read"
        if continues:
            yield "a canvas is read twice"
    elif continues and bool(canvas.unconditioned.any()):
        yield "disturbed positions"


def _kinds_of_batch(canvases: Iterable[CanvasSegment]) -> Iterator[str]:
    canvases = list(canvases)
    if len(canvases) > 1:
        yield "several canvases"
    if len({canvas.length for canvas in canvases}) > 1:
        yield "canvases of several lengths"
    if len({canvas.temperature for canvas in canvases}) > 1:
        yield "several temperatures"
    if len({canvas.reads is None for canvas in canvases}) > 1:
        yield "some canvases are only read, others denoised"
