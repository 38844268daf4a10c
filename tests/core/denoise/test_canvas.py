"""One canvas, step by step: acceptance, the stopping rule, what is frozen, pinned, disturbed and drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dgemma_core.denoise.canvas import Canvas, leading, shortest_canvas
from dgemma_core.denoise.denoise_settings import DenoiseSettings

LENGTH, VOCAB, ENDS = 8, 100, torch.tensor([1, 4])
SETTINGS = DenoiseSettings(LENGTH, 10, 0.1, 0.4, 0.8, 1, 0.02, True)
SURE, UNSURE = torch.zeros(LENGTH), torch.full((LENGTH,), 2.0)
# Sure up to the end at position 3, unsure after it.
TAIL_UNSURE = torch.tensor([0.0] * 4 + [2.0] * 4)


def make_canvas(seed: int = 0, budget: int = 1000, **settings: Any) -> Canvas:
    return Canvas(replace(SETTINGS, **settings), VOCAB, ENDS, budget, torch.Generator().manual_seed(seed))


def tokens(*first: int) -> Tensor:
    """These, then 9 to the canvas's end."""
    return torch.tensor([*first, *[9] * (LENGTH - len(first))])


def step(canvas: Canvas, argmax: Tensor, entropy: Tensor = UNSURE, sample: Tensor | None = None) -> bool:
    """A step of the positions that are computed, out of what a whole canvas would give."""
    sample = argmax if sample is None else sample
    active = canvas.active
    return canvas.advance(argmax[:active], sample[:active], entropy[:active])


def test_a_new_canvas_is_noise() -> None:
    canvas = make_canvas()
    assert (canvas.length, canvas.active, canvas.steps, canvas.steps_left) == (8, 8, 0, 10)
    assert bool(((canvas.tokens >= 0) & (canvas.tokens < VOCAB)).all())
    assert len(set(canvas.tokens.tolist())) > 4
    assert bool(canvas.unconditioned.all())
    assert not canvas.pinned.any()
    assert canvas.draft(0, LENGTH) == []
    assert torch.equal(canvas.tokens, make_canvas().tokens)
    assert not torch.equal(canvas.tokens, make_canvas(seed=1).tokens)


def test_accepted_positions_take_their_sample_and_others_noise() -> None:
    canvas = make_canvas()
    sample = torch.arange(50, 58)
    step(canvas, tokens(), SURE, sample)
    assert torch.equal(canvas.tokens, sample)
    entropy = UNSURE.clone()
    entropy[5] = 1.0
    step(canvas, tokens(), entropy, sample)
    assert canvas.accepted.tolist() == [i == 5 for i in range(LENGTH)]
    assert canvas.tokens[5] == 55
    assert int((canvas.tokens == sample).sum()) < 4
    assert not canvas.unconditioned.any()


def test_temperature_falls_step_by_step() -> None:
    canvas = make_canvas()
    seen = []
    for _ in range(3):
        seen.append(canvas.temperature)
        step(canvas, tokens())
    assert seen == pytest.approx([0.8, 0.76, 0.72])


# The stopping rule.


@pytest.mark.parametrize(("threshold", "needed"), [(0, 1), (1, 2), (2, 3)])
def test_it_stops_once_it_is_stable(threshold: int, needed: int) -> None:
    canvas = make_canvas(stability_threshold=threshold)
    done = [step(canvas, tokens(7), SURE) for _ in range(needed)]
    assert done == [False] * (needed - 1) + [True]


def test_a_change_begins_the_count_anew() -> None:
    canvas = make_canvas(stability_threshold=2)
    drafts = [tokens(7), tokens(7), tokens(8), tokens(8), tokens(8)]
    assert [step(canvas, draft, SURE) for draft in drafts] == [False] * 4 + [True]


def test_it_does_not_stop_before_it_is_sure() -> None:
    canvas = make_canvas()
    assert not any(step(canvas, tokens(7)) for _ in range(3))
    # 0.02 nats a position on average are just too many.
    assert not step(canvas, tokens(7), torch.full((LENGTH,), 0.0201))
    assert step(canvas, tokens(7), torch.full((LENGTH,), 0.0199))


