"""Linear layers over the same input as one product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def joined(modules: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    """A function that gives the outputs of several linear layers side by side.

    The weights of plain layers are moved into one tensor, and the layers become views of it. So they take no more
    memory, and the layers work as before. Layers of other kinds, such as quantized ones, are called one by one.

    Args:
        modules: linear layers without bias, over inputs of one width.
    """
    weights = [getattr(module, "weight", None) for module in modules]
    plain = all(type(module) is nn.Linear and module.bias is None for module in modules)
    if not plain or len({(weight.dtype, weight.device) for weight in weights if weight is not None}) != 1:
        return lambda x: torch.cat([module(x) for module in modules], dim=-1)
    whole = _whole(weights)
    return lambda x: F.linear(x, whole)


def _whole(weights: Sequence[Any]) -> Tensor:
    """The weights in one tensor: an earlier one if they are views of it already."""
    first = weights[0]
    rows = sum(len(weight) for weight in weights)
    step, place = first.element_size() * first.shape[1], first.data_ptr()
    for weight in weights:
        if weight.data_ptr() != place or not weight.is_contiguous():
            break
        place += step * len(weight)
    else:
        if first.untyped_storage().nbytes() == rows * step:
            earlier: Tensor = first.as_strided((rows, first.shape[1]), (first.shape[1], 1))
            return earlier
    whole = torch.cat([weight.data for weight in weights])
    for weight, part in zip(weights, whole.split([len(weight) for weight in weights]), strict=True):
        weight.data = part
    return whole
