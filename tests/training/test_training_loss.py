"""The weights of a canvas' tokens in the training loss."""

from __future__ import annotations

from itertools import product

import torch

from training.evaluate import EMBEDDED
from training.loss import GIVEN, LEAST, LOCAL, count_before, depth_weights, slips
from training.probe import probe


def test_a_token_weighs_less_the_more_random_ones_come_before_it_in_its_canvas() -> None:
    target = torch.zeros(1, 64, dtype=torch.long)
    noised = target.clone()
    noised[0, [1, 2, 33]] = 5  # Two canvases of 32 in one row: the second counts anew.
    noised[0, 40:] = 5
    wrong = noised != target
    before = count_before(wrong, 32)
    assert wrong[0].nonzero()[:, 0].tolist() == [1, 2, 33, *range(40, 64)]
    assert before[0, [0, 1, 2, 3, 32, 33, 40, 63]].tolist() == [0, 0, 1, 2, 0, 0, 1, 24]
    weights = depth_weights(wrong, before)[0]
    expected = torch.tensor([GIVEN, 1.0, 0.8, GIVEN, 1.0, 0.8, 0.5, LEAST])
    torch.testing.assert_close(weights[[0, 1, 2, 3, 33, 40, 43, 63]], expected)


def test_slipped_tokens_stand_one_or_two_positions_off_from_some_place_on() -> None:
    length, used = 24, 15
    target = torch.zeros(length, dtype=torch.long)
    target[:used] = torch.arange(1, used + 1)
    ways: dict[tuple[int, ...], tuple[int, bool]] = {}
    for by, begin in product((-2, -1, 1, 2), range(used)):
        for end in (*range(begin + 1, min(begin + LOCAL, length) + 1), length):
            moved = [target[min(max(i + by, 0), length - 1) if begin <= i < end else i] for i in range(length)]
            ways[tuple(int(t) for t in moved)] = by, end == length
    canvases = target.expand(300, -1)
    rows = canvases.gather(1, slips(canvases, torch.Generator().manual_seed(0)))
    assert {ways[tuple(row)] for row in rows.tolist()} == set(product((-2, -1, 1, 2), (False, True)))


def test_the_probe_looks_at_the_same_places_with_noise_and_with_slips_after_them() -> None:
    right = probe(EMBEDDED, "tools", 1, 0)
    assert len(right["noise"]) == len(right["slip"]) > 5
    assert sum(right["noise"]) / len(right["noise"]) > 0.8
