"""One layer's computations over the flat batch. It calls the modules of transformers, and joins products."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_core.execution.experts import Experts
from dgemma_core.execution.joined_linear import joined


class Layer:
    """A layer of a ``DiffusionGemmaForBlockDiffusion``.

    Args:
        module: the layer, of the encoder or the decoder.

    Attributes:
        attention: its attention module.
        kv_heads: number of key heads.
        head_dim: width of a head.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self.attention = attention = module.self_attn
        self.head_dim: int = attention.head_dim
        self.kv_heads: int = attention.k_proj.out_features // attention.head_dim
        own_values = [] if attention.v_proj is None else [attention.v_proj]
        self._project = joined([attention.q_proj, attention.k_proj, *own_values])
        self._experts = Experts(module.experts)
        self._gate_up = joined([module.mlp.gate_proj, module.mlp.up_proj])
        self._heads: int = attention.q_proj.out_features // attention.head_dim
        self._scales = _head_scales(attention, self._heads, self.kv_heads)

    def queries_keys_values(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: ``[tokens, heads, head_dim]`` each.

        Args:
            hidden: ``[tokens, hidden]``.
            rotary: cosines and sines ``[tokens, 1, head_dim]``; see :func:`rotate`.
        """
        attention, heads, both = self.attention, self._heads, self._heads + self.kv_heads
        normed = rms_norm(self._module.input_layernorm, hidden)
        projected = self._project(normed).unflatten(-1, (-1, self.head_dim))
        keys = projected[:, heads:both]
        values = keys if attention.v_proj is None else projected[:, both:]
        if self._scales is not None and projected.dtype == torch.float32:
            # One norm over all heads, because they differ in their weights only.
            normed = _unscaled(projected, attention.q_norm.eps)
            values = normed[:, heads:both] if attention.v_proj is None else normed[:, both:]
            rotated = rotate(normed[:, :both] * self._scales, rotary)
            return rotated[:, :heads], rotated[:, heads:], values
        queries = rotate(rms_norm(attention.q_norm, projected[:, :heads]), rotary)
        return queries, rotate(rms_norm(attention.k_norm, keys), rotary), rms_norm(attention.v_norm, values)

    def after_attention(self, hidden: Tensor, attended: Tensor, tokens: int) -> Tensor:
        """The layer's output without its scalar.

        Args:
            hidden: ``[tokens, hidden]``, the layer's input.
            attended: ``[tokens, heads * head_dim]``.
            tokens: rows that are wanted; the rows after them are padding.
        """
        module = self._module
        hidden = hidden + rms_norm(module.post_attention_layernorm, self.attention.o_proj(attended))
        dense = rms_norm(module.post_feedforward_layernorm_1, self._dense(hidden))
        _, weights, index = module.router(hidden)
        sparse = self._experts(rms_norm(module.pre_feedforward_layernorm_2, hidden), index, weights, tokens)
        both = dense + rms_norm(module.post_feedforward_layernorm_2, sparse)
        return hidden + rms_norm(module.post_feedforward_layernorm, both)

    def _dense(self, hidden: Tensor) -> Tensor:
        mlp = self._module.mlp
        gate, up = self._gate_up(rms_norm(self._module.pre_feedforward_layernorm, hidden)).chunk(2, dim=-1)
        out: Tensor = mlp.down_proj(mlp.act_fn(gate) * up)
        return out


def rms_norm(norm: Any, x: Tensor) -> Tensor:
    """Root mean square norm over the last dimension."""
    if x.dtype != torch.float32:
        return F.rms_norm(x, x.shape[-1:], norm.weight if norm.with_scale else None, norm.eps)
    # A few small kernels. F.rms_norm takes twice as many on a CPU, since it also converts.
    normed = _unscaled(x, norm.eps)
    return normed.mul_(norm.weight) if norm.with_scale else normed


def _unscaled(x: Tensor, eps: float) -> Tensor:
    return x * x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()


def signed(sin: Tensor) -> Tensor:
    """Sines as :func:`rotate` takes them: negative in the first half."""
    return torch.cat((-sin[..., : sin.shape[-1] // 2], sin[..., sin.shape[-1] // 2 :]), dim=-1)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding (https://arxiv.org/abs/2104.09864).

    Args:
        x: ``[tokens, heads, head_dim]``.
        rotary: cosines, and sines by :func:`signed`, ``[tokens, 1, head_dim]``.
    """
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _head_scales(attention: Any, heads: int, kv_heads: int) -> Tensor | None:
    """Weights of the norms of queries and keys, ``[heads + kv_heads, head_dim]``; None if one norm cannot do."""
    norms = (attention.q_norm, attention.k_norm, attention.v_norm)
    if len({norm.eps for norm in norms}) > 1 or [norm.with_scale for norm in norms] != [True, True, False]:
        return None
    query, key = attention.q_norm.weight, attention.k_norm.weight
    return torch.cat((query.expand(heads, -1), key.expand(kv_heads, -1))).detach().clone()
