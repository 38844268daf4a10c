"""Runs one step's work through the model. Owns the tensors and no policy."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgemma_core.denoise.canvas import Canvas
from dgemma_core.engine.scheduler import Work
from dgemma_core.engine.sequence import Sequence
from dgemma_core.execution.backbone import Backbone, Copy, Segment
from dgemma_core.execution.kv_cache import SequenceCache
from dgemma_core.execution.readout import Readout, Rows, Statistics
from dgemma_core.execution.vision import VisionTower


@dataclass(frozen=True)
class Reading:
    """What one denoising step gave for one canvas's computed positions.

    Attributes:
        statistics: of every position; None for a canvas that is only read by its guide.
        hidden: ``[positions, hidden]`` normed hidden states on the device, where a guide wants them: all, or those it
            reads.
    """

    statistics: Statistics | None
    hidden: Tensor | None


class ModelRunner:
    """Backbone and readout of one set of weights.

    Args:
        model: a loaded ``DiffusionGemmaForBlockDiffusion`` in eval mode.
        end_ids: token ids that end an answer.
    """

    def __init__(self, model: Any, end_ids: frozenset[int]) -> None:
        self.backbone = Backbone(model)
        self.readout = Readout(model)
        self.vision = VisionTower(model)
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.long)

    def new_cache(self, capacity: int) -> SequenceCache:
        """Room for one sequence's keys and values."""
        return SequenceCache(self.backbone.layouts, capacity, self.backbone.device, self.backbone.dtype)

    def run(self, work: Seq[Work]) -> list[Reading | None]:
        """One forward pass. Changes nothing but keys and values, so it can be repeated after a failure.

        Args:
            work: the step's parts.

        Returns:
            One entry per part: what its canvas's step gave, or None where nothing was denoised.
        """
        encode = [w for w in work if w.encode]
        denoise = [w for w in work if w.denoise]
        segments = [self._encode_segment(w) for w in encode] + [self._canvas_segment(w) for w in denoise]
        copies = [
            Copy(_cache(w.sequence), _cache(w.loan.lender), w.begin - w.loan.length, w.begin)
            for w in work
            if w.loan is not None
        ]
        hidden = self.backbone.forward(self._embed(encode, denoise), segments, copies)
        readings = iter(self._read(hidden, denoise) if denoise else ())
        return [next(readings) if w.denoise else None for w in work]

    def commit(self, work: Seq[Work], readings: Seq[Reading | None]) -> None:
        """Take over what a successful pass computed: committed positions and self-conditioning signals."""
        for part, reading in zip(work, readings, strict=True):
            if part.loan:
                part.sequence.borrowed(part.loan.length)
            if part.encode:
                part.sequence.encoded(part.encode)
            canvas = part.sequence.canvas
            if reading is None or canvas is None:
                continue
            if reading.statistics is not None:
                canvas.soft[: len(reading.statistics.soft)] = reading.statistics.soft
            if reading.hidden is not None:
                assert canvas.hidden is not None, "hidden states are kept for canvases with a guide"
                reads = part.sequence.reads
                canvas.hidden[slice(len(reading.hidden)) if reads is None else list(reads)] = reading.hidden

    def rows(self, canvas: Canvas) -> Rows:
        """Distributions of the canvas's positions as its last step left them."""
        assert canvas.hidden is not None, "hidden states are kept for canvases with a guide"
        return Rows(self.readout, canvas.hidden, canvas.temperature)

    def _embed(self, encode: Seq[Work], denoise: Seq[Work]) -> Tensor:
        device, backbone = self.backbone.device, self.backbone
        parts = []
        if encode:
            ids = [t for w in encode for t in w.sequence.tokens[w.begin : w.begin + w.encode]]
            parts.append(self._with_images(backbone.embed(torch.tensor(ids, device=device)), encode))
        if denoise:
            canvases = [
                w.sequence.open_canvas(
                    self.readout.vocab_size, self._end_ids, backbone.hidden_size, device, backbone.dtype
                )
                for w in denoise
            ]
            tokens = torch.cat([c.tokens[: c.active] for c in canvases]).to(device)
            soft = torch.cat([self._conditioning(c) for c in canvases])
            parts.append(backbone.embed_canvas(tokens, soft))
        return torch.cat(parts)

    def _with_images(self, embedded: Tensor, encode: Seq[Work]) -> Tensor:
        """Puts the vision tower's embeddings in the place of image tokens; they live for this pass only."""
        offset = 0
        for work in encode:
            for image in work.sequence.images_within(work.begin, work.encode) if work.sequence.images else ():
                start = offset + image.start - work.begin
                embedded[start : start + image.length] = self.vision(image, embedded.device, embedded.dtype)
            offset += work.encode
        return embedded

    def _conditioning(self, canvas: Canvas) -> Tensor:
        """Self-conditioning of the computed positions: pinned ones are certain, from the second step on."""
        soft = canvas.soft[: canvas.active]
        pinned = canvas.pinned[: canvas.active].nonzero().flatten()
        if not len(pinned) or not canvas.steps:
            return soft
        soft = soft.clone()
        device = soft.device
        soft[pinned.to(device)] = self.backbone.embed(canvas.tokens[pinned].to(device))
        return soft

    def _encode_segment(self, work: Work) -> Segment:
        begin, count = work.begin, work.encode
        blocks: tuple[tuple[int, int], ...] = ()
        if work.sequence.images and self.vision.bidirectional:
            blocks = tuple((image.start, image.stop) for image in work.sequence.images_within(begin, count))
        return Segment(_cache(work.sequence), begin, count, True, begin + count, blocks)

    @staticmethod
    def _canvas_segment(work: Work) -> Segment:
        sequence, start = work.sequence, work.begin + work.encode
        stop = start + sequence.settings.canvas_length
        return Segment(_cache(sequence), start, sequence.active, False, stop, wanted=sequence.reads)

    def _read(self, hidden: Tensor, denoise: Seq[Work]) -> list[Reading]:
        sequences = [w.sequence for w in denoise]
        parts = hidden.split([s.active if s.reads is None else len(s.reads) for s in sequences])
        full = [w for w in denoise if w.sequence.reads is None]
        if len(full) < len(denoise):
            wanted = [p for p, s in zip(parts, sequences, strict=True) if s.reads is None]
            hidden = torch.cat(wanted) if wanted else hidden[:0]
        statistics = iter(self._statistics(hidden, full) if full else ())
        return [
            Reading(next(statistics) if s.reads is None else None, part if s.guide else None)
            for s, part in zip(sequences, parts, strict=True)
        ]

    def _statistics(self, hidden: Tensor, denoise: Seq[Work]) -> list[Statistics]:
        canvases = [w.sequence.canvas for w in denoise if w.sequence.canvas is not None]
        sizes = [c.active for c in canvases]
        device = self.backbone.device
        temperature = torch.tensor([c.temperature for c in canvases]).repeat_interleave(torch.tensor(sizes)).to(device)
        uniform = torch.cat([c.uniform for c in canvases]).to(device)
        all_rows = self.readout(hidden, temperature, uniform)
        split = (t.split(sizes) for t in (all_rows.argmax, all_rows.sample, all_rows.entropy, all_rows.soft))
        return [Statistics(*parts) for parts in zip(*split, strict=True)]


def _cache(sequence: Sequence) -> SequenceCache:
    cache = sequence.cache
    assert cache is not None, "a sequence is given its cache when it is admitted"
    return cache
