"""A pass over the model's modules that is made for training on packed trees.

The encoder part (plain causal tokens) and the decoder part (noised canvases) use the same weights. Canvases only read
the encoder's keys and values, so the encoder runs once while the canvases may run twice (self-conditioning).
Shapes: B rows, L encoder tokens per row, D canvas tokens per row, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DiffusionGemmaForBlockDiffusion

PAD = 0  # token id that fills up rows and canvases
STEP = 128  # rows of an expert are padded to a multiple of this
CAUSAL_STEP = 128  # queries of a causal pass that attend to one set of keys


@dataclass
class Packed:
    """A batch of packed rows. `branch` 0 is the shared prefix, 1.. are branches, -1 is padding."""

    tokens: Tensor  # [B, L] encoder token ids
    branch: Tensor  # [B, L]
    position: Tensor  # [B, L] logical positions
    labels: Tensor  # [B, L] next-token targets of the answers, -100 elsewhere
    label_weight: Tensor  # [B, L] their weights in the loss
    canvas: Tensor  # [B, D] clean canvas targets
    canvas_branch: Tensor  # [B, D] branch of each canvas token, -1 for unused slots
    canvas_slot: Tensor  # [B, D] index of the canvas inside the row
    canvas_start: Tensor  # [B, D] logical position where the canvas' block starts
    canvas_position: Tensor  # [B, D] logical positions
    canvas_task: Tensor  # [B, D] task index, for the log
    canvas_weight: Tensor  # [B, D] weights in the loss
    canvas_hole: Tensor  # [B, D] bool, tokens that are asked for; the rest of the canvas may be given
    canvas_length: int

    def to(self, device: torch.device) -> Packed:
        """The same batch on another device."""
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Packed(**moved)


def encoder_mask(batch: Packed, window: int | None) -> Tensor:
    """Encoder tokens see their own branch and the prefix, causally and within the window -> bool [B, L, L]."""
    q_branch, k_branch = batch.branch[:, :, None], batch.branch[:, None, :]
    distance = batch.position[:, :, None] - batch.position[:, None, :]
    seen = ((k_branch == 0) & (q_branch >= 0) | (k_branch == q_branch)) & (distance >= 0)
    return seen if window is None else seen & (distance < window)


def canvas_mask(batch: Packed, window: int | None) -> Tensor:
    """Canvas tokens see the encoder tokens before their block and their own canvas -> bool [B, D, L + D]."""
    start, k_position = batch.canvas_start[:, :, None], batch.position[:, None, :]
    q_branch, k_branch = batch.canvas_branch[:, :, None], batch.branch[:, None, :]
    context = ((k_branch == 0) & (q_branch >= 0) | (k_branch == q_branch) & (q_branch >= 0)) & (k_position < start)
    if window is not None:
        context = context & (k_position >= start - (window - 1))
    own = batch.canvas_slot[:, :, None] == batch.canvas_slot[:, None, :]
    return torch.cat([context, own], dim=-1)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis, computed in float32."""
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding; x [N, heads, head_dim], cos and sin [N, 1, head_dim]."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def before_attention(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    norm: Tensor,
    wq: Tensor,
    wk: Tensor,
    wv: Tensor | None,
    q_norm: Tensor,
    k_norm: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Residual stream [N, H] -> queries [N, heads, d], keys and values [N, kv_heads, d]."""
    head_dim = q_norm.shape[0]
    y = rms_norm(x, norm, eps).to(dtype)
    q = (y @ wq.to(dtype).T).view(x.shape[0], -1, head_dim)
    k = (y @ wk.to(dtype).T).view(x.shape[0], -1, head_dim)
    v = k if wv is None else (y @ wv.to(dtype).T).view(x.shape[0], -1, head_dim)
    q = rotate(rms_norm(q, q_norm, eps), cos, sin).to(dtype)
    k = rotate(rms_norm(k, k_norm, eps), cos, sin).to(dtype)
    return q, k, rms_norm(v, None, eps).to(dtype)


def after_attention(
    x: Tensor,
    attention: Tensor,
    wo: Tensor,
    post_norm: Tensor,
    pre_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    post_norm_1: Tensor,
    pre_norm_2: Tensor,
    router_scale: Tensor,
    router: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Adds attention, runs the dense MLP and the router -> residual, MLP output, expert input, router logits [N, E]."""
    x = x + rms_norm(attention @ wo.to(dtype).T, post_norm, eps)
    y = rms_norm(x, pre_norm, eps).to(dtype)
    hidden = F.gelu((y @ gate.to(dtype).T).float(), approximate="tanh") * (y @ up.to(dtype).T).float()
    dense = rms_norm(hidden.to(dtype) @ down.to(dtype).T, post_norm_1, eps)
    plain = rms_norm(x, None, eps)
    scores = (plain * router_scale * x.shape[-1] ** -0.5) @ router.T
    return x, dense, (plain * pre_norm_2).to(dtype), scores


