"""Mixture of experts on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgemma_core.execution.experts import Experts
from tests.checkpoints import make_model
from tests.helpers.gemms import Shapes

HIDDEN = 64


@pytest.fixture(scope="module")
def experts() -> Any:
    return make_model().model.decoder.layers[0].experts


@torch.inference_mode()
def test_tokens_are_grouped_by_expert(experts: Any) -> None:
    """A pair of products for each expert that some token goes to, over these tokens alone."""
    x = torch.randn(40, HIDDEN, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([[0, 3]] * 37 + [[3, 0]] * 2 + [[1, 3]])
    weights = torch.rand(40, 2, generator=torch.Generator().manual_seed(1))
    upstream: list[Any] = []
    hook = experts.register_forward_pre_hook(lambda *call: upstream.append(call))
    with Shapes() as shapes:
        mixed = Experts(experts)(x, index, weights, 40)
    assert not upstream
    # Expert 2 has none; 39, 1 and 40 tokens are padded to 48, 16 and 48 rows.
    assert [left[0] for left, _ in shapes.products] == [48, 16, 48, 48, 16, 48]
    hook.remove()
    torch.testing.assert_close(mixed, experts(x, index, weights), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 3, 17])
def test_a_tokens_mix_does_not_depend_on_others(experts: Any, count: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, HIDDEN, generator=generator)
    index = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(64)])
    weights = torch.rand(64, 2, generator=generator)
    mix = Experts(experts)
    whole = mix(x, index, weights, 64)
    assert torch.equal(mix(x[:count], index[:count], weights[:count], count), whole[:count])
    assert torch.equal(mix(x, index, weights, count)[:count], whole[:count]), "padding changes nothing"
