"""How a token is chosen from its distribution, beside plain formulas."""

from __future__ import annotations

import pytest
import torch
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from dgemma_core.denoise.sampling_rule import SamplingRule, choose, probabilities

RULES = [
    SamplingRule(0.7),
    SamplingRule(1.3),
    SamplingRule(1.0, top_p=0.9),
    SamplingRule(1.0, top_k=5),
    SamplingRule(1.0, min_p=0.2),
    SamplingRule(0.7, top_k=20, top_p=0.8, min_p=0.05),
    SamplingRule(1.0, top_k=500, top_p=1.0, min_p=0.0),
]


def logits(rows: int, vocab: int = 64) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(3)) * 2


@pytest.mark.parametrize("rule", RULES)
def test_distributions_are_those_of_transformers(rule: SamplingRule) -> None:
    rows = logits(8)
    expected = TemperatureLogitsWarper(rule.temperature)(None, rows)
    if rule.top_k is not None:
        expected = TopKLogitsWarper(rule.top_k)(None, expected)
    if rule.top_p is not None:
        expected = TopPLogitsWarper(rule.top_p)(None, expected)
    if rule.min_p is not None:
        expected = MinPLogitsWarper(rule.min_p)(None, expected)
    torch.testing.assert_close(probabilities(rows, [rule] * 8), expected.softmax(-1))


def test_rows_follow_their_own_rules() -> None:
    rows = logits(len(RULES))
    together = probabilities(rows, RULES)
    for row, rule in enumerate(RULES):
        torch.testing.assert_close(together[row], probabilities(rows[row : row + 1], [rule])[0])


def test_a_greedy_row_takes_the_likeliest_token() -> None:
    rows = logits(2)
    tokens = choose(rows, [SamplingRule(), SamplingRule(1.0)], torch.tensor([0.999, 0.0]))
    assert tokens[0] == rows[0].argmax()


@pytest.mark.parametrize("rule", RULES)
def test_draws_follow_the_distribution(rule: SamplingRule) -> None:
    """A chi-square test at the level of one in a million, with a fixed seed."""
    draws = 20_000
    row = logits(1)
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(1))
    found = choose(row.expand(draws, -1), [rule] * draws, uniform).bincount(minlength=64)
    expected = probabilities(row, [rule])[0] * draws
    assert found[expected == 0].sum() == 0
    seen = expected > 5
    statistic = float(((found[seen] - expected[seen]).square() / expected[seen]).sum())
    freedom = int(seen.sum())
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("draw", [0.0, 0.5, 1 - 2**-24])
def test_a_forbidden_token_is_never_drawn(draw: float) -> None:
    row = logits(1, vocab=1024 * 3)
    row[0, 1500:] = -torch.inf
    row[0, :700] = -torch.inf
    token = int(choose(row, [SamplingRule(1.0)], torch.tensor([draw])))
    assert 700 <= token < 1500