def attend(q: Tensor, k: Tensor, v: Tensor, masks: list[Tensor]) -> Tensor:
    """Attention of q [B, heads, T, d] over k and v [B, kv_heads, K, d] -> [B, T, heads * d].

    Each mask covers the next t queries and the first K' keys. It is additive, [B * kv_heads, groups * t, K'], with the
    query heads of one key head in a row. On a CPU this is twice as fast as the fused attention kernel, backward
    included.
    """
    rows, heads, _, head_dim = q.shape
    shared = k.shape[1]
    parts, at = [], 0
    for mask in masks:
        length, width = mask.shape[1] * shared // heads, mask.shape[2]
        grouped = q[:, :, at : at + length].reshape(rows * shared, -1, head_dim)
        keys, values = (t[:, :, :width].reshape(rows * shared, width, head_dim) for t in (k, v))
        weights = torch.baddbmm(mask, grouped, keys.transpose(1, 2)).softmax(-1)
        parts.append((weights @ values).view(rows, heads, length, head_dim))
        at += length
    return torch.cat(parts, 2).transpose(1, 2).reshape(rows, at, -1)


def softcapped_logits(hidden: Tensor, head: Tensor, softcap: float, dtype: torch.dtype) -> Tensor:
    """Normed hidden states [N, H] -> float32 logits [N, V], each between -softcap and softcap."""
    return torch.tanh((hidden.to(dtype) @ head.to(dtype).T).float() / softcap) * softcap


def token_losses(hidden: Tensor, head: Tensor, target: Tensor, softcap: float, dtype: torch.dtype) -> Tensor:
    """Cross-entropy of every token -> [N]."""
    return F.cross_entropy(softcapped_logits(hidden, head, softcap, dtype), target, reduction="none")