def test_it_stops_when_its_steps_are_used_up() -> None:
    canvas = make_canvas(max_denoising_steps=3)
    assert [step(canvas, tokens(i)) for i in range(3)] == [False, False, True]
    assert canvas.exhausted


def test_positions_after_the_end_do_not_delay_it() -> None:
    aware, reference = make_canvas(), make_canvas(stop_at_eos=False)
    for index, (first, second) in enumerate([(False, False), (True, False)]):
        draft = tokens(7, 8, 9, 1, 20 + index)
        assert step(aware, draft, TAIL_UNSURE) is first
        assert step(reference, draft, TAIL_UNSURE) is second


def test_positions_after_the_budget_do_not_delay_it() -> None:
    canvas = make_canvas(budget=4)
    assert not step(canvas, tokens(7, 8, 9, 5, 20), TAIL_UNSURE)
    assert step(canvas, tokens(7, 8, 9, 5, 21), TAIL_UNSURE)


def test_the_mean_entropy_is_of_the_whole_canvas() -> None:
    """As the reference's: an end at position 3 halves it here, since the other positions count as certain."""
    entropy = torch.full((LENGTH,), 0.03)
    canvas = make_canvas()
    step(canvas, tokens(7, 8, 9, 1), entropy)
    assert step(canvas, tokens(7, 8, 9, 1), entropy)
    reference = make_canvas(stop_at_eos=False)
    step(reference, tokens(7, 8, 9, 1), entropy)
    assert not step(reference, tokens(7, 8, 9, 1), entropy)


# What is computed.


def test_once_the_end_has_stayed_put_the_tail_is_frozen() -> None:
    canvas = make_canvas()
    computed = []
    for _ in range(4):
        computed.append(canvas.active)
        step(canvas, tokens(7, 8, 9, 1))
    assert computed == [8, 8, 4, 4]
    assert len(canvas.uniform) == len(canvas.conditioned_on_token) == 4
    assert not canvas.steady[4:].any()


def test_an_end_that_moves_has_all_computed_again() -> None:
    canvas = make_canvas()
    for _ in range(3):
        step(canvas, tokens(7, 8, 9, 1))
    assert canvas.active == 4
    step(canvas, tokens(7, 1))
    assert canvas.active == 8
    step(canvas, tokens(7, 1))
    assert canvas.active == 2


def test_an_end_that_leaves_what_was_computed_ends_nothing() -> None:
    """The tail is old: whether the answer is done can only be said once it has been computed again."""
    canvas = make_canvas(stability_threshold=0)
    for _ in range(3):
        step(canvas, tokens(7, 8, 9, 1))
    assert canvas.active == 4
    assert not step(canvas, tokens(7, 8, 9, 6), SURE)
    assert canvas.active == 8
    assert step(canvas, tokens(7, 8, 9, 6), SURE)


def test_the_budget_freezes_the_tail_too() -> None:
    canvas = make_canvas(budget=5)
    for _ in range(2):
        step(canvas, tokens())
    assert canvas.active == 5


def test_the_reference_rule_computes_everything() -> None:
    canvas = make_canvas(stop_at_eos=False, budget=5)
    for _ in range(5):
        step(canvas, tokens(7, 1))
        assert canvas.active == 8


def test_a_guides_horizon_takes_the_place_of_end_tokens() -> None:
    canvas = make_canvas()
    canvas.horizon = 6
    for _ in range(2):
        step(canvas, tokens(7, 1))
    assert canvas.active == 6
    canvas.horizon = 0  # At least one position is always computed.
    for _ in range(2):
        step(canvas, tokens(7, 1))
    assert canvas.active == 1


# Draws.


def test_a_repeated_step_repeats_its_draws() -> None:
    once, often = make_canvas(), make_canvas()
    first = once.uniform
    for _ in range(3):
        assert torch.equal(often.uniform, first)
    step(once, tokens())
    step(often, tokens())
    assert torch.equal(once.tokens, often.tokens)
    assert torch.equal(once.uniform, often.uniform)
    assert not torch.equal(once.uniform, first)


