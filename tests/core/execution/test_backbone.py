"""The walk over the layers, apart from what the reference tests say of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgemma_core.execution.backbone import Backbone
from dgemma_core.execution.kv_cache import SequenceCache
from dgemma_core.execution.segments import Segment
from tests.checkpoints import make_model
from tests.helpers.gemms import Shapes


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


def rows_of(module: Any, rows: list[int]) -> None:
    """Notes how many rows the module is called with."""
    module.register_forward_pre_hook(lambda _module, args: rows.append(args[0].shape[0]))


@pytest.mark.parametrize(
    ("prompt", "canvas", "wanted", "last"),
    [
        (40, 0, None, []),  # The keys and values of a prompt are all that is wanted of it.
        (40, 32, None, [32]),
        (40, 32, (3, 30), [16]),  # Of two positions, padded.
        (0, 32, (3, 30), [16]),
        (0, 32, None, [32]),
    ],
)
@torch.inference_mode()
def test_the_last_layer_computes_what_is_wanted(
    prompt: int, canvas: int, wanted: tuple[int, ...] | None, last: list[int]
) -> None:
    model = make_model(canvas_length=32)
    backbone = Backbone(model)
    layers = model.model.decoder.layers
    attended: list[list[int]] = [[], []]
    dense: list[list[int]] = [[], []]
    for layer, a, d in zip(layers, attended, dense, strict=True):
        rows_of(layer.self_attn.o_proj, a)
        rows_of(layer.mlp.down_proj, d)
    cache = SequenceCache(backbone.layouts, 128, backbone.device, backbone.dtype)
    segments, embedded = [], []
    if prompt:
        segments.append(Segment(cache, 0, prompt, True, prompt))
        embedded.append(backbone.embed(torch.arange(prompt)))
    if canvas:
        segments.append(Segment(cache, prompt, canvas, False, prompt + canvas, wanted=wanted))
        soft = torch.zeros(canvas, backbone.hidden_size)
        embedded.append(backbone.embed_canvas(torch.arange(canvas), soft))
    with Shapes() as shapes:
        hidden = backbone.forward(torch.cat(embedded), segments)
    assert len(hidden) == (canvas if wanted is None else len(wanted))
    every = -(-(prompt + canvas) // 16) * 16
    for layer in layers:
        attention = layer.self_attn
        joined = [m.out_features for m in (attention.q_proj, attention.k_proj, attention.v_proj) if m is not None]
        rows = [left[0] for left, right in shapes.products if right == (sum(joined), backbone.hidden_size)]
        assert every in rows, "every token has keys and values"
    assert attended == dense == [[every], last]
