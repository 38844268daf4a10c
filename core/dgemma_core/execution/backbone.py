"""ONE walk over the layers, for prefill, denoising and commit alike.

Tokens of many sequences lie end to end in one flat batch: linear layers and experts see all of them together, attention
runs per sequence over its own keys and values. A prompt chunk or a finished canvas (causal, encoder mode) and a canvas
(bidirectional, decoder mode) may share a walk, even those of the same sequence: its keys are written before anyone
attends, so prefill or commit and the next denoising step take one pass.

The walk calls the transformers modules (so quantized linear layers keep working), not their ``forward`` of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_core.execution.kv_cache import KVLayout, SequenceCache
from dgemma_core.execution.row_padding import KEY_MULTIPLE, QUERY_MULTIPLE, pad_rows, row_multiple


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one sequence in the flat batch.

    Attributes:
        cache: the sequence's keys and values.
        start: position of the first token.
        length: tokens computed.
        causal: encoder mode (prompt chunk, commit) or decoder mode (canvas).
        stop: positions attended end here. For a canvas it may lie behind ``start + length``: a frozen tail is read,
            not computed.
        blocks: in a causal segment, positions ``[start, stop)`` that see each other in both directions, at any
            distance: images, where the checkpoint wants it. Each lies within the segment.
        wanted: of a canvas, the positions (from its start) whose last hidden states are wanted; None: all of them.
    """

    cache: SequenceCache
    start: int
    length: int
    causal: bool
    stop: int
    blocks: tuple[tuple[int, int], ...] = ()
    wanted: tuple[int, ...] | None = None

    @property
    def outputs(self) -> int:
        """Positions whose last hidden states are wanted; none of a causal segment, whose keys and values are enough."""
        if self.causal:
            return 0
        return self.length if self.wanted is None else len(self.wanted)


@dataclass(frozen=True)
class Copy:
    """Positions ``[start, stop)`` of a sequence that begins like another one, filled in as soon as that one has them.

    Attributes:
        into: the sequence's keys and values.
        source: the other one's.
        start: first position.
        stop: behind the last.
    """

    into: SequenceCache
    source: SequenceCache
    start: int
    stop: int


class Backbone:
    """Walks hidden states through the layers of a ``DiffusionGemmaForBlockDiffusion``.

    Args:
        model: the loaded model, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        encoder, decoder = model.model.encoder.language_model, model.model.decoder
        config = model.config.text_config
        self._encoder_layers = list(encoder.layers)
        self._decoder_layers = list(decoder.layers)
        self._types: list[str] = list(config.layer_types)
        self._window: int = config.sliding_window
        self._rotary = decoder.rotary_emb
        self._norm = decoder.norm
        self._embed = decoder.embed_tokens
        self._self_conditioning = decoder.self_conditioning
        self._tied = all(
            a.self_attn.q_proj.weight is b.self_attn.q_proj.weight
            for a, b in zip(self._encoder_layers, self._decoder_layers, strict=True)
        )
        # Buffers are not tied: the two modes may scale a layer's output differently although they share its weights.
        self._encoder_scalars = [float(layer.layer_scalar) for layer in self._encoder_layers]
        self._decoder_scalars = [float(layer.layer_scalar) for layer in self._decoder_layers]
        self.hidden_size: int = config.hidden_size
        self.device: torch.device = self._embed.weight.device
        self.dtype: torch.dtype = self._embed.weight.dtype
        self.layouts = [
            KVLayout(layer.self_attn.k_proj.out_features // layer.self_attn.head_dim, layer.self_attn.head_dim)
            for layer in self._decoder_layers
        ]

    def embed(self, ids: Tensor) -> Tensor:
        """Scaled token embeddings: ``[tokens]`` int64 -> ``[tokens, hidden]``."""
        embedded: Tensor = self._embed(ids)
        return embedded

    def embed_canvas(self, ids: Tensor, soft: Tensor) -> Tensor:
        """Canvas embeddings with the self-conditioning signal of the last step.

        Args:
            ids: ``[tokens]`` int64.
            soft: ``[tokens, hidden]`` expected embedding under the last step's distribution; zeros at the first step.

        Returns:
            ``[tokens, hidden]``.
        """
        embedded: Tensor = self._self_conditioning(self._embed(ids), soft)
        return embedded

    def forward(self, hidden: Tensor, segments: Sequence[Segment], copies: Sequence[Copy] = ()) -> Tensor:
        """Walk the flat batch through all layers, writing keys and values in place.

        Args:
            hidden: ``[tokens, hidden]`` embeddings of all segments, in their order.
            segments: causal segments first, then canvases.
            copies: keys and values to take over between sequences, in an order in which each has its source.

        Returns:
            ``[outputs, hidden]``: normed last hidden states of the canvas segments' wanted positions, in their order.
        """
        canvas_tokens = sum(s.length for s in segments if not s.causal)
        causal_tokens = hidden.shape[0] - canvas_tokens
        if self._tied or not causal_tokens or not canvas_tokens:
            return self._walk(hidden, segments, copies, causal_tokens)
        split = sum(1 for s in segments if s.causal)
        self._walk(hidden[:causal_tokens], segments[:split], copies, causal_tokens)
        return self._walk(hidden[causal_tokens:], segments[split:], (), 0)

    def _walk(self, hidden: Tensor, segments: Sequence[Segment], copies: Sequence[Copy], causal_tokens: int) -> Tensor:
        tokens = hidden.shape[0]
        layers = self._decoder_layers if causal_tokens < tokens else self._encoder_layers
        hidden = pad_rows(hidden, row_multiple(hidden.device))
        rotary, masks = self._positions(hidden, segments), _Masks(segments, self._window)
        last = len(layers) - 1
        for index, layer in enumerate(layers):
            kind = self._types[index]
            normed = _rms_norm(layer.input_layernorm, hidden)
            keys, values = self._keys_values(layer.self_attn, normed, rotary[kind])
            offset = 0
            for segment in segments:
                end = offset + segment.length
                segment.cache.write(index, segment.start, keys[offset:end], values[offset:end])
                offset = end
            for copy in copies:
                copy.into.copy_layer(index, copy.source, copy.start, copy.stop)
            if index == last and (outputs := sum(s.outputs for s in segments)) < tokens:
                # The last layer's keys and values are all that is wanted of the other rows.
                if not outputs:
                    return hidden[:0]
                rows = _output_rows(segments).to(hidden.device)
                multiple = row_multiple(hidden.device)
                hidden, normed, cos, sin = (pad_rows(x[rows], multiple) for x in (hidden, normed, *rotary[kind]))
                rotary[kind] = (cos, sin)
                masks = masks.of_outputs()
                tokens, causal_tokens = outputs, 0
            attended = self._attend(layer.self_attn, index, normed, rotary[kind], masks)
            hidden = hidden + _rms_norm(layer.post_attention_layernorm, attended)
            hidden = self._feed_forward(layer, hidden)
            hidden = self._scale(hidden, index, causal_tokens)
        return _rms_norm(self._norm, hidden[:tokens])

    def _positions(self, hidden: Tensor, segments: Sequence[Segment]) -> dict[str, tuple[Tensor, Tensor]]:
        ids = torch.cat([torch.arange(s.start, s.start + s.length) for s in segments])
        ids = F.pad(ids, (0, hidden.shape[0] - len(ids))).to(hidden.device)
        rotary = {}
        for kind in set(self._types):
            cos, sin = self._rotary(hidden, ids[None], kind)
            rotary[kind] = (cos[0].unsqueeze(1), sin[0].unsqueeze(1))
        return rotary

    @staticmethod
    def _keys_values(attention: Any, normed: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        keys = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim))
        values = keys if attention.v_proj is None else attention.v_proj(normed).view(keys.shape)
        return _rotate(_rms_norm(attention.k_norm, keys), rotary), _rms_norm(attention.v_norm, values)

    @staticmethod
    def _attend(attention: Any, layer: int, normed: Tensor, rotary: tuple[Tensor, Tensor], masks: _Masks) -> Tensor:
        queries = attention.q_proj(normed).unflatten(-1, (-1, attention.head_dim))
        queries = _rotate(_rms_norm(attention.q_norm, queries), rotary)
        out = torch.zeros_like(queries)
        offset = 0
        for segment, view in masks.views(attention.is_sliding):
            keys, values = segment.cache.read(layer, view.first_key, view.last_key)
            rows = slice(offset, offset + segment.length)
            out[rows] = _attention(queries[rows], keys, values, view.mask(normed.device), attention.scaling)
            offset += segment.length
        projected: Tensor = attention.o_proj(out.flatten(1))
        return projected

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:
        dense = layer.mlp(_rms_norm(layer.pre_feedforward_layernorm, hidden))
        dense = _rms_norm(layer.post_feedforward_layernorm_1, dense)
        _, weights, index = layer.router(hidden)
        sparse = _experts(layer.experts, _rms_norm(layer.pre_feedforward_layernorm_2, hidden), index, weights)
        both = dense + _rms_norm(layer.post_feedforward_layernorm_2, sparse)
        return hidden + _rms_norm(layer.post_feedforward_layernorm, both)

    def _scale(self, hidden: Tensor, layer: int, causal_tokens: int) -> Tensor:
        encoder, decoder = self._encoder_scalars[layer], self._decoder_scalars[layer]
        if encoder == decoder:
            return hidden if encoder == 1.0 else hidden * encoder
        hidden[:causal_tokens] *= encoder
        hidden[causal_tokens:] *= decoder
        return hidden


@dataclass(frozen=True)
class _View:
    """What one segment may attend to in one kind of layer."""

    segment: Segment
    window: int | None
    cached: dict[int | None, Tensor | None]

    @property
    def first_key(self) -> int:
        first = 0 if self.window is None else max(0, self.segment.start - self.window + 1)
        return first // KEY_MULTIPLE * KEY_MULTIPLE if self.segment.causal else first

    @property
    def last_key(self) -> int:
        """Behind the last key; keys of a causal segment that the mask hides fill up a multiple."""
        stop = self.segment.stop
        return -(-stop // KEY_MULTIPLE) * KEY_MULTIPLE if self.segment.causal else stop

    def mask(self, device: torch.device) -> Tensor | None:
        """``[length, last_key - first_key]`` bool, or None for a canvas, which sees every key. Shared by the layers."""
        if not self.segment.causal:
            return None
        if self.window not in self.cached:
            start, length = self.segment.start, self.segment.length
            query = torch.arange(start, start + length, device=device)[:, None]
            key = torch.arange(self.first_key, self.last_key, device=device)[None]
            visible = key <= query
            if self.window is not None:
                visible &= key > query - self.window
            for first, behind in self.segment.blocks:
                visible[first - start : behind - start, first - self.first_key : behind - self.first_key] = True
            self.cached[self.window] = visible
        return self.cached[self.window]


class _Masks:
    """The views of all segments, for sliding and for full layers."""

    def __init__(self, segments: Sequence[Segment], window: int) -> None:
        cached: list[dict[int | None, Tensor | None]] = [{} for _ in segments]
        self._sliding = [_View(s, window, c) for s, c in zip(segments, cached, strict=True)]
        self._full = [_View(s, None, c) for s, c in zip(segments, cached, strict=True)]

    def views(self, sliding: bool) -> list[tuple[Segment, _View]]:
        return [(view.segment, view) for view in (self._sliding if sliding else self._full)]

    def of_outputs(self) -> _Masks:
        rest = _Masks((), 0)
        rest._sliding, rest._full = (
            [replace(v, segment=replace(v.segment, length=v.segment.outputs)) for v in views if v.segment.outputs]
            for views in (self._sliding, self._full)
        )
        return rest


def _output_rows(segments: Sequence[Segment]) -> Tensor:
    """Rows of the flat batch whose last hidden states are wanted: int64 ``[outputs]``."""
    parts, offset = [], 0
    for segment in segments:
        if segment.outputs:
            places = torch.arange(segment.length) if segment.wanted is None else torch.tensor(segment.wanted)
            parts.append(offset + places)
        offset += segment.length
    return torch.cat(parts)


def _attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Grouped-query attention of ``[tokens, heads, dim]`` queries over ``[kv_heads, keys, dim]``."""
    wanted = queries.shape[0]
    queries = pad_rows(queries, QUERY_MULTIPLE)
    tokens, heads, dim = queries.shape
    kv_heads = keys.shape[0]
    grouped = queries.transpose(0, 1).unflatten(0, (kv_heads, heads // kv_heads))
    if mask is None:
        # Without a mask the queries of a group are just more rows over the same keys: no key is repeated.
        out = F.scaled_dot_product_attention(grouped.flatten(1, 2)[None], keys[None], values[None], scale=scale)
        return out[0].view(heads, tokens, dim).transpose(0, 1)[:wanted]
    # Added queries see everything (none may see nothing) and are cut off again.
    mask = F.pad(mask, (0, 0, 0, tokens - wanted), value=True)
    group = heads // kv_heads
    keys = keys[:, None].expand(-1, group, -1, -1)
    values = values[:, None].expand(-1, group, -1, -1)
    out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    return out.reshape(heads, tokens, dim).transpose(0, 1)[:wanted]


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    weight = norm.weight if norm.with_scale else None
    return F.rms_norm(x, x.shape[-1:], weight, norm.eps)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _experts(experts: Any, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Mixture of experts over ``[tokens, hidden]``; ``index`` and ``weights`` are ``[tokens, top_k]``.

    On a CPU tokens are grouped by expert, one pair of GEMMs each; accelerators take upstream's grouped kernels.
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
