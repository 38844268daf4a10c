"""How a token is chosen from a causal distribution: temperature, top-k, top-p and min-p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_core.denoise.sampling import inverse_cdf_sample


@dataclass(frozen=True)
class SamplingRule:
    """How a token is chosen. The filters apply in the order of transformers: temperature, top-k, top-p, min-p.

    Attributes:
        temperature: divisor of the logits; 0 chooses the likeliest token, and the filters then change nothing.
        top_k: only this many of the likeliest tokens may be chosen; None for all.
        top_p: only the likeliest tokens up to this probability together (https://arxiv.org/abs/1904.09751); None for
            all. The token that reaches it is among them.
        min_p: only tokens of at least this share of the likeliest one's probability
            (https://arxiv.org/abs/2407.01082); None for all.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is chosen."""
        return self.temperature == 0


GREEDY = SamplingRule()


def probabilities(logits: Tensor, rules: Sequence[SamplingRule]) -> Tensor:
    """The distributions that tokens are drawn from.

    Args:
        logits: float32 ``[rows, vocab]``, soft-capped; ``-inf`` for tokens that must not be chosen.
        rules: one per row, none of them greedy.

    Returns:
        float32 ``[rows, vocab]``. Every row sums to 1.
    """
    device, vocab = logits.device, logits.shape[-1]

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=device).unsqueeze(-1)

    scaled = logits / column([rule.temperature for rule in rules])
    if any(rule.top_k or rule.top_p is not None for rule in rules):
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(vocab, device=device)
        kept = rank < column([min(rule.top_k or vocab, vocab) for rule in rules])
        # The probability of all likelier tokens, among those that top-k keeps.
        chances = ordered.masked_fill(~kept, -torch.inf).softmax(-1)
        before = chances.cumsum(-1) - chances
        kept &= before < column([2.0 if rule.top_p is None else rule.top_p for rule in rules])
        kept[:, 0] = True
        scaled = scaled.masked_fill(~torch.zeros_like(kept).scatter_(-1, order, kept), -torch.inf)
    chances = scaled.softmax(-1)
    if any(rule.min_p for rule in rules):
        least = column([rule.min_p or 0.0 for rule in rules]) * chances.amax(-1, keepdim=True)
        chances = chances.masked_fill(chances < least, 0.0)
        chances = chances / chances.sum(-1, keepdim=True)
    return chances


def choose(logits: Tensor, rules: Sequence[SamplingRule], uniform: Tensor) -> Tensor:
    """One token per row.

    A drafted token is accepted if it is the one chosen here. That is rejection sampling with a draft that is certain
    (https://arxiv.org/abs/2211.17192): the draft is accepted with its probability, and otherwise the token is drawn
    from the rest. A draft so never changes the text.

    Args:
        logits: float32 ``[rows, vocab]``, soft-capped; ``-inf`` for tokens that must not be chosen.
        rules: one per row.
        uniform: float32 ``[rows]`` in [0, 1), random draws. Greedy rows ignore them.

    Returns:
        int64 ``[rows]``.
    """
    tokens = logits.argmax(-1)
    drawn = [row for row, rule in enumerate(rules) if not rule.greedy]
    if drawn:
        chances = probabilities(logits[drawn], [rules[row] for row in drawn])
        sample = inverse_cdf_sample(chances, uniform[drawn])
        # Rounding at the end of the cumulative sum may hit a token that must not be chosen.
        possible = chances.gather(-1, sample.unsqueeze(-1)).squeeze(-1) > 0
        tokens[drawn] = torch.where(possible, sample, tokens[drawn])
    return tokens
