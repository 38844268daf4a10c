"""The walk over the layers, apart from what the reference tests say of it."""

from __future__ import annotations

import torch

from dgemma_core.execution.backbone import Backbone
from dgemma_core.execution.kv_cache import SequenceCache
from dgemma_core.execution.segments import Segment
from tests.checkpoints import make_model


@torch.inference_mode()
def test_wanted_positions_are_those_of_the_whole_canvas() -> None:
    backbone = Backbone(make_model(damping=0.5))
    prompts, canvases = torch.arange(40, 76).split([20, 16]), torch.arange(100, 132).split([16, 16])

    def walk(*wanted: tuple[int, ...] | None) -> torch.Tensor:
        caches = [SequenceCache(backbone.layouts, 64, backbone.device, backbone.dtype) for _ in prompts]
        causal = [Segment(c, 0, len(p), True, len(p)) for c, p in zip(caches, prompts, strict=True)]
        drawn = [
            Segment(cache, len(prompt), 16, False, len(prompt) + 16, wanted=places)
            for cache, prompt, places in zip(caches, prompts, wanted, strict=True)
        ]
        ids = torch.cat(canvases)
        soft = torch.zeros(len(ids), backbone.hidden_size)
        hidden = torch.cat([backbone.embed(torch.cat(prompts)), backbone.embed_canvas(ids, soft)])
        return backbone.forward(hidden, [*causal, *drawn])

    full = walk(None, None)
    assert full.shape[0] == 32
    assert torch.equal(walk((3, 4, 15), None), full[[3, 4, 15, *range(16, 32)]])
    assert torch.equal(walk((0,), (9, 2)), full[[0, 25, 18]])
    assert torch.equal(walk((), (5,)), full[[21]])
