"""From hidden states to statistics: in chunks, a draw by two levels, no product where a distribution is a point."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dgemma_core.execution.readout import Ban, Readout
from tests.checkpoints import make_model
from tests.helpers.gemms import Shapes

VOCAB, HIDDEN, CHUNK = 512, 64, 32


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def readout(model: Any) -> Readout:
    return Readout(model, chunk_bytes=4 * VOCAB * CHUNK)


def embedding(model: Any) -> Tensor:
    weight: Tensor = model.model.decoder.embed_tokens.weight
    return weight


def read(readout: Readout, hidden: Tensor, temperature: float = 1.0) -> tuple[Any, Shapes]:
    rows = len(hidden)
    uniform = torch.rand(rows, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), Shapes() as shapes:
        return readout(hidden, torch.full((rows,), temperature), uniform), shapes


def hidden_states(rows: int) -> Tensor:
    return torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(0))


def products(shapes: Shapes, width: int) -> list[int]:
    """Rows of the products whose left factor is so wide: the hidden size in the head, the vocabulary after it."""
    return [left[0] for left, _ in shapes.products if len(left) == 2 and left[1] == width]


def test_rows_are_read_in_chunks(readout: Readout) -> None:
    """No tensor of the whole canvas and the whole vocabulary exists, whatever the number of rows."""
    _, shapes = read(readout, hidden_states(100))
    assert products(shapes, HIDDEN) == [32, 32, 32, 16]
    assert products(shapes, VOCAB) == [32, 32, 32, 16]
    assert shapes.largest <= CHUNK * VOCAB


@pytest.mark.parametrize("rows", [1, 31, 100])
def test_chunks_change_nothing(model: Any, readout: Readout, rows: int) -> None:
    hidden = hidden_states(rows)
    chunked, _ = read(readout, hidden)
    whole, _ = read(Readout(model), hidden)
    for name in ("argmax", "sample", "entropy", "soft"):
        assert torch.equal(getattr(chunked, name), getattr(whole, name)), name


def test_statistics_are_those_of_the_distribution(model: Any, readout: Readout) -> None:
    hidden = hidden_states(40)
    statistics, _ = read(readout, hidden, 0.7)
    with torch.inference_mode():
        logits = readout.logits(hidden, torch.full((40,), 0.7))
        expected = torch.distributions.Categorical(logits=logits)
        assert torch.equal(statistics.argmax, logits.argmax(-1))
        torch.testing.assert_close(statistics.entropy, expected.entropy(), atol=1e-4, rtol=1e-4)
        scale = model.model.decoder.embed_tokens.embed_scale
        torch.testing.assert_close(statistics.soft, expected.probs @ embedding(model) * scale, atol=1e-4, rtol=1e-4)


def test_a_banned_token_has_no_probability(model: Any, readout: Readout) -> None:
    """In the rows of its ban, over the borders of chunks; the other rows stay the same."""
    hidden, temperature = hidden_states(70), torch.full((70,), 0.7)
    uniform = torch.rand(70, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        free = readout(hidden, temperature, uniform)
        rows = torch.arange(70) % 3 > 0
        tokens = torch.cat([free.argmax[rows].unique(), torch.tensor([5])])
        held = readout(hidden, temperature, uniform, [Ban(tokens, rows)])
        logits = readout.logits(hidden, temperature)
        logits[rows[:, None] & torch.isin(torch.arange(VOCAB), tokens)] = -torch.inf
        expected = torch.distributions.Categorical(logits=logits)
    assert torch.equal(held.argmax, logits.argmax(-1))
    assert not torch.isin(held.sample[rows], tokens).any()
    entropy = -(expected.probs * expected.probs.log().clamp(min=-1e9)).sum(-1)
    torch.testing.assert_close(held.entropy, entropy, atol=1e-4, rtol=1e-4)
    scale = model.model.decoder.embed_tokens.embed_scale
    torch.testing.assert_close(held.soft, expected.probs @ embedding(model) * scale, atol=1e-4, rtol=1e-4)
    for name in ("argmax", "sample", "entropy", "soft"):
        assert torch.equal(getattr(held, name)[~rows], getattr(free, name)[~rows]), name


def test_a_draw_sums_one_block_of_a_row(readout: Readout) -> None:
    """The vocabulary of 512 is one block; of 1024 times 4 only the block sums and one block are summed up."""
    wide = Readout(make_model(vocab_size=4096))
    _, shapes = read(wide, hidden_states(48))
    assert 0 < shapes.summed <= 48 * (4 + 1024)


def test_a_point_costs_no_row_of_the_product(model: Any, readout: Readout) -> None:
    points, flat = 3 * embedding(model)[[7, 9, 300]], torch.zeros(17, HIDDEN)
    alone, shapes = read(readout, points, temperature=0.05)
    assert alone.argmax.tolist() == alone.sample.tolist() == [7, 9, 300]
    assert alone.entropy.tolist() == pytest.approx([0.0] * 3, abs=1e-5)
    assert products(shapes, HIDDEN) == [16]
    assert products(shapes, VOCAB) == []
    scale = model.model.decoder.embed_tokens.embed_scale
    assert torch.equal(alone.soft, embedding(model)[[7, 9, 300]] * scale)
    both, shapes = read(readout, torch.cat([points[:2], flat[:15], points[2:]]), temperature=0.05)
    # Fifteen of eighteen rows, and so no more than sixteen.
    assert (products(shapes, HIDDEN), products(shapes, VOCAB)) == ([32], [16])
    assert torch.equal(both.soft[[0, 1, 17]], alone.soft)
    torch.testing.assert_close(both.soft[5], embedding(model).mean(0) * scale, atol=1e-5, rtol=1e-4)


def test_label_logits_read_rows_of_the_labels_only(readout: Readout) -> None:
    hidden = hidden_states(3)
    labels = [[7, 9], [300], [1, 2, 3]]
    with torch.inference_mode(), Shapes() as shapes:
        read_labels = readout.label_logits(hidden, labels)
    assert shapes.products == []
    assert shapes.largest <= 6 * HIDDEN
    with torch.inference_mode():
        whole = readout.logits(hidden, torch.ones(3))
    for row, (ids, some) in enumerate(zip(labels, read_labels, strict=True)):
        torch.testing.assert_close(some, whole[row, ids])
