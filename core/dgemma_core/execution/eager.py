"""The reference backend: plain torch over the transformers modules, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_core.execution.backbone import Backbone
from dgemma_core.execution.backend import (
    CanvasResult,
    CanvasSegment,
    EncodeSegment,
    Prediction,
    Slot,
    Step,
    StepResult,
)
from dgemma_core.execution.kv_cache import Branch, SequenceCache, cache_bytes
from dgemma_core.execution.predictions import predict
from dgemma_core.execution.readout import Ban, Readout
from dgemma_core.execution.row_padding import KEY_MULTIPLE
from dgemma_core.execution.segments import Copy, Segment
from dgemma_core.execution.vision import VisionTower


@dataclass
class _State:
    """What a slot holds.

    Attributes:
        cache: keys and values.
        soft: ``[canvas, hidden]`` on the device, expected embeddings under the last step's distributions.
        hidden: ``[canvas, hidden]`` on the device, normed hidden states of the last guided step.
        branch: keys and values that the last step has kept apart.
        predicted: ``[rows, hidden]`` on the device, hidden states of the last step's kept predictions, by ``apart``.
    """

    cache: SequenceCache
    soft: Tensor
    hidden: Tensor
    branch: Branch = field(default_factory=list)
    predicted: dict[bool, Tensor] = field(default_factory=dict)


class EagerBackend:
    """A :class:`~dgemma_core.execution.backend.Backend` that runs a ``DiffusionGemmaForBlockDiffusion`` as it is.

    Args:
        model: the loaded model, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self.backbone = Backbone(model)
        self.readout = Readout(model)
        self.vision = VisionTower(model)
        self._slots: dict[Slot, _State] = {}
        self._names = count()

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.readout.vocab_size

    @property
    def on_cpu(self) -> bool:
        """Whether the weights are on the host."""
        return self.backbone.device.type == "cpu"

    def open(self, capacity: int) -> Slot:
        """A new slot; see :meth:`Backend.open <dgemma_core.execution.backend.Backend.open>`."""
        backbone = self.backbone
        cache = SequenceCache(backbone.layouts, capacity, backbone.device, backbone.dtype)
        nothing = torch.empty(0, backbone.hidden_size, device=backbone.device, dtype=backbone.dtype)
        slot = next(self._names)
        self._slots[slot] = _State(cache, nothing, nothing)
        return slot

    def close(self, slot: Slot) -> None:
        """Forget a slot."""
        self._state(slot)
        del self._slots[slot]

    def fork_prefix(self, source: Slot, into: Slot, length: int) -> None:
        """Copy the first ``length`` positions. A copy is cheap compared with computing them, and slots stay apart."""
        self._cache(into).copy_prefix(self._cache(source), length)

    def slot_bytes(self, capacity: int) -> int:
        """Bytes of keys and values of a slot."""
        return cache_bytes(self.backbone.layouts, capacity, self.backbone.dtype)

    def free_unused(self) -> None:
        """Empty torch's own cache of device memory."""
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()

    def logits(self, slot: Slot, start: int, stop: int, temperature: float) -> Tensor:
        """Processed logits of canvas positions after a guided step: float32 ``[stop - start, vocab]`` on the host."""
        hidden = self._state(slot).hidden[start:stop]
        temperatures = torch.full((len(hidden),), temperature, device=hidden.device)
        return self.readout.logits(hidden, temperatures).cpu()

    def label_logits(self, slot: Slot, positions: Sequence[int], labels: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits of a few tokens per position after a guided step: per position float32 ``[labels]`` on the host."""
        return self.readout.label_logits(self._state(slot).hidden[list(positions)], labels)

    def prediction_logits(self, slot: Slot, row: int, apart: bool) -> Tensor:
        """Soft-capped logits of one kept prediction of the last step: float32 ``[vocab]`` on the host."""
        return self.readout.causal_logits(self._state(slot).predicted[apart][row : row + 1])[0].cpu()

    def run(self, step: Step) -> StepResult:
        """One forward pass. It writes last what a repetition reads, so a pass that fails can be repeated."""
        for segment in step.canvases:
            self._make_room(segment)
        for encoded in step.encode:
            if encoded.adopt:
                state = self._state(encoded.slot)
                state.cache.adopt(state.branch, encoded.start - encoded.adopt, encoded.adopt)
        branches: dict[Slot, Branch] = {encoded.slot: [] for encoded in step.encode if encoded.apart}
        parts_of_step = self._segments(step, branches)
        segments = [segment for _, segment in parts_of_step]
        order = [number for number, _ in parts_of_step]
        embedded = self._embed(step)
        hidden = torch.cat([embedded[number] for number in order])
        copies = [Copy(self._cache(c.into), self._cache(c.source), c.start, c.stop) for c in step.copies]
        found = self.backbone.forward(hidden, segments, copies).split([segment.outputs for segment in segments])
        outputs = [part for _, part in sorted(zip(order, found, strict=True), key=lambda item: item[0])]
        encoded_parts, parts = outputs[: len(step.encode)], outputs[len(step.encode) :]
        predictions = self._predict(step.encode, encoded_parts)
        for segment, part in zip(step.canvases, parts, strict=True):
            if segment.guided:
                where = slice(segment.active) if segment.reads is None else list(segment.reads)
                self._state(segment.slot).hidden[where] = part
        denoised = [c for c in step.canvases if c.reads is None]
        read = [part for c, part in zip(step.canvases, parts, strict=True) if c.reads is None]
        # The soft embeddings are written last, because a repetition reads those of the step before.
        results = iter(self._statistics(read, denoised) if denoised else ())
        for slot in {encoded.slot for encoded in step.encode}:
            self._state(slot).branch = branches.get(slot, [])
        return StepResult(tuple(next(results) if c.reads is None else None for c in step.canvases), predictions)

    def _state(self, slot: Slot) -> _State:
        state = self._slots.get(slot)
        if state is None:
            raise ValueError(f"slot={slot!r} is not open: use one that open() has returned and close() has not ended")
        return state

    def _cache(self, slot: Slot) -> SequenceCache:
        return self._state(slot).cache

    def _make_room(self, canvas: CanvasSegment) -> None:
        """Allocate the soft embeddings and hidden states that a canvas keeps from step to step."""
        state = self._state(canvas.slot)
        shape = (canvas.length, self.backbone.hidden_size)
        if len(state.soft) != canvas.length:
            state.soft = state.soft.new_zeros(shape)
        if canvas.guided and len(state.hidden) != canvas.length:
            state.hidden = state.hidden.new_zeros(shape)

    def _embed(self, step: Step) -> list[Tensor]:
        """Embeddings ``[tokens, hidden]`` of each segment, encoded ones first, then the canvases."""
        device, parts = self.backbone.device, []
        if step.encode:
            ids = torch.cat([segment.tokens for segment in step.encode]).to(device)
            embedded = self._with_images(self.backbone.embed_encoded(ids), step.encode)
            parts += embedded.split([len(segment.tokens) for segment in step.encode])
        if step.canvases:
            ids = torch.cat([canvas.tokens for canvas in step.canvases]).to(device)
            soft = torch.cat([self._conditioning(canvas) for canvas in step.canvases])
            parts += self.backbone.embed_canvas(ids, soft).split([canvas.active for canvas in step.canvases])
        return parts

    def _with_images(self, embedded: Tensor, segments: Sequence[EncodeSegment]) -> Tensor:
        """Replace the embeddings of image tokens by the vision tower's. They are kept for this pass only."""
        offset = 0
        for segment in segments:
            for image in segment.images:
                start = offset + image.start - segment.start
                embedded[start : start + image.length] = self.vision(image, embedded.device, embedded.dtype)
            offset += len(segment.tokens)
        return embedded

    def _conditioning(self, canvas: CanvasSegment) -> Tensor:
        """Self-conditioning of the computed positions: ``[active, hidden]``."""
        soft = self._state(canvas.slot).soft[canvas.shift : canvas.shift + canvas.active]
        if len(soft) < canvas.active:
            soft = F.pad(soft, (0, 0, 0, canvas.active - len(soft)))
        device = soft.device
        if bool(canvas.unconditioned.any()):
            soft = soft.masked_fill(canvas.unconditioned.to(device).unsqueeze(-1), 0.0)
        pinned = canvas.pinned.nonzero().flatten()
        if len(pinned):
            soft = soft.index_copy(0, pinned.to(device), self.backbone.embed(canvas.tokens[pinned].to(device)))
        return soft

    def _segments(self, step: Step, branches: dict[Slot, Branch]) -> list[tuple[int, Segment]]:
        """The segments in the order of the flat batch, each with its number in the step, canvases counted last.

        The segments of a slot that begin at the same position stand together: the draft whose keys and values stay,
        the canvas, then the draft that is kept apart. The latter two have places after the first one's.
        """
        made: list[tuple[int, Segment]] = []
        for members in _by_place(step).values():
            place = None
            for number, part in members:
                if isinstance(part, EncodeSegment):
                    segment = self._causal(part, branches.get(part.slot) if part.apart else None)
                else:
                    segment = self._bidirectional(part)
                segment = replace(segment, shared=len(members) > 1, own_place=place)
                # A multiple, so that the sums over keys have the same order at every place.
                place = segment.start + _multiple(segment.key_stop - segment.start)
                made.append((number, segment))
        return made

    def _causal(self, segment: EncodeSegment, branch: Branch | None) -> Segment:
        return Segment(
            cache=self._cache(segment.slot),
            start=segment.start,
            length=len(segment.tokens),
            causal=True,
            stop=segment.start + len(segment.tokens),
            blocks=tuple((i.start, i.stop) for i in segment.images) if self.vision.bidirectional else (),
            predicts=segment.predict.rows if segment.predict else 0,
            branch=branch,
        )

    def _bidirectional(self, canvas: CanvasSegment) -> Segment:
        stop = canvas.start + canvas.length
        return Segment(self._cache(canvas.slot), canvas.start, canvas.active, False, stop, wanted=canvas.reads)

    def _predict(self, segments: Sequence[EncodeSegment], hidden: Sequence[Tensor]) -> tuple[Prediction, ...]:
        """The predictions that are wanted, in order. Hidden states that are kept stay on the device."""
        wanted = [(s, s.predict, part) for s, part in zip(segments, hidden, strict=True) if s.predict is not None]
        if not wanted:
            return ()
        for segment, asked, part in wanted:
            if asked.kept:
                self._state(segment.slot).predicted[segment.apart] = part
        return tuple(predict(self.readout, [part for _, _, part in wanted], [asked for _, asked, _ in wanted]))

    def _statistics(self, hidden: Sequence[Tensor], canvases: Sequence[CanvasSegment]) -> list[CanvasResult]:
        """Statistics of the denoised canvases, on the host. Their soft embeddings stay on the device."""
        sizes, device = [canvas.active for canvas in canvases], self.backbone.device
        temperature = torch.tensor([c.temperature for c in canvases]).repeat_interleave(torch.tensor(sizes)).to(device)
        uniform = torch.cat([canvas.uniform for canvas in canvases]).to(device)
        statistics = self.readout(torch.cat(list(hidden)), temperature, uniform, _bans(canvases, device))
        argmax, sample, entropy = statistics.on_host()
        for canvas, soft in zip(canvases, statistics.soft.split(sizes), strict=True):
            self._state(canvas.slot).soft[: canvas.active] = soft
        split = (tensor.split(sizes) for tensor in (argmax, sample, entropy))
        return [CanvasResult(*parts) for parts in zip(*split, strict=True)]


def _by_place(step: Step) -> dict[tuple[Slot, int], list[tuple[int, EncodeSegment | CanvasSegment]]]:
    """The segments by slot and start, with their numbers; of one place the kept draft, the canvas, the draft apart."""
    places: dict[tuple[Slot, int], list[tuple[int, EncodeSegment | CanvasSegment]]] = {}
    parts: tuple[EncodeSegment | CanvasSegment, ...] = (*step.encode, *step.canvases)
    for number, part in enumerate(parts):
        places.setdefault((part.slot, part.start), []).append((number, part))
    for members in places.values():
        members.sort(key=lambda item: isinstance(item[1], CanvasSegment) + 2 * getattr(item[1], "apart", False))
    return places


def _multiple(count: int) -> int:
    return -(-count // KEY_MULTIPLE) * KEY_MULTIPLE


def _bans(canvases: Sequence[CanvasSegment], device: torch.device) -> list[Ban]:
    """One ban for each set of tokens that some canvas bans."""
    bans = []
    for tokens in dict.fromkeys(canvas.banned for canvas in canvases if canvas.banned):
        rows = torch.cat([torch.full((canvas.active,), canvas.banned == tokens) for canvas in canvases])
        bans.append(Ban(torch.tensor(tokens, device=device), rows.to(device)))
    return bans