def expert_activation(gate_up: Tensor, dtype: torch.dtype) -> Tensor:
    """Gated GELU of one expert's projection [N, 2F] -> [N, F]."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (F.gelu(gate, approximate="tanh") * up).to(dtype)


def after_experts(
    x: Tensor, dense: Tensor, sparse: Tensor, weight: Tensor, post_norm_2: Tensor, post_norm: Tensor, eps: float
) -> Tensor:
    """Joins dense and expert outputs to the residual stream [N, H]."""
    return x + rms_norm(dense + rms_norm(sparse.float() * weight, post_norm_2, eps), post_norm, eps)


def check_config(text: Any) -> None:
    """Refuse a text configuration that this code would compute wrongly.

    Raises:
        ValueError: naming the setting.
    """
    expected = {"hidden_activation": "gelu_pytorch_tanh", "top_k_experts": 1, "pad_token_id": PAD}
    for name, value in expected.items():
        if getattr(text, name) != value:
            raise ValueError(f"{name}={getattr(text, name)!r}: training.walk computes {value!r} only")


class Walk(nn.Module):
    """Runs packed batches through the weights of a `DiffusionGemmaForBlockDiffusion`.

    Args:
        model: whose weights are used; its configuration has every constant.
        dtype: of matrix products; norms, softmax and losses are computed in float32.
        compiled: whether the pieces of a layer are compiled.

    Raises:
        ValueError: the model is not of the kind that this code computes.
    """

    def __init__(self, model: DiffusionGemmaForBlockDiffusion, dtype: torch.dtype, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.text: Any = model.config.text_config
        check_config(self.text)
        self.eps = float(self.text.rms_norm_eps)
        self.softcap = float(self.text.final_logit_softcapping)
        decoder = model.model.decoder
        self.tables: dict[str, tuple[Tensor, Tensor]] = {}
        positions = torch.arange(self.text.max_position_embeddings, device=model.device)[None]
        for kind in set(self.text.layer_types):
            cos, sin = decoder.rotary_emb(torch.zeros(1, device=model.device), positions, kind)
            self.tables[kind] = cos[0].clone(), sin[0].clone()
        self.balance = torch.zeros(())
        if compiled:
            torch._dynamo.config.recompile_limit = 64
        wrap: Callable[..., Any] = (lambda f: torch.compile(f, dynamic=True)) if compiled else (lambda f: f)
        self.before = wrap(before_attention)
        self.after = wrap(after_attention)
        self.activate = wrap(expert_activation)
        self.join = wrap(after_experts)
        self._token_losses = wrap(token_losses)

    def _experts(self, layer: nn.Module, x: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Top-1 experts by sorting tokens -> outputs [N, H] and their weight [N, 1]."""
        probabilities = scores.softmax(-1)
        best, choice = probabilities.max(-1)
        # The normalised top-1 weight is always 1; dividing by its detached self keeps the router trainable.
        weight = best / best.detach() * layer.router.per_expert_scale[choice]
        counts = torch.bincount(choice, minlength=scores.shape[-1])
        if torch.is_grad_enabled():
            share = counts.float() / choice.shape[0]
            self.balance = self.balance + scores.shape[-1] * (share * probabilities.mean(0)).sum()
        # Every expert gets a multiple of STEP rows, so that few GEMM shapes occur; the surplus is never read.
        sizes = [-(-n // STEP) * STEP for n in counts.tolist()]
        starts = counts.cumsum(0) - counts
        padded = torch.tensor([0, *sizes[:-1]], device=x.device).cumsum(0)
        order = choice.argsort()
        ranks = torch.arange(order.shape[0], device=x.device)
        slot = ranks - starts[choice[order]] + padded[choice[order]]
        gather = torch.zeros(sum(sizes), dtype=torch.long, device=x.device).scatter_(0, slot, order)
        inverse = torch.empty_like(order).scatter_(0, order, slot)
        outputs = []
        gate_up, down = layer.experts.gate_up_proj.to(self.dtype), layer.experts.down_proj.to(self.dtype)
        for expert, part in enumerate(x[gather].split(sizes)):
            if part.shape[0]:
                outputs.append(self.activate(part @ gate_up[expert].T, self.dtype) @ down[expert].T)
        return torch.cat(outputs)[inverse], weight[:, None]

    def _layer(
        self,
        index: int,
        x: Tensor,
        rows: int,
        position: Tensor,
        masks: list[Tensor],
        cache: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One layer over x [B * T, H]; `cache` holds the encoder's keys and values [B, kv_heads, L, d] for canvases."""
        layer = self.model.model.decoder.layers[index]
        kind = self.text.layer_types[index]
        a = layer.self_attn
        cos, sin = (table[position.reshape(-1)][:, None] for table in self.tables[kind])
        q, k, v = self.before(
            x,
            cos,
            sin,
            layer.input_layernorm.weight,
            a.q_proj.weight,
            a.k_proj.weight,
            None if a.v_proj is None else a.v_proj.weight,
            a.q_norm.weight,
            a.k_norm.weight,
            self.eps,
            self.dtype,
        )
        q, k, v = (t.view(rows, -1, t.shape[1], t.shape[2]).transpose(1, 2) for t in (q, k, v))
        keys, values = (k, v) if cache is None else (torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2))
        out = attend(q, keys, values, masks).view(x.shape[0], -1)
        x, dense, expert_in, scores = self.after(
            x,
            out,
            a.o_proj.weight,
            layer.post_attention_layernorm.weight,
            layer.pre_feedforward_layernorm.weight,
            layer.mlp.gate_proj.weight,
            layer.mlp.up_proj.weight,
            layer.mlp.down_proj.weight,
            layer.post_feedforward_layernorm_1.weight,
            layer.pre_feedforward_layernorm_2.weight,
            layer.router.scale,
            layer.router.proj.weight,
            self.eps,
            self.dtype,
        )
        sparse, weight = self._experts(layer, expert_in, scores)
        post_norm_2, post_norm = layer.post_feedforward_layernorm_2.weight, layer.post_feedforward_layernorm.weight
        x = self.join(x, dense, sparse, weight, post_norm_2, post_norm, self.eps)
        return x, (k, v)

    def attention_masks(
        self, mask: Callable[[Packed, int | None], Tensor], batch: Packed, causal: bool = False
    ) -> dict[str, list[Tensor]]:
        """Additive masks per layer type as `attend` takes them; causal ones come in parts with fewer keys."""
        result = {}
        heads, shared = self.text.num_attention_heads, self.text.num_key_value_heads
        for kind, window in (("full_attention", None), ("sliding_attention", self.text.sliding_window)):
            seen = mask(batch, window)
            rows, queries, keys = seen.shape
            step = CAUSAL_STEP if causal else queries
            parts = []
            for begin in range(0, queries, step):
                end = min(begin + step, queries)
                part = seen[:, begin:end, : end if causal else keys]
                additive = torch.zeros(part.shape, dtype=self.dtype, device=seen.device).masked_fill_(~part, -1e9)
                wide = additive[:, None].expand(rows, heads, *part.shape[1:])
                parts.append(wide.reshape(rows * shared, heads // shared * part.shape[1], part.shape[2]))
            result[kind] = parts
        return result

    def embed(self, tokens: Tensor) -> Tensor:
        """Scaled token embeddings -> [N, H] float32."""
        table = self.model.model.decoder.embed_tokens
        return F.embedding(tokens.reshape(-1), table.weight) * self.text.hidden_size**0.5

    def encode(self, batch: Packed) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Causal pass over the encoder tokens -> normed hidden states [B * L, H] and keys/values per layer."""
        masks = self.attention_masks(encoder_mask, batch, causal=True)
        x, cache = self.embed(batch.tokens), []
        self.balance = torch.zeros((), device=x.device)
        for index, kind in enumerate(self.text.layer_types):
            x, kv = self._layer(index, x, batch.tokens.shape[0], batch.position, masks[kind], None)
            cache.append(kv)
        return rms_norm(x, self.model.model.decoder.norm.weight, self.eps), cache

    def condition(self, embedded: Tensor, soft: Tensor) -> Tensor:
        """Self-conditioning: canvas embeddings and soft embeddings [N, H] -> decoder input [N, H]."""
        module = self.model.model.decoder.self_conditioning
        y = rms_norm(soft, module.pre_norm.weight, self.eps).to(self.dtype)
        gate = F.gelu((y @ module.gate_proj.weight.to(self.dtype).T).float(), approximate="tanh")
        hidden = gate * (y @ module.up_proj.weight.to(self.dtype).T).float()
        update = (hidden.to(self.dtype) @ module.down_proj.weight.to(self.dtype).T).float()
        return rms_norm(embedded + update, None, self.eps)

    def denoise(
        self,
        batch: Packed,
        noised: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        soft: Tensor | None,
        masks: dict[str, list[Tensor]] | None = None,
    ) -> Tensor:
        """Bidirectional pass over noised canvases [B, D] -> normed hidden states [B * D, H]."""
        masks = masks or self.attention_masks(canvas_mask, batch)
        embedded = self.embed(noised)
        x = self.condition(embedded, torch.zeros_like(embedded) if soft is None else soft)
        for index, kind in enumerate(self.text.layer_types):
            x, _ = self._layer(index, x, noised.shape[0], batch.canvas_position, masks[kind], cache[index])
        return rms_norm(x, self.model.model.decoder.norm.weight, self.eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Softcapped logits [N, V] in float32."""
        return softcapped_logits(hidden, self.model.lm_head.weight, self.softcap, self.dtype)

    def losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of every token -> [N]."""
        return self._token_losses(hidden, self.model.lm_head.weight, target, self.softcap, self.dtype)

    def propose(self, hidden: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reads a denoising pass's hidden states; temperature [N, 1].

        Returns:
            Soft embeddings [N, H] (the next step is conditioned on them), likeliest tokens [N], entropies [N] in nats.
        """
        log_p = (self.logits(hidden) / temperature).log_softmax(-1)
        p = log_p.exp()
        table = self.model.lm_head.weight.to(self.dtype)
        soft = (p.to(self.dtype) @ table).float() * self.text.hidden_size**0.5
        return soft, log_p.argmax(-1), -torch.linalg.vecdot(p, log_p)
