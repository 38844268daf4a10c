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

from dgemma_core.execution.attention import Reader, attend, readers, readers_of_outputs
from dgemma_core.execution.kv_cache import KVLayout
from dgemma_core.execution.layers import Layer, rms_norm, signed
from dgemma_core.execution.row_padding import pad_rows, row_multiple
from dgemma_core.execution.segments import Copy, Segment, output_rows


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
        self._types: list[str] = list(config.layer_types)
        self._window: int = config.sliding_window
        self._rotary = decoder.rotary_emb
        self._encoder_norm, self._decoder_norm = encoder.norm, decoder.norm
        self._embed = decoder.embed_tokens
        self._encoder_embed = encoder.embed_tokens
        self._self_conditioning = decoder.self_conditioning
        self._tied = all(
            a.self_attn.q_proj.weight is b.self_attn.q_proj.weight
            for a, b in zip(encoder.layers, decoder.layers, strict=True)
        )
        self._decoder_layers = [Layer(module) for module in decoder.layers]
        self._encoder_layers = self._decoder_layers if self._tied else [Layer(module) for module in encoder.layers]
        # These scalars are buffers and never tied, so the two modes may differ in them although they share weights.
        scalars = [
            torch.tensor([float(layer.layer_scalar) for layer in layers], dtype=self._embed.weight.dtype)
            for layers in (encoder.layers, decoder.layers)
        ]
        self._layer_scalars: tuple[Tensor, Tensor] | None = None
        if any(bool((mode != 1).any()) for mode in scalars):
            of_encoder, of_decoder = (mode.unsqueeze(-1).to(self._embed.weight.device) for mode in scalars)
            self._layer_scalars = (of_encoder, of_decoder)
        self.hidden_size: int = config.hidden_size
        self.device: torch.device = self._embed.weight.device
        self.dtype: torch.dtype = self._embed.weight.dtype
        self.layouts = [KVLayout(layer.kv_heads, layer.head_dim) for layer in self._decoder_layers]

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
            segments: in the order of the flat batch. Those that share their positions stand together.
            copies: keys and values to copy between sequences. A copy comes after the copies that fill its source.

        Returns:
            ``[outputs, hidden]``: normed last hidden states of the segments' wanted positions, in their order.
        """
        if self._tied or len({segment.causal for segment in segments}) == 1:
            return self._pass(hidden, segments, copies)
        # Encoder and decoder have weights of their own, so each takes a pass.
        parts = hidden.split([segment.length for segment in segments])
        outputs: list[Tensor] = [hidden[:0]] * len(segments)
        for causal in (True, False):
            chosen = [i for i, segment in enumerate(segments) if segment.causal == causal]
            group = [segments[i] for i in chosen]
            out = self._pass(torch.cat([parts[i] for i in chosen]), group, copies if causal else ())
            for i, part in zip(chosen, out.split([segment.outputs for segment in group]), strict=True):
                outputs[i] = part
        return torch.cat(outputs)

    def _pass(self, hidden: Tensor, segments: Sequence[Segment], copies: Sequence[Copy]) -> Tensor:
        tokens, multiple = hidden.shape[0], row_multiple(hidden.device)
        layers = self._encoder_layers if all(segment.causal for segment in segments) else self._decoder_layers
        lengths = [segment.length for segment in segments]
        scalars = self._scalars(segments, lengths)
        hidden = pad_rows(hidden, multiple)
        rotary, reading = self._positions(hidden, segments), readers(segments)
        last = len(layers) - 1
        for index, layer in enumerate(layers):
            kind = self._types[index]
            queries, keys, values = layer.queries_keys_values(hidden, rotary[kind])
            own = zip(segments, keys[:tokens].split(lengths), values[:tokens].split(lengths), strict=True)
            for segment, own_keys, own_values in own:
                segment.cache.write(index, segment.place, own_keys, own_values)
                if segment.branch is not None:
                    segment.branch.append((own_keys, own_values))
            for copy in copies:
                copy.into.copy_layer(index, copy.source, copy.start, copy.stop)
            if index == last and (outputs := sum(s.outputs for s in segments)) < tokens:
                # The other rows were needed for their keys and values only.
                if not outputs:
                    return hidden[:0]
                rows = output_rows(segments).to(hidden.device)
                hidden, queries = (pad_rows(x[rows], multiple) for x in (hidden, queries))
                reading = readers_of_outputs(reading)
                tokens, scalars = outputs, self._scalars(segments, [s.outputs for s in segments])
            attended = self._attend(layer, index, queries, reading)
            hidden = layer.after_attention(hidden, attended.flatten(1), tokens)
            if scalars is not None:
                hidden[:tokens] *= scalars[index]
        return rms_norm(self._encoder_norm if layers is self._encoder_layers else self._decoder_norm, hidden[:tokens])

    def _scalars(self, segments: Sequence[Segment], counts: Sequence[int]) -> Tensor | None:
        """Each layer's scalar for each row of a flat batch: ``[layers, rows, 1]``. None if all are 1."""
        if self._layer_scalars is None:
            return None
        causal = torch.tensor([s.causal for s in segments]).repeat_interleave(torch.tensor(counts))
        encoder, decoder = self._layer_scalars
        return torch.where(causal.to(encoder.device), encoder, decoder).unsqueeze(-1)

    def _positions(self, hidden: Tensor, segments: Sequence[Segment]) -> dict[str, tuple[Tensor, Tensor]]:
        ids = torch.cat([torch.arange(s.start, s.start + s.length) for s in segments])
        ids = F.pad(ids, (0, hidden.shape[0] - len(ids))).to(hidden.device)
        rotary = {}
        for kind in set(self._types):
            cos, sin = self._rotary(hidden, ids[None], kind)
            rotary[kind] = (cos[0].unsqueeze(1), signed(sin[0].unsqueeze(1)))
        return rotary

    def _attend(self, layer: Layer, index: int, queries: Tensor, reading: Sequence[Reader]) -> Tensor:
        """Attention of all readers: ``[tokens, heads, head_dim]`` each."""
        window, scale = self._window if layer.attention.is_sliding else None, layer.attention.scaling
        out = torch.zeros_like(queries) if len(reading) > 1 else None
        for reader in reading:
            keys, values = reader.cache.read(index, *reader.keys(window))
            bias = reader.bias(window, queries.shape[1] // layer.kv_heads, queries)
            first, stop = reader.first_row, reader.first_row + reader.rows
            attended = attend(queries[first:], keys, values, bias, scale, reader.rows)
            if out is None:
                # The rows after the only reader's are padding.
                out = attended if len(attended) == len(queries) else pad_rows(attended[: reader.rows], len(queries))
            else:
                out[first:stop] = attended[: reader.rows]
        assert out is not None, "a pass has segments"
        return out
