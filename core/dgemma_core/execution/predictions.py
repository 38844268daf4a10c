"""Hidden states of the causal mode -> the next tokens, in chunks of rows.

The logits of a chunk stay in the processor's cache while its tokens are chosen. The whole ``[rows, vocabulary]`` matrix
never exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_core.denoise.sampling_rule import choose
from dgemma_core.execution.backend import Logprobs, Predict, Prediction
from dgemma_core.execution.readout import Readout


def predict(readout: Readout, hidden: Sequence[Tensor], wanted: Sequence[Predict]) -> list[Prediction]:
    """The next tokens of several segments.

    Args:
        readout: the output head.
        hidden: per segment ``[rows, hidden]``, normed hidden states of the tokens before the predicted ones.
        wanted: what to predict, per segment.

    Returns:
        The predictions, on the host.
    """
    rows = torch.cat(list(hidden))
    sizes = [part.rows for part in wanted]
    rules = [part.rule for part in wanted for _ in range(part.rows)]
    uniform = torch.cat([part.uniform for part in wanted]).to(rows.device)
    alternatives = [part.logprobs for part in wanted if part.logprobs is not None]
    most = max(alternatives, default=None)
    tokens, logprobs = [], []
    ordered = most is None and all(part.rule.greedy for part in wanted)
    for start, stop in readout.chunks(len(rows)):
        part_of_rows = rows[start:stop]
        logits = readout.raw_logits(part_of_rows) if ordered else readout.causal_logits(part_of_rows)
        allowed = _allowed(wanted, sizes, start, stop, logits)
        permitted = logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
        tokens.append(choose(permitted, rules[start:stop], uniform[start:stop]))
        if most is not None:
            logprobs.append(_logprobs(logits, tokens[-1], most))
    chosen = torch.cat(tokens).cpu().split(sizes)
    if most is None:
        return [Prediction(part) for part in chosen]
    parts = [torch.cat(part).cpu().split(sizes) for part in zip(*logprobs, strict=True)]
    return [
        Prediction(token, None if p.logprobs is None else Logprobs(own, top[:, : p.logprobs], best[:, : p.logprobs]))
        for p, token, own, top, best in zip(wanted, chosen, *parts, strict=True)
    ]


def _allowed(wanted: Sequence[Predict], sizes: Sequence[int], start: int, stop: int, logits: Tensor) -> Tensor | None:
    """The tokens that may be chosen in the rows of a chunk: bool ``[stop - start, vocab]``, or None for all."""
    if all(part.allowed is None and not part.banned for part in wanted):
        return None
    allowed = torch.ones(logits.shape, dtype=torch.bool)
    first = 0
    for part, size in zip(wanted, sizes, strict=True):
        low, high = max(first, start), min(first + size, stop)
        if low < high:
            rows = slice(low - start, high - start)
            if part.allowed is not None:
                allowed[rows] = part.allowed[low - first : high - first]
            if part.banned:
                allowed[rows, list(part.banned)] = False
        first += size
    return allowed.to(logits.device)


def _logprobs(logits: Tensor, tokens: Tensor, alternatives: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the chosen tokens, and the likeliest tokens with theirs."""
    normed = logits.log_softmax(-1)
    best = normed.topk(alternatives, dim=-1)
    return normed.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), best.indices, best.values
