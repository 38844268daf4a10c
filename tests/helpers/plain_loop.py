"""The causal mode, one token at a time, over transformers' own modules and without a cache."""

from __future__ import annotations

from typing import Any

import torch


def typed(model: Any, prompt: list[int], length: int, **inputs: Any) -> list[int]:
    """Greedy tokens up to an end token.

    Args:
        model: a ``DiffusionGemmaForBlockDiffusion``.
        prompt: token ids.
        length: tokens at most.
        inputs: of the encoder, beside the token ids: images.
    """
    tokens = list(prompt)
    with torch.inference_mode():
        while len(tokens) < len(prompt) + length:
            if inputs:
                inputs |= _masks(model, len(tokens), inputs["mm_token_type_ids"])
            hidden = model.model.encoder(input_ids=torch.tensor([tokens]), **inputs).last_hidden_state[:, -1]
            token = int(model.lm_head(hidden).argmax())
            if token in model.generation_config.eos_token_id:
                break
            tokens.append(token)
    return tokens[len(prompt) :]


def _masks(model: Any, count: int, kinds: torch.Tensor) -> dict[str, Any]:
    """What lets the tokens of an image see each other."""
    kinds, positions = torch.nn.functional.pad(kinds, (0, count - kinds.shape[1])), torch.arange(count)[None]
    masks = model.model.encoder.create_masks_for_generate(
        config=model.config,
        inputs_embeds=torch.empty(1, count, 0),
        attention_mask=torch.ones(1, count, dtype=torch.bool),
        past_key_values=None,
        position_ids=positions,
        mm_token_type_ids=kinds,
    )
    return {"attention_mask": masks, "position_ids": positions, "mm_token_type_ids": kinds}