def test_draws_do_not_depend_on_what_is_frozen() -> None:
    aware, reference = make_canvas(), make_canvas(stop_at_eos=False)
    for _ in range(4):
        step(aware, tokens(7, 8, 9, 1))
        step(reference, tokens(7, 8, 9, 1))
    assert (aware.active, reference.active) == (4, 8)
    assert torch.equal(aware.uniform, reference.uniform[:4])
    assert torch.equal(aware.tokens[:4], reference.tokens[:4])


# Pins.


def test_a_pin_is_fixed_in_what_is_read_and_in_what_is_committed() -> None:
    canvas = make_canvas()
    canvas.pin(2, [60, 61])
    assert canvas.draft(2, 4) == [60, 61]
    assert not canvas.conditioned_on_token.any(), "there is no conditioning before the first step"
    for _ in range(3):
        step(canvas, tokens(7))
        assert canvas.tokens[2:4].tolist() == canvas.argmax[2:4].tolist() == [60, 61]
        assert canvas.entropy.tolist() == [2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0]
    assert canvas.conditioned_on_token.tolist() == [i in (2, 3) for i in range(LENGTH)]
    assert bool(canvas.steady[2:4].all())


def test_a_pin_in_the_frozen_tail_has_all_computed_again() -> None:
    canvas = make_canvas()
    for _ in range(2):
        step(canvas, tokens(7, 8, 9, 1))
    canvas.pin(0, [7, 8])
    assert canvas.active == 4
    canvas.pin(3, [5, 6])
    assert canvas.active == 8


def test_unpin_sets_a_position_free() -> None:
    canvas = make_canvas()
    canvas.pin(0, [60, 61])
    canvas.unpin(1, 33)
    assert canvas.tokens[:2].tolist() == [60, 33]
    step(canvas, tokens(7, 8))
    assert canvas.argmax[:2].tolist() == [60, 8]


def test_what_is_disturbed_begins_again_from_noise() -> None:
    canvas = make_canvas()
    for _ in range(2):
        step(canvas, tokens(7, 8, 9, 1), TAIL_UNSURE)
    canvas = make_canvas(stability_threshold=3)
    for _ in range(3):
        step(canvas, tokens(7, 8, 9, 1), SURE)
    assert canvas.active == 4
    canvas.pin(2, [9])
    before = canvas.tokens.clone()
    canvas.disturb(1, LENGTH)
    assert canvas.active == 8
    assert canvas.unconditioned.tolist() == [False, True, False, True, True, True, True, True]
    assert canvas.tokens[[0, 2]].tolist() == before[[0, 2]].tolist()
    assert not torch.equal(canvas.tokens, before)
    assert canvas.draft(0, LENGTH) == [7]
    assert canvas.draft(2, LENGTH) == [9]
    # Three more steps have to agree, after the first one that has something to be compared with.
    assert [step(canvas, tokens(7, 8, 9, 1), SURE) for _ in range(4)] == [False, False, False, True]
    assert not canvas.unconditioned.any()


def test_steady_is_sure_and_the_same_as_before() -> None:
    canvas = make_canvas(stop_at_eos=False)
    entropy = torch.tensor([0.09, 0.11, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    step(canvas, tokens(7, 8, 9), entropy)
    assert not canvas.steady.any()
    step(canvas, tokens(7, 8, 5), entropy)
    assert canvas.steady.tolist() == [True, False, False, True, True, True, True, True]


def test_leading() -> None:
    assert leading(torch.tensor([True, True, False, True])) == 2
    assert leading(torch.tensor([False, True])) == 0
    assert leading(torch.tensor([True])) == 1


@pytest.mark.parametrize(("positions", "length"), [(1, 8), (8, 8), (9, 16), (63, 64), (65, 64)])
def test_the_shortest_canvas_is_whole_rows(positions: int, length: int) -> None:
    assert shortest_canvas(positions, 64) == length
