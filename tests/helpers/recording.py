"""transformers' own ``generate``, recorded step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from dgemma_core.denoise.sampling import inverse_cdf_sample

SEED = 7


@dataclass
class Step:
    """One recorded denoising step; all tensors of batch row 0."""

    canvas: Tensor
    conditioned_on: Tensor | None
    processed_logits: Tensor
    argmax: Tensor
    accepted: Tensor
    stopped: bool


@dataclass
class Recording:
    """What ``generate`` did."""

    steps: list[Step] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


def record(model: Any, prompt: list[int], monkeypatch: pytest.MonkeyPatch, **inputs: Tensor) -> Recording:
    """Run ``generate`` with the random draws our engine makes for SEED.

    ``inputs`` are given to it beside the prompt.
    """
    recording = Recording()
    generator = torch.Generator().manual_seed(SEED)
    step = model._denoising_step

    def multinomial(probabilities: Tensor, num_samples: int) -> Tensor:
        uniform = torch.rand(len(probabilities), generator=generator)
        return inverse_cdf_sample(probabilities, uniform).unsqueeze(-1)

    randint = torch.randint

    def shared_randint(low: int, high: int, size: tuple[int, ...], device: Any = None) -> Tensor:
        return randint(low, high, size, generator=generator)

    def recorded(**arguments: Any) -> Any:
        canvas, conditioned_on = arguments["current_canvas"].clone(), arguments["self_conditioning_logits"]
        out = step(**arguments)
        recording.steps.append(
            Step(
                canvas[0],
                None if conditioned_on is None else conditioned_on[0].clone(),
                out[2][0].clone(),
                out[1][0].clone(),
                arguments["sampler"].accepted_token_mask[0].clone(),
                bool(out[3][0]),
            )
        )
        return out

    with monkeypatch.context() as patch:
        patch.setattr(torch, "multinomial", multinomial)
        patch.setattr(torch, "randint", shared_randint)
        patch.setattr(model, "_denoising_step", recorded, raising=False)
        out = model.generate(input_ids=torch.tensor([prompt]), **inputs)
    recording.tokens = out.sequences[0, len(prompt) :].tolist()
    return recording
