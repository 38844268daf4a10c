"""The entropy-bound sampler and the stopping rule, as pure functions of tensors.

The entropy bound is from "Accelerated sampling from masked diffusion models via entropy bounded unmasking"
(https://arxiv.org/abs/2505.24857). Sampler, temperature schedule and stopping rule are those of transformers'
``EntropyBoundSampler``, ``LinearTemperatureScheduleLogitsProcessor`` and ``StableAndConfidentStoppingCriteria``. The
reference tests replay them step by step.
"""

from __future__ import annotations

import torch
from torch import Tensor


def temperature(step: int, max_steps: int, t_min: float, t_max: float) -> float:
    """Temperature of denoising step ``step``, counted from 0.

    It falls linearly from ``t_max`` at step 0 and would reach ``t_min`` at step ``max_steps``, one after the last.
    """
    return t_min + (t_max - t_min) * ((max_steps - step) / max_steps)


def entropy_bound_mask(entropy: Tensor, bound: float) -> Tensor:
    """Which positions of a canvas are accepted (https://arxiv.org/abs/2505.24857).

    A position is accepted if the entropies of all surer positions sum to at most ``bound``. The sum bounds the mutual
    information between the accepted positions.

    Args:
        entropy: nats, ``[..., canvas]``.
        bound: nats.

    Returns:
        bool, ``[..., canvas]``; the surest position is always accepted.
    """
    ordered, order = torch.sort(entropy, dim=-1)
    chosen = ordered.cumsum(dim=-1) - ordered <= bound
    return torch.zeros_like(chosen).scatter_(-1, order, chosen)


def renoise(sample: Tensor, noise: Tensor, accepted: Tensor) -> Tensor:
    """The next canvas: sampled tokens where accepted, uniform noise elsewhere.

    Args:
        sample: int64, ``[..., canvas]``.
        noise: int64, ``[..., canvas]``.
        accepted: bool, ``[..., canvas]``.

    Returns:
        int64, ``[..., canvas]``.
    """
    return torch.where(accepted, sample, noise)


def first_end(tokens: Tensor, end_ids: Tensor) -> int:
    """Index of the first end token in ``tokens`` ``[canvas]``, or ``len(tokens)`` when there is none."""
    hits = torch.isin(tokens, end_ids).nonzero()
    return int(hits[0, 0]) if len(hits) else len(tokens)


def inverse_cdf_sample(weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw one index per row from unnormalised ``weights``, by inverse transform sampling.

    The draw picks a block first, then an index in the block. This saves a cumulative sum over the vocabulary: the
    normaliser needs the block sums anyway, and the second level reads one block per row.

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
    """:func:`inverse_cdf_sample` for weights that are already in blocks.

    Args:
        blocks: float32, ``[rows, blocks, width]``, non-negative.
        sums: float32, ``[rows, blocks]``, the sum of each block.
        uniform: float32 in [0, 1), ``[rows]``.

    Returns:
        int64, ``[rows]``, indices into the flat row.
    """
    width = blocks.shape[-1]
    cumulative = sums.cumsum(-1)
    target = uniform.unsqueeze(-1) * cumulative[:, -1:]
    which = torch.searchsorted(cumulative, target, right=True).clamp_(max=sums.shape[-1] - 1)
    before = cumulative.gather(-1, which) - sums.gather(-1, which)
    inner = blocks.gather(1, which.unsqueeze(-1).expand(-1, 1, width)).squeeze(1).cumsum(-1)
    # Rounding can put the target a little outside its block. The clamps keep the index inside.
    inside = torch.searchsorted(inner, (target - before).clamp_(min=0.0), right=True).clamp_(max=width - 1)
    return (which * width + inside).squeeze(-1)
