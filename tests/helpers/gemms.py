"""What torch computes below the modules: the shapes of all matrix products, sums and attentions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Of inference mode the first two; elsewhere torch takes them apart into the others.
_PRODUCTS = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm")


class Shapes(TorchDispatchMode):
    """Notes shapes while it is entered.

    Attributes:
        products: the left and the right factor of each matrix product.
        attentions: queries and keys of each attention.
        summed: numbers that went into cumulative sums.
        largest: most numbers in one float result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.attentions: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.summed = 0
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.__name__.split(".")[0]
        tensors = [argument for argument in args if isinstance(argument, Tensor)]
        if name in _PRODUCTS:
            left, right = tensors[:2] if name == "linear" else tensors[-2:]
            self.products.append((tuple(left.shape), tuple(right.shape)))
        elif "scaled_dot_product" in name:
            self.attentions.append((tuple(tensors[0].shape), tuple(tensors[1].shape)))
        elif name == "cumsum":
            self.summed += tensors[0].numel()
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            self.largest = max(self.largest, result.numel())
        return result
