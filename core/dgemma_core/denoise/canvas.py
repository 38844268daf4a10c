"""One canvas while it is denoised: its tokens, what the last step said of it, and when it is done."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_core.denoise.sampling import entropy_bound_mask, first_end, renoise, temperature
from dgemma_core.denoise.settings import DenoiseSettings

STEADY_ENTROPY = 0.1  # nats; below it a position counts as sure
_LENGTH_STEP = 8  # Whole rows of a GEMM; few lengths.


def shortest_canvas(positions: int, limit: int) -> int:
    """Length of the shortest canvas that holds so many positions, or ``limit``, for a turn whose layout is known."""
    return min(limit, -(-positions // _LENGTH_STEP) * _LENGTH_STEP)


def leading(marked: Tensor) -> int:
    """How many positions at the front of a bool vector are marked."""
    return int(marked.int().cumprod(0).sum())


class Canvas:
    """State of one canvas, on the host. What a backend keeps of it (soft embeddings, hidden states) is not here.

    The answer-aware rule (``stop_at_eos``): the answer ends at the first end token of the argmax canvas, or where the
    request's token budget ends. Positions behind that end count as certain in the stopping rule, and once the end has
    stayed put for a step they are not computed again: their keys and values stay in the cache's tail, only the answer's
    positions are denoised on. Should the end move, the whole canvas is computed again.

    Args:
        settings: of the request.
        vocab_size: noise is uniform over it.
        end_ids: int64, ids that end an answer.
        budget: tokens the answer may still take.
        generator: the request's own random generator.

    Attributes:
        tokens: int64 ``[canvas]``, what the next step reads.
        argmax: int64 ``[canvas]``, the likeliest tokens of the last step; what is committed.
        pinned: bool ``[canvas]``, positions that are fixed in both.
        steady: bool ``[canvas]``, positions whose likeliest token is sure and was the same the step before.
        horizon: where a guide knows the answer to end, if it does; an end for the answer-aware rule.
        unconditioned: bool ``[canvas]``, positions whose last distribution does not condition the next step: before the
            first step all, later those that were disturbed.
    """

    def __init__(
        self,
        settings: DenoiseSettings,
        vocab_size: int,
        end_ids: Tensor,
        budget: int,
        generator: torch.Generator,
    ) -> None:
        self.settings = settings
        self.horizon: int | None = None
        self.steps = 0
        self.active = self.length
        self.accepted = torch.zeros(self.length, dtype=torch.bool)
        self.pinned = torch.zeros(self.length, dtype=torch.bool)
        self.steady = torch.zeros(self.length, dtype=torch.bool)
        self.unconditioned = torch.ones(self.length, dtype=torch.bool)
        self.argmax = torch.full((self.length,), -1, dtype=torch.long)
        self._seen = self.argmax.clone()  # What a step's likeliest tokens are compared with; -1 where there is nothing.
        self.entropy = torch.zeros(self.length)
        self._vocab_size = vocab_size
        self._end_ids = end_ids
        self._budget = budget
        self._generator = generator
        self._unchanged = 0
        self._last_end = -1
        self._draws: tuple[Tensor, Tensor] | None = None
        self.tokens = self._noise()

    @property
    def length(self) -> int:
        """Positions of the canvas, computed or frozen."""
        return self.settings.canvas_length

    @property
    def temperature(self) -> float:
        """Temperature of the coming step."""
        s = self.settings
        return temperature(self.steps, s.max_denoising_steps, s.t_min, s.t_max)

    @property
    def steps_left(self) -> int:
        """Denoising steps it may still take."""
        return self.settings.max_denoising_steps - self.steps

    @property
    def exhausted(self) -> bool:
        """Whether all its denoising steps are used up."""
        return self.steps_left <= 0

    @property
    def conditioned_on_token(self) -> Tensor:
        """Bool ``[active]``: positions that the coming step conditions on their own token, because it is certain."""
        pinned = self.pinned[: self.active]
        return pinned if self.steps else torch.zeros_like(pinned)

    @property
    def uniform(self) -> Tensor:
        """float32 ``[active]``: the coming step's draws, one per computed position."""
        return self._step_draws()[0][: self.active]

    def advance(self, argmax: Tensor, sample: Tensor, entropy: Tensor) -> bool:
        """Take one step's statistics (``[active]`` each, on the host); returns whether the canvas is done."""
        noise = self._step_draws()[1][: self.active]
        self._draws = None
        computed = slice(0, self.active)
        pinned = self.pinned[computed]
        fixed = self.tokens[computed]
        argmax = torch.where(pinned, fixed, argmax)
        entropy = entropy.masked_fill(pinned, 0.0)
        self.argmax[computed] = argmax
        self.entropy[computed] = entropy
        same = self.argmax == self._seen
        self._seen = self.argmax.clone()
        self.steady = same & (self.entropy < STEADY_ENTROPY)
        self.steady[self.active :] = False
        accepted = entropy_bound_mask(entropy, self.settings.entropy_bound)
        self.accepted[computed] = accepted
        self.tokens[computed] = torch.where(pinned, fixed, renoise(sample, noise, accepted))
        self.unconditioned[computed] = False
        self.steps += 1
        end = self._relevant()
        self._unchanged = self._unchanged + 1 if bool(same[:end].all()) else 0
        stable = self._unchanged >= self.settings.stability_threshold
        # Divided by the whole length, as the reference's mean is: positions behind the end count as certain.
        confident = float(self.entropy[:end].sum()) / self.length < self.settings.confidence_threshold
        # Where the end has just moved behind what was computed, nothing is known yet.
        if (stable and confident and end <= self.active) or self.exhausted:
            return True
        self._freeze(end)
        return False

    def pin(self, start: int, tokens: Sequence[int]) -> None:
        """Fix ``tokens`` from position ``start`` on: in what is read, and in what is committed."""
        where = slice(start, start + len(tokens))
        self.tokens[where] = self.argmax[where] = self._seen[where] = torch.tensor(list(tokens), dtype=torch.long)
        self.pinned[where] = True
        self.entropy[where] = 0.0
        if where.stop > self.active:
            self._thaw()

    def unpin(self, position: int, token: int) -> None:
        """Set a position free again, reading ``token``."""
        self.tokens[position] = token
        self.pinned[position] = False

    def disturb(self, start: int, stop: int) -> None:
        """Have the unpinned positions ``[start, stop)`` denoised anew, from noise and with nothing to condition on."""
        where = slice(start, stop)
        pinned = self.pinned[where]
        self.tokens[where] = torch.where(pinned, self.tokens[where], self._noise()[where])
        self.unconditioned[where] |= ~pinned
        self._seen[where].masked_fill_(~pinned, -1)
        self._thaw()
        self._unchanged = 0

    def draft(self, start: int, stop: int) -> list[int]:
        """The likeliest tokens from ``start`` on, up to ``stop`` or to what was disturbed since the last step."""
        known = self._seen[start:stop] >= 0
        return self.argmax[start : start + leading(known)].tolist()

    def _relevant(self) -> int:
        """Positions the answer depends on: all of them under the reference rule."""
        if not self.settings.stop_at_eos:
            return self.length
        end = first_end(self.argmax, self._end_ids) + 1 if self.horizon is None else self.horizon
        return min(max(end, 1), self._budget, self.length)

    def _freeze(self, end: int) -> None:
        """Compute only ``end`` positions from now on if the end stayed where it was, else all."""
        self.active = end if end == self._last_end else self.length
        self._last_end = end

    def _thaw(self) -> None:
        """Compute all positions again."""
        self.active = self.length
        self._last_end = -1

    def _step_draws(self) -> tuple[Tensor, Tensor]:
        # Kept until the step has succeeded, so that a repeated step repeats its draws; always for the whole canvas, so
        # that a position's draw does not depend on what is frozen.
        if self._draws is None:
            self._draws = torch.rand(self.length, generator=self._generator), self._noise()
        return self._draws

    def _noise(self) -> Tensor:
        return torch.randint(self._vocab_size, (self.length,), generator=self._generator)
