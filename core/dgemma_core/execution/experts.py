"""The mixture of experts over the flat batch."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from dgemma_core.execution.row_padding import LEAST_ROWS


class Experts:
    """The experts of one layer.

    On a CPU, tokens are grouped by expert, and each expert takes one pair of GEMMs. On accelerators, and for experts
    whose weights are no plain parameters, the module's own kernels run.

    Args:
        module: the experts, a module of transformers.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._own = isinstance(module.gate_up_proj, nn.Parameter) and module.gate_up_proj.device.type == "cpu"
        if self._own:
            self._gate_up = [weight.t() for weight in module.gate_up_proj.detach().unbind()]
            self._down = [weight.t() for weight in module.down_proj.detach().unbind()]

    def __call__(self, x: Tensor, index: Tensor, weights: Tensor, tokens: int) -> Tensor:
        """Each token goes through its ``top_k`` experts, and their outputs are summed by weight.

        Args:
            x: ``[rows, hidden]``.
            index: int64 ``[rows, top_k]``, the experts of each token.
            weights: ``[rows, top_k]``.
            tokens: rows that are wanted. The rows after them are padding, and any numbers come back for them.

        Returns:
            ``[rows, hidden]``.
        """
        if not self._own:
            routed: Tensor = self._module(x, index, weights)
            return routed
        rows, top_k = index.shape
        chosen = index[:tokens].flatten()
        counts = torch.bincount(chosen, minlength=len(self._gate_up)).tolist()
        padded = [-(-count // LEAST_ROWS) * LEAST_ROWS for count in counts]
        ends = list(accumulate(padded))
        place, source = _places(chosen, counts, [end - size for end, size in zip(ends, padded, strict=True)], ends[-1])
        grouped = x[source // top_k if top_k > 1 else source]
        parts = [(expert, end - size, end) for expert, (end, size) in enumerate(zip(ends, padded, strict=True)) if size]
        both = x.new_empty(ends[-1], self._gate_up[0].shape[1])
        for expert, start, end in parts:
            torch.mm(grouped[start:end], self._gate_up[expert], out=both[start:end])
        gate, up = both.chunk(2, dim=-1)
        inner = self._module.act_fn(gate) * up
        out = torch.empty_like(grouped)
        for expert, start, end in parts:
            torch.mm(inner[start:end], self._down[expert], out=out[start:end])
        mixed = out[place] * weights[:tokens].reshape(-1, 1).to(x.dtype)
        if top_k > 1:
            mixed = mixed.view(tokens, top_k, -1).sum(1)
        if rows == tokens:
            return mixed
        result = torch.zeros_like(x)
        result[:tokens] = mixed
        return result


def _places(chosen: Tensor, counts: list[int], starts: list[int], size: int) -> tuple[Tensor, Tensor]:
    """Where each of the chosen rows stands when they are grouped by expert, and which row stands at each place.

    Args:
        chosen: int64 ``[n]``, the expert of each row.
        counts: rows of each expert.
        starts: first place of each expert.
        size: places in all.

    Returns:
        int64 ``[n]`` and int64 ``[size]``. Places that no row takes hold row 0.
    """
    order = chosen.argsort(stable=True)
    before = [start - first for start, first in zip(starts, accumulate(counts, initial=0), strict=False)]
    shifts = torch.tensor(before).repeat_interleave(torch.tensor(counts))
    sorted_places = shifts + torch.arange(len(chosen))
    place = torch.empty_like(order)
    place[order] = sorted_places
    source = torch.zeros(size, dtype=torch.long)
    source[sorted_places] = order
    return place, source
