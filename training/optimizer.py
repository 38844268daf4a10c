"""Muon for matrices (with experts as stacks of matrices) and AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where it makes matrix products faster, float32 on CPUs that have no instructions for it."""
    fast = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def orthogonalize(stack: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration: matrices [S, m, n] -> nearly orthogonal ones."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = stack.to(fast_dtype(stack.device))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(stack.dtype)


def orthogonalize_shared(stack: Tensor) -> Tensor:
    """The same, with the matrices dealt out to all processes of a group, if there is one."""
    if not dist.is_initialized():
        return orthogonalize(stack)
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    result = torch.zeros_like(stack)
    if stack[mine].shape[0]:
        result[mine] = orthogonalize(stack[mine])
    dist.all_reduce(result)
    return result


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates; parameters of one shape are handled as one stack."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape[-2:])].append(p)
            for (rows, columns), params in by_shape.items():
                updates = []
                for p in params:
                    state = self.state[p]
                    if not state:
                        state["momentum"] = torch.zeros_like(p)
                    state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(state["momentum"], group["momentum"]).reshape(-1, rows, columns))
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                sizes = [u.shape[0] for u in updates]
                for p, update in zip(params, orthogonalize_shared(torch.cat(updates)).split(sizes), strict=True):
                    p.mul_(1 - group["lr"] * group["decay"]).add_(update.view_as(p), alpha=-scale)


def build_optimizers(model: nn.Module, lr_matrix: float, lr_rest: float) -> list[torch.optim.Optimizer]:
    """Hidden matrices go to Muon; embeddings, norms, scales and the router go to AdamW."""
    matrices, rest = [], []
    for name, p in model.model.decoder.named_parameters():  # type: ignore[union-attr, operator]
        hidden = p.ndim >= 2 and "embed_tokens" not in name and "router" not in name
        (matrices if hidden else rest).append(p)
    adam = torch.optim.AdamW(rest, lr=lr_rest, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    optimizers: list[torch.optim.Optimizer] = [Muon(matrices, lr=lr_matrix), adam]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers
