"""The forward pass through the layers. Prefill, denoising and commit all use it.

Tokens of many sequences lie end to end in one flat batch. Linear layers and experts see all of them together. Attention
runs per sequence, over its own keys and values.

Prompt chunks and finished canvases (causal, encoder mode) may share a pass with canvases (bidirectional, decoder mode),
even within one sequence. Each layer writes all keys before any query attends. So prefill or commit and the next
denoising step take one pass.

The pass calls the modules inside the transformers model, so quantized linear layers work. It does not call the model's
own ``forward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_core.execution.attention import Masks, View, attend
from dgemma_core.execution.experts import mix_experts
from dgemma_core.execution.kv_cache import KVLayout
from dgemma_core.execution.row_padding import pad_rows, row_multiple
from dgemma_core.execution.segments import Copy, Segment, output_rows, turns


class Backbone:
    """The layers of a ``DiffusionGemmaForBlockDiffusion``.

    Args:
        model: the loaded model, in eval mode.

    Attributes:
        hidden_size: width of the hidden states.
        device: of the weights.
        dtype: of the weights and hidden states.
        layouts: shape of each layer's keys and values.
    """

    def __init__(self, model: Any) -> None:
        encoder, decoder = model.model.encoder.language_model, model.model.decoder
        config = model.config.text_config
        self._encoder_layers = list(encoder.layers)
        self._decoder_layers = list(decoder.layers)
        self._types: list[str] = list(config.layer_types)
        self._window: int = config.sliding_window
        self._rotary = decoder.rotary_emb
        self._encoder_norm, self._decoder_norm = encoder.norm, decoder.norm
        self._embed = decoder.embed_tokens
        self._encoder_embed = encoder.embed_tokens
        self._self_conditioning = decoder.self_conditioning
        self._tied = all(
            a.self_attn.q_proj.weight is b.self_attn.q_proj.weight
            for a, b in zip(self._encoder_layers, self._decoder_layers, strict=True)
        )
        # These scalars are buffers and never tied, so the two modes may differ in them although they share weights.
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
        """The decoder's scaled token embeddings: int64 ``[tokens]`` -> ``[tokens, hidden]``."""
        embedded: Tensor = self._embed(ids)
        return embedded

    def embed_encoded(self, ids: Tensor) -> Tensor:
        """The encoder's scaled token embeddings: int64 ``[tokens]`` -> ``[tokens, hidden]``."""
        embedded: Tensor = self._encoder_embed(ids)
        return embedded

    def embed_canvas(self, ids: Tensor, soft: Tensor) -> Tensor:
        """Canvas embeddings with the self-conditioning signal of the last step.

        Args:
            ids: int64 ``[tokens]``.
            soft: ``[tokens, hidden]``, expected embeddings under the last step's distributions; zeros at the first
                step.

        Returns:
            ``[tokens, hidden]``.
        """
        padded = pad_rows(soft, row_multiple(soft.device))
        ids = F.pad(ids, (0, len(padded) - len(ids)))
        embedded: Tensor = self._self_conditioning(self._embed(ids), padded)
        return embedded[: len(soft)]

    def forward(self, hidden: Tensor, segments: Sequence[Segment], copies: Sequence[Copy] = ()) -> Tensor:
        """Take the flat batch through all layers, writing keys and values in place.

        Args:
            hidden: ``[tokens, hidden]``, embeddings of all segments, in their order.
            segments: causal segments first, then canvases.
            copies: keys and values to copy between sequences. A copy comes after the copies that fill its source.

        Returns:
            ``[outputs, hidden]``: normed last hidden states of the segments' wanted positions, in their order.
        """
        if self._tied or len({segment.causal for segment in segments}) == 1:
            return self._pass(hidden, segments, copies)
        # Encoder and decoder have weights of their own, so each takes a pass. A draft is encoded after the canvas at
        # its positions, everything else before the canvases.
        parts = hidden.split([segment.length for segment in segments])
        outputs: list[Tensor] = [hidden[:0]] * len(segments)
        for chosen in (
            [i for i, s in enumerate(segments) if s.causal and not s.shared],
            [i for i, s in enumerate(segments) if not s.causal],
            [i for i, s in enumerate(segments) if s.causal and s.shared],
        ):
            if chosen:
                group = [segments[i] for i in chosen]
                out = self._pass(torch.cat([parts[i] for i in chosen]), group, copies)
                copies = ()
                for i, part in zip(chosen, out.split([segment.outputs for segment in group]), strict=True):
                    outputs[i] = part
        return torch.cat(outputs)

    def _pass(self, hidden: Tensor, segments: Sequence[Segment], copies: Sequence[Copy]) -> Tensor:
        tokens = hidden.shape[0]
        causal_tokens = sum(segment.length for segment in segments if segment.causal)
        decoder = causal_tokens < tokens
        layers = self._decoder_layers if decoder else self._encoder_layers
        order, lengths = turns(segments), [segment.length for segment in segments]
        hidden = pad_rows(hidden, row_multiple(hidden.device))
        rotary, masks = self._positions(hidden, segments), Masks(segments, self._window)
        last = len(layers) - 1
        for index, layer in enumerate(layers):
            kind = self._types[index]
            normed = _rms_norm(layer.input_layernorm, hidden)
            keys, values = self._keys_values(layer.self_attn, normed, rotary[kind])
            new = list(zip(keys[:tokens].split(lengths), values[:tokens].split(lengths), strict=True))
            for segment, (own_keys, own_values) in zip(segments, new, strict=True):
                if not segment.shared:
                    segment.cache.write(index, segment.start, own_keys, own_values)
                if segment.branch is not None:
                    segment.branch.append((own_keys, own_values))
            for copy in copies:
                copy.into.copy_layer(index, copy.source, copy.start, copy.stop)
            if index == last and (outputs := sum(s.outputs for s in segments)) < tokens:
                # The other rows were needed for their keys and values only.
                if not outputs:
                    return hidden[:0]
                rows = output_rows(segments).to(hidden.device)
                multiple = row_multiple(hidden.device)
                hidden, normed, cos, sin = (pad_rows(x[rows], multiple) for x in (hidden, normed, *rotary[kind]))
                rotary[kind] = (cos, sin)
                masks = masks.of_outputs()
                tokens, causal_tokens = outputs, sum(s.outputs for s in segments if s.causal)
            views = masks.views(layer.self_attn.is_sliding)
            attended = self._attend(layer.self_attn, index, normed, rotary[kind], [(views[i], new[i]) for i in order])
            hidden = hidden + _rms_norm(layer.post_attention_layernorm, attended)
            hidden = self._feed_forward(layer, hidden)
            hidden = self._scale(hidden, index, causal_tokens)
        return _rms_norm(self._decoder_norm if decoder else self._encoder_norm, hidden[:tokens])

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
    def _attend(
        attention: Any,
        layer: int,
        normed: Tensor,
        rotary: tuple[Tensor, Tensor],
        turns: Sequence[tuple[View, tuple[Tensor, Tensor]]],
    ) -> Tensor:
        """Attention of all segments, in the order of ``turns``: their views, and the keys and values they write."""
        queries = attention.q_proj(normed).unflatten(-1, (-1, attention.head_dim))
        queries = _rotate(_rms_norm(attention.q_norm, queries), rotary)
        out = torch.zeros_like(queries)
        for view, (own_keys, own_values) in turns:
            segment = view.segment
            if segment.shared:
                segment.cache.write(layer, segment.start, own_keys, own_values)
            if view.rows:
                keys, values = segment.cache.read(layer, view.first_key, view.last_key)
                rows = slice(view.first_row, view.first_row + view.rows)
                out[rows] = attend(queries[rows], keys, values, view.mask(normed.device), attention.scaling)
        projected: Tensor = attention.o_proj(out.flatten(1))
        return projected

    @staticmethod
    def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:
        dense = layer.mlp(_rms_norm(layer.pre_feedforward_layernorm, hidden))
        dense = _rms_norm(layer.post_feedforward_layernorm_1, dense)
        _, weights, index = layer.router(hidden)
        sparse = mix_experts(layer.experts, _rms_norm(layer.pre_feedforward_layernorm_2, hidden), index, weights)
        both = dense + _rms_norm(layer.post_feedforward_layernorm_2, sparse)
        return hidden + _rms_norm(layer.post_feedforward_layernorm, both)

    def _scale(self, hidden: Tensor, layer: int, causal_tokens: int) -> Tensor:
        encoder, decoder = self._encoder_scalars[layer], self._decoder_scalars[layer]
        if encoder == decoder:
            return hidden if encoder == 1.0 else hidden * encoder
        hidden[:causal_tokens] *= encoder
        hidden[causal_tokens:] *= decoder
        return hidden


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    weight = norm.weight if norm.with_scale else None
    return F.rms_norm(x, x.shape[-1:], weight, norm.eps)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
