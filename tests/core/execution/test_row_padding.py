"""Why a request's numbers do not depend on its neighbours: no product of a step ends in a short strip of rows."""

from __future__ import annotations

import pytest
import torch

from dgemma_core.execution.backbone import Backbone
from dgemma_core.execution.backend import CanvasSegment, EncodeSegment, Step
from dgemma_core.execution.eager import EagerBackend
from dgemma_core.execution.row_padding import KEY_MULTIPLE, QUERY_MULTIPLE, pad_rows, row_multiple
from tests.checkpoints import make_model
from tests.helpers.gemms import Shapes

CPU = torch.device("cpu")


def test_rows_are_padded_to_multiples(monkeypatch: pytest.MonkeyPatch) -> None:
    assert QUERY_MULTIPLE == KEY_MULTIPLE == 16
    for threads, multiple in ((1, 16), (2, 16), (4, 32)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert row_multiple(CPU) == multiple
    assert row_multiple(torch.device("cuda")) == 1
    x = torch.ones(5, 2, 3)
    padded = pad_rows(x, 16)
    assert padded.shape == (16, 2, 3)
    assert torch.equal(padded[:5], x)
    assert not padded[5:].any()
    assert pad_rows(padded, 16) is padded
    assert pad_rows(x, 1) is x


def segment(slot: int, start: int, active: int, reads: tuple[int, ...] | None = None) -> CanvasSegment:
    return CanvasSegment(
        slot=slot,
        start=start,
        length=16,
        tokens=torch.arange(50, 50 + active),
        pinned=torch.zeros(active, dtype=torch.bool),
        unconditioned=torch.zeros(active, dtype=torch.bool),
        uniform=torch.rand(active, generator=torch.Generator().manual_seed(0)),
        temperature=0.7,
        reads=reads,
        guided=reads is not None,
    )


@pytest.mark.parametrize("active", [1, 3, 16])
@torch.inference_mode()
def test_every_product_of_a_step_is_padded(active: int) -> None:
    """Also where a canvas is frozen but for its first position, and is alone."""
    backend = EagerBackend(make_model())
    plain, read = backend.open(64), backend.open(64)
    backend.run(Step(canvases=(segment(plain, 0, 16),)))
    with Shapes() as shapes:
        backend.run(Step(canvases=(segment(plain, 0, active),)))
        backend.run(Step((EncodeSegment(plain, 0, torch.arange(30, 30 + active)),)))
        backend.run(Step((EncodeSegment(read, 0, torch.arange(30, 37)),), (segment(read, 7, 16, reads=(2, 5)),)))
    multiple = row_multiple(CPU)
    flat = [left[0] for left, _ in shapes.products if len(left) == 2]
    assert len(flat) > 50
    assert all(rows % multiple == 0 for rows in flat), sorted(set(flat))
    queries = [query[-2] for query, _ in shapes.attentions]  # [batch, heads, rows, dim]
    assert len(queries) == 2 + 1 + 3, "the last layer of a prompt attends to nothing"
    assert all(rows % QUERY_MULTIPLE == 0 for rows in queries), queries


@pytest.mark.parametrize(("start", "length"), [(0, 7), (7, 20), (27, 16)])
@torch.inference_mode()
def test_a_prompts_keys_are_padded(start: int, length: int) -> None:
    """Sums over keys go lane by lane. A canvas sees exactly its sequence's keys, whoever its neighbours are."""
    backend = EagerBackend(make_model())
    slot = backend.open(64)
    if start:
        backend.run(Step((EncodeSegment(slot, 0, torch.arange(30, 30 + start)),)))
    with Shapes() as shapes:
        backend.run(Step((EncodeSegment(slot, start, torch.arange(30, 30 + length)),)))
    (keys,) = [key[-2] for _, key in shapes.attentions]
    assert keys % KEY_MULTIPLE == 0
    assert keys >= length


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 20])
@torch.inference_mode()
def test_a_canvas_is_embedded_as_among_others(count: int) -> None:
    backbone = Backbone(make_model())
    generator = torch.Generator().manual_seed(0)
    ids, soft = torch.randint(512, (48,), generator=generator), torch.randn(48, 64, generator=generator)
    whole = backbone.embed_canvas(ids, soft)
    assert torch.equal(backbone.embed_canvas(ids[:count], soft[:count]), whole[:count])
