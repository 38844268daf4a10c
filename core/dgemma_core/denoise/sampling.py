"""The entropy-bound sampler and the stopping rule, as pure functions of tensors.

Sources: the entropy bound is from "Accelerated sampling from masked diffusion models via entropy bounded unmasking"
(https://arxiv.org/abs/2505.24857); the temperature schedule and the stopping rule are those of transformers'
``EntropyBoundSampler``, ``LinearTemperatureScheduleLogitsProcessor`` and ``StableAndConfidentStoppingCriteria``, which
the reference tests replay step by step.
"""

from __future__ import annotations

import torch
from torch import Tensor


def temperature(step: int, max_steps: int, t_min: float, t_max: float) -> float:
    """Temperature of denoising step ``step`` (0-based), falling linearly from ``t_max`` towards ``t_min``."""
    return t_min + (t_max - t_min) * ((max_steps - step) / max_steps)


def entropy_bound_mask(entropy: Tensor, bound: float) -> Tensor:
    """Which positions of a canvas are accepted.

    Positions are taken from the surest on, while the entropies of those surer than the candidate sum to no more than
    ``bound``; that sum bounds the mutual information between the accepted positions.

    Args:
        entropy: nats, ``[..., canvas]``.
        bound: nats.

    Returns:
        bool, ``[..., canvas]``; at least one position is always accepted.
    """
    ordered, order = torch.sort(entropy, dim=-1)
    chosen = ordered.cumsum(dim=-1) - ordered <= bound
    return torch.zeros_like(chosen).scatter_(-1, order, chosen)


def renoise(sample: Tensor, noise: Tensor, accepted: Tensor) -> Tensor:
    """The next canvas: sampled tokens where accepted, uniform noise elsewhere. All ``[..., canvas]``."""
    return torch.where(accepted, sample, noise)


def first_end(tokens: Tensor, end_ids: Tensor) -> int:
    """Index of the first end token in ``tokens`` ``[canvas]``, or ``len(tokens)`` when there is none."""
    hits = torch.isin(tokens, end_ids).nonzero()
    return int(hits[0, 0]) if len(hits) else len(tokens)


def inverse_cdf_sample(weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw one index per row from unnormalised ``weights``.

    Two levels (blocks, then inside one block) instead of one cumulative sum over the vocabulary: the block sums are
    wanted for the normaliser anyway and the second level touches one block per row.

    Args:
        weights: float32, ``[rows, vocab]``, non-negative.
        uniform: float32 in [0, 1), ``[rows]``.

    Returns:
        int64, ``[rows]``.
    """
    rows, vocab = weights.shape
    block = block_size(vocab)
    blocks = weights.view(rows, vocab // block, block)
    return sample_in_blocks(blocks, blocks.sum(-1), uniform)


def block_size(vocab: int) -> int:
    """Width of the sampler's blocks: a power of two up to 1024 that divides the vocabulary, else all of it."""
    for size in (1024, 512, 256, 128, 64):
        if vocab % size == 0:
            return size
    return vocab


def sample_in_blocks(blocks: Tensor, sums: Tensor, uniform: Tensor) -> Tensor:
    """:func:`inverse_cdf_sample` for weights already viewed ``[rows, blocks, width]`` with their ``sums``."""
    width = blocks.shape[-1]
    cumulative = sums.cumsum(-1)
    target = uniform.unsqueeze(-1) * cumulative[:, -1:]
    which = torch.searchsorted(cumulative, target, right=True).clamp_(max=sums.shape[-1] - 1)
    before = cumulative.gather(-1, which) - sums.gather(-1, which)
    inner = blocks.gather(1, which.unsqueeze(-1).expand(-1, 1, width)).squeeze(1).cumsum(-1)
    # Rounding can leave the target a hair outside its block; the clamps keep the index inside it.
    inside = torch.searchsorted(inner, (target - before).clamp_(min=0.0), right=True).clamp_(max=width - 1)
    return (which * width + inside).squeeze(-1)
