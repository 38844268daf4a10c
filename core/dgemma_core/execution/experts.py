"""The mixture of experts over the flat batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_core.execution.row_padding import pad_rows, row_multiple


def mix_experts(experts: Any, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Mixture of experts: each token goes through its ``top_k`` experts, and their outputs are summed by weight.

    On a CPU, tokens are grouped by expert, and each expert takes one pair of GEMMs. On accelerators, transformers' own
    grouped kernels run.

    Args:
        experts: the layer's experts, a module of transformers.
        x: ``[tokens, hidden]``.
        index: int64 ``[tokens, top_k]``, the experts of each token.
        weights: ``[tokens, top_k]``.

    Returns:
        ``[tokens, hidden]``.
    """
    if x.device.type != "cpu" or not isinstance(experts.gate_up_proj, nn.Parameter):
        routed: Tensor = experts(x, index, weights)
        return routed
    top_k = index.shape[1]
    order = index.flatten().argsort(stable=True)
    token = order if top_k == 1 else order // top_k
    grouped = x[token]
    counts = torch.bincount(index.flatten(), minlength=experts.num_experts).tolist()
    pieces = []
    offset = 0
    multiple = row_multiple(x.device)
    for expert, count in enumerate(counts):
        if count:
            rows = pad_rows(grouped[offset : offset + count], multiple)
            gate, up = F.linear(rows, experts.gate_up_proj[expert]).chunk(2, dim=-1)
            pieces.append(F.linear(experts.act_fn(gate) * up, experts.down_proj[expert])[:count])
            offset += count
    out = torch.cat(pieces) * weights.flatten()[order, None].to(x.dtype)
    return torch.zeros_like(x).index_add_(0, token, out)
