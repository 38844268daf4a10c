"""A second backend, for tests: float64, one sequence at a time, from the formulas, and in no way fast.

It keeps no keys and values of encoded tokens. A slot holds their ids and images, and every step computes all earlier
positions again. Keys and values are kept of canvases only, because frozen positions are attended to as the last step
that computed them left them.

It shares no code with ``dgemma_core.execution`` but the types of a step. Of transformers it takes the weights, the
activation functions and the vision tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dgemma_core.execution.backend import (
    CanvasResult,
    CanvasSegment,
    ImageInput,
    Slot,
    Step,
    StepResult,
)

KeysValues = list[tuple[Tensor, Tensor]]
"""Per layer float64 ``[positions, kv_heads, head_dim]`` keys and values."""


@dataclass
class SlotState:
    """What a slot holds.

    Attributes:
        tokens: ids of encoded tokens, by position.
        images: of encoded tokens.
        canvas: keys and values of the canvas as it was last computed; NaN where it never was.
        canvas_place: its start and length.
        soft: ``[canvas, hidden]`` expected embeddings; NaN where no step has given a distribution.
        hidden: ``[canvas, hidden]`` normed hidden states of the last guided step; NaN where there are none.
    """

    tokens: dict[int, int] = field(default_factory=dict)
    images: dict[int, ImageInput] = field(default_factory=dict)
    canvas: KeysValues = field(default_factory=list)
    canvas_place: tuple[int, int] | None = None
    soft: Tensor = field(default_factory=lambda: torch.empty(0))
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))

    def prefix(self, stop: int) -> list[int]:
        """The tokens before ``stop``, all of which must be encoded."""
        return [self.tokens[position] for position in range(stop)]

    def take(self, other: SlotState, start: int, stop: int) -> None:
        """Take over positions ``[start, stop)``."""
        assert self.prefix(start) == other.prefix(start), "only what follows equal tokens has equal keys and values"
        self.tokens |= {position: other.tokens[position] for position in range(start, stop)}
        self.images |= {position: image for position, image in other.images.items() if start <= position < stop}


class ReferenceBackend:
    """A :class:`~dgemma_core.execution.backend.Backend` that computes as plainly as possible.

    Args:
        model: a ``DiffusionGemmaForBlockDiffusion`` in eval mode; it stays as it is.

    Attributes:
        probabilities: float64 ``[active, vocab]`` of the last step's canvases; None where a guide only reads.
    """

    on_cpu = True

    def __init__(self, model: Any) -> None:
        self._image_features = model.model.encoder.get_image_features
        model = deepcopy(model).double()
        config = model.config.text_config
        self._decoder, self._encoder = model.model.decoder, model.model.encoder.language_model
        self._top_k = config.top_k_experts
        self._softcap = config.final_logit_softcapping
        self._images_see_themselves = config.use_bidirectional_attention == "vision"
        self._layers = [LayerMaths(layer, config, self._decoder.rotary_emb) for layer in self._decoder.layers]
        self._encoder_scalars = [layer.layer_scalar for layer in self._encoder.layers]
        self._decoder_scalars = [layer.layer_scalar for layer in self._decoder.layers]
        self._embedding = self._decoder.embed_tokens.weight
        self._embed_scale = self._decoder.embed_tokens.embed_scale
        self.vocab_size: int = config.vocab_size
        self.slots: dict[Slot, SlotState] = {}
        self._opened = 1000  # Other names than any other backend's.
        self.probabilities: tuple[Tensor | None, ...] = ()

    def open(self, capacity: int) -> Slot:
        self._opened += 1
        self.slots[self._opened] = SlotState()
        return self._opened

    def close(self, slot: Slot) -> None:
        del self.slots[slot]

    def fork_prefix(self, source: Slot, into: Slot, length: int) -> None:
        self.slots[into].take(self.slots[source], 0, length)

    def slot_bytes(self, capacity: int) -> int:
        return 8 * capacity

    def free_unused(self) -> None:
        pass

    def run(self, step: Step) -> StepResult:
        for segment in step.encode:
            state = self.slots[segment.slot]
            state.tokens |= dict(enumerate(segment.tokens.tolist(), segment.start))
            state.images |= {image.start: image for image in segment.images}
        for copy in step.copies:
            self.slots[copy.into].take(self.slots[copy.source], copy.start, copy.stop)
        denoised = [self._denoise(canvas) for canvas in step.canvases]
        self.probabilities = tuple(probabilities for _, probabilities in denoised)
        return StepResult(tuple(result for result, _ in denoised))

    def logits(self, slot: Slot, start: int, stop: int, temperature: float) -> Tensor:
        return (self._logits(self.slots[slot].hidden[start:stop]) / temperature).float()

    def label_logits(self, slot: Slot, positions: Sequence[int], labels: Sequence[Sequence[int]]) -> list[Tensor]:
        rows = self._logits(self.slots[slot].hidden[list(positions)])
        return [row[list(ids)].float() for row, ids in zip(rows, labels, strict=True)]

    def _denoise(self, canvas: CanvasSegment) -> tuple[CanvasResult | None, Tensor | None]:
        state = self.slots[canvas.slot]
        prefix = self._encode(state, canvas.start)
        if state.canvas_place != (canvas.start, canvas.length):
            state.canvas_place = (canvas.start, canvas.length)
            nan = torch.full((canvas.length, len(self._embedding[0])), torch.nan, dtype=torch.float64)
            state.soft, state.hidden = nan, nan.clone()
            state.canvas = [
                (
                    k.new_full((canvas.length, *k.shape[1:]), torch.nan),
                    v.new_full((canvas.length, *v.shape[1:]), torch.nan),
                )
                for k, v in prefix
            ]
        hidden = self._self_conditioned(canvas, state.soft)
        positions = torch.arange(canvas.start, canvas.start + canvas.active)
        for index, layer in enumerate(self._layers):
            keys, values = layer.keys_values(hidden, positions)
            for kept, new in zip(state.canvas[index], (keys, values), strict=True):
                kept[: canvas.active] = new
            keys, values = (torch.cat(both) for both in zip(prefix[index], state.canvas[index], strict=True))
            # A canvas sees all of itself, and of what is before it the window that its first position has.
            visible = torch.ones(canvas.active, len(keys), dtype=torch.bool)
            if layer.window is not None:
                visible[:, : max(0, canvas.start - layer.window + 1)] = False
            hidden = layer.forward(hidden, positions, keys, values, visible) * self._decoder_scalars[index]
        hidden = rms_norm(self._decoder.norm, hidden)
        if canvas.guided:
            where = list(range(canvas.active)) if canvas.reads is None else list(canvas.reads)
            state.hidden[where] = hidden[where]
        return (None, None) if canvas.reads is not None else self._sampled(canvas, state, hidden)

    def _sampled(self, canvas: CanvasSegment, state: SlotState, hidden: Tensor) -> tuple[CanvasResult, Tensor]:
        logits = self._logits(hidden) / canvas.temperature
        logits[:, list(canvas.banned)] = -1e300
        log_probabilities = logits - logits.logsumexp(-1, keepdim=True)
        probabilities = log_probabilities.exp()
        state.soft[: canvas.active] = probabilities @ self._embedding * self._embed_scale
        below = probabilities.cumsum(-1) <= canvas.uniform.double()[:, None]
        result = CanvasResult(
            argmax=logits.argmax(-1),
            sample=below.sum(-1).clamp(max=self.vocab_size - 1),
            entropy=-(probabilities * log_probabilities).sum(-1).float(),
        )
        return result, probabilities

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._softcap * torch.tanh(hidden @ self._embedding.T / self._softcap)

    def _self_conditioned(self, canvas: CanvasSegment, soft: Tensor) -> Tensor:
        own = self._embedding[canvas.tokens] * self._embed_scale
        signal = soft[: canvas.active].clone()
        signal[canvas.unconditioned] = 0.0
        signal[canvas.pinned] = own[canvas.pinned]
        module = self._decoder.self_conditioning
        return rms_norm(module.post_norm, own + gated(module, rms_norm(module.pre_norm, signal)))

    def _encode(self, state: SlotState, stop: int) -> KeysValues:
        """Keys and values of the encoded tokens before ``stop``."""
        ids, positions = torch.tensor(state.prefix(stop), dtype=torch.long), torch.arange(stop)
        hidden = self._embedding[ids] * self._embed_scale
        blocks = torch.zeros(stop, stop, dtype=torch.bool)
        for start, image in state.images.items():
            if image.stop <= stop:
                features = self._image_features(image.patches[None], image.positions[None], return_dict=True)
                hidden[start : image.stop] = features.pooler_output.double().view(image.length, -1)
                blocks[start : image.stop, start : image.stop] = self._images_see_themselves
        found: KeysValues = []
        for index, layer in enumerate(self._layers):
            found.append(layer.keys_values(hidden, positions))
            visible = positions[None] <= positions[:, None]
            if layer.window is not None:
                visible &= positions[None] > positions[:, None] - layer.window
            hidden = layer.forward(hidden, positions, *found[-1], visible | blocks) * self._encoder_scalars[index]
        return found


class LayerMaths:
    """The formulas of one layer, without its scalar."""

    def __init__(self, layer: Any, config: Any, rotary: Any) -> None:
        self._layer, self._attention = layer, layer.self_attn
        self._top_k: int = config.top_k_experts
        self.window: int | None = config.sliding_window if self._attention.is_sliding else None
        kind = "sliding_attention" if self._attention.is_sliding else "full_attention"
        self._frequencies: Tensor = getattr(rotary, f"{kind}_inv_freq")

    def keys_values(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """``[tokens, kv_heads, head_dim]`` each of ``[tokens, hidden]``."""
        attention, normed = self._attention, rms_norm(self._layer.input_layernorm, hidden)
        keys = self._heads(normed @ attention.k_proj.weight.T)
        values = keys if attention.v_proj is None else self._heads(normed @ attention.v_proj.weight.T)
        return self._rotate(rms_norm(attention.k_norm, keys), positions), rms_norm(attention.v_norm, values)

    def forward(self, hidden: Tensor, positions: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
        """The layer's output ``[tokens, hidden]``; ``visible`` is bool ``[tokens, keys]``."""
        layer, attention = self._layer, self._attention
        queries = self._heads(rms_norm(layer.input_layernorm, hidden) @ attention.q_proj.weight.T)
        queries = self._rotate(rms_norm(attention.q_norm, queries), positions)
        group = queries.shape[1] // keys.shape[1]
        heads = []
        for head in range(queries.shape[1]):
            scores = queries[:, head] @ keys[:, head // group].T * attention.scaling
            shares = scores.masked_fill(~visible, -torch.inf).softmax(-1)
            heads.append(shares @ values[:, head // group])
        attended = torch.cat(heads, -1) @ attention.o_proj.weight.T
        hidden = hidden + rms_norm(layer.post_attention_layernorm, attended)
        dense = gated(layer.mlp, rms_norm(layer.pre_feedforward_layernorm, hidden))
        both = rms_norm(layer.post_feedforward_layernorm_1, dense)
        both = both + rms_norm(layer.post_feedforward_layernorm_2, self._mixed(hidden))
        return hidden + rms_norm(layer.post_feedforward_layernorm, both)

    def _mixed(self, hidden: Tensor) -> Tensor:
        """Every expert computes every token; the router's share is 0 for those that it has not chosen."""
        router, experts = self._layer.router, self._layer.experts
        scaled = rms_norm(router.norm, hidden) * router.scale * hidden.shape[-1] ** -0.5
        chances, chosen = (scaled @ router.proj.weight.T).softmax(-1).topk(self._top_k)
        shares = torch.zeros(len(hidden), experts.num_experts, dtype=torch.float64)
        shares.scatter_(1, chosen, chances / chances.sum(-1, keepdim=True))
        shares *= router.per_expert_scale
        normed = rms_norm(self._layer.pre_feedforward_layernorm_2, hidden)
        out = torch.zeros_like(hidden)
        for expert in range(experts.num_experts):
            gate, up = (normed @ experts.gate_up_proj[expert].T).chunk(2, -1)
            out += shares[:, expert, None] * ((experts.act_fn(gate) * up) @ experts.down_proj[expert].T)
        return out

    def _heads(self, flat: Tensor) -> Tensor:
        return flat.view(len(flat), -1, self._attention.head_dim)

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        angles = positions.double()[:, None, None] * self._frequencies
        first, second = x.chunk(2, -1)
        turned = (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin())
        return torch.cat(turned, -1)


def rms_norm(norm: Any, x: Tensor) -> Tensor:
    """Root mean square norm over the last dimension."""
    normed = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return normed * norm.weight if norm.with_scale else normed


def gated(module: Any, x: Tensor) -> Tensor:
    """A feed-forward block with a gate."""
    up = module.act_fn(x @ module.gate_proj.weight.T) * (x @ module.up_proj.weight.T)
    return up @ module.down_proj.weight.T
