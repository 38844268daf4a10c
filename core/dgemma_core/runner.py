"""Runs one step's work through the model. Owns the tensors and no policy."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import torch
from torch import Tensor

from dgemma_core.backbone import Backbone, Segment
from dgemma_core.kv_cache import SequenceCache
from dgemma_core.readout import Readout, Statistics
from dgemma_core.scheduler import Work


class ModelRunner:
    """Backbone and readout of one set of weights.

    Args:
        model: a loaded ``DiffusionGemmaForBlockDiffusion`` in eval mode.
        end_ids: token ids that end an answer.
    """

    def __init__(self, model: Any, end_ids: frozenset[int]) -> None:
        self.backbone = Backbone(model)
        self.readout = Readout(model)
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.long)

    def new_cache(self, capacity: int) -> SequenceCache:
        """Room for one sequence's keys and values."""
        return SequenceCache(self.backbone.layouts, capacity, self.backbone.device, self.backbone.dtype)

    def run(self, work: Seq[Work]) -> list[Statistics | None]:
        """One forward pass. Changes nothing but keys and values, so it can be repeated after a failure.

        Args:
            work: the step's parts.

        Returns:
            One entry per part: the statistics of its canvas's computed positions, or None where nothing was denoised.
        """
        encode = [w for w in work if w.encode]
        denoise = [w for w in work if w.denoise]
        segments = [self._encode_segment(w) for w in encode] + [self._canvas_segment(w) for w in denoise]
        hidden = self.backbone.forward(self._embed(encode, denoise), segments)
        statistics = iter(self._read(hidden, denoise) if denoise else ())
        return [next(statistics) if w.denoise else None for w in work]

    def commit(self, work: Seq[Work], statistics: Seq[Statistics | None]) -> None:
        """Take over what a successful pass computed: committed positions and self-conditioning signals."""
        for part, stats in zip(work, statistics, strict=True):
            if part.encode:
                _cache(part).committed += part.encode
            if stats is not None and part.sequence.canvas is not None:
                part.sequence.canvas.soft[: len(stats.soft)] = stats.soft

    def _embed(self, encode: Seq[Work], denoise: Seq[Work]) -> Tensor:
        device, backbone = self.backbone.device, self.backbone
        parts = []
        if encode:
            ids = [t for w in encode for t in w.sequence.tokens[_cache(w).committed : _cache(w).committed + w.encode]]
            parts.append(backbone.embed(torch.tensor(ids, device=device)))
        if denoise:
            canvases = [
                w.sequence.open_canvas(
                    self.readout.vocab_size, self._end_ids, backbone.hidden_size, device, backbone.dtype
                )
                for w in denoise
            ]
            tokens = torch.cat([c.tokens[: c.active] for c in canvases]).to(device)
            soft = torch.cat([c.soft[: c.active] for c in canvases])
            parts.append(backbone.embed_canvas(tokens, soft))
        return torch.cat(parts)

    @staticmethod
    def _encode_segment(work: Work) -> Segment:
        cache = _cache(work)
        return Segment(cache, cache.committed, work.encode, True, cache.committed + work.encode)

    @staticmethod
    def _canvas_segment(work: Work) -> Segment:
        cache = _cache(work)
        start = cache.committed + work.encode
        return Segment(cache, start, work.sequence.active, False, start + work.sequence.settings.canvas_length)

    def _read(self, hidden: Tensor, denoise: Seq[Work]) -> list[Statistics]:
        canvases = [w.sequence.canvas for w in denoise if w.sequence.canvas is not None]
        sizes = [c.active for c in canvases]
        device = self.backbone.device
        temperature = torch.tensor([c.temperature for c in canvases]).repeat_interleave(torch.tensor(sizes)).to(device)
        uniform = torch.cat([c.uniform for c in canvases]).to(device)
        all_rows = self.readout(hidden, temperature, uniform)
        split = (t.split(sizes) for t in (all_rows.argmax, all_rows.sample, all_rows.entropy, all_rows.soft))
        return [Statistics(*parts) for parts in zip(*split, strict=True)]


def _cache(work: Work) -> SequenceCache:
    cache = work.sequence.cache
    assert cache is not None, "a sequence is given its cache when it is admitted"
    return cache
