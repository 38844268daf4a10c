"""The state of one canvas while it is denoised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_core.denoise.denoise_settings import DenoiseSettings
from dgemma_core.denoise.sampling import entropy_bound_mask, renoise, temperature
from dgemma_core.denoise.stopping import StoppingRule

STEADY_ENTROPY = 0.1  # nats; below it a position counts as sure
_LENGTH_STEP = 8  # Canvas lengths are multiples of this: few different lengths, and whole rows for a GEMM.


def shortest_canvas(positions: int, limit: int) -> int:
    """Length of the shortest canvas with at least ``positions`` positions, but at most ``limit``.

    For turns whose layout is known beforehand.
    """
    return min(limit, -(-positions // _LENGTH_STEP) * _LENGTH_STEP)


def leading(marked: Tensor) -> int:
    """Number of True values before the first False of a bool vector."""
    return int(marked.int().cumprod(0).sum())


class Canvas:
    """State of one canvas, on the host. A backend keeps its keys, values, soft embeddings and hidden states.

    :class:`~dgemma_core.denoise.stopping.StoppingRule` says when a canvas is done. With ``stop_at_eos`` the answer ends
    at the first end token among the likeliest tokens, or at the end of the request's token budget. Once that end has
    stayed in place for a step, the positions after it are frozen: they are no longer computed, but their keys and
    values stay in the cache. If the end moves, the whole canvas is computed again.

    Args:
        settings: of the request.
        vocab_size: noise tokens are uniform below it.
        end_ids: int64 ``[ends]``, ids that end an answer.
        budget: tokens the answer may still take.
        generator: the request's own random generator.

    Attributes:
        steps: denoising steps taken.
        active: positions that the next step computes; those from ``active`` on are frozen.
        tokens: int64 ``[canvas]``, the input of the next step.
        argmax: int64 ``[canvas]``, the likeliest tokens of the last step, -1 before the first. They are committed when
            the canvas is done.
        entropy: float32 ``[canvas]``, nats, of the last step.
        accepted: bool ``[canvas]``, positions that the last step accepted.
        pinned: bool ``[canvas]``, positions that are fixed in ``tokens`` and in ``argmax``.
        steady: bool ``[canvas]``, positions with an entropy below ``STEADY_ENTROPY`` whose likeliest token was the same
            in the step before.
        unconditioned: bool ``[canvas]``, positions without self-conditioning in the next step: all of them before the
            first step, later those that were disturbed.
        horizon: length of the answer on this canvas if a guide knows it. The answer-aware rule then uses it as the end.
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
        self._seen = self.argmax.clone()  # To compare the next step's likeliest tokens with; -1 where there are none.
        self.entropy = torch.zeros(self.length)
        self._vocab_size = vocab_size
        self._stopping = StoppingRule(settings, end_ids, budget)
        self._generator = generator
        self._last_end = -1
        self._draws: tuple[Tensor, Tensor] | None = None
        self.tokens = self._noise()

    @property
    def length(self) -> int:
        """Positions of the whole canvas, with the frozen ones."""
        return self.settings.canvas_length

    @property
    def temperature(self) -> float:
        """Temperature of the next step."""
        s = self.settings
        return temperature(self.steps, s.max_denoising_steps, s.t_min, s.t_max)

    @property
    def steps_left(self) -> int:
        """Denoising steps the canvas may still take."""
        return self.settings.max_denoising_steps - self.steps

    @property
    def exhausted(self) -> bool:
        """Whether all denoising steps are used up."""
        return self.steps_left <= 0

    @property
    def conditioned_on_token(self) -> Tensor:
        """Bool ``[active]``: positions that the next step conditions on their own token, because it is certain."""
        pinned = self.pinned[: self.active]
        return pinned if self.steps else torch.zeros_like(pinned)

    @property
    def uniform(self) -> Tensor:
        """float32 ``[active]`` in [0, 1): the next step's random draws, one per computed position."""
        return self._step_draws()[0][: self.active]

    def advance(self, argmax: Tensor, sample: Tensor, entropy: Tensor) -> bool:
        """Book the result of one step. All tensors are on the host.

        Args:
            argmax: int64 ``[active]``, the likeliest tokens.
            sample: int64 ``[active]``, the sampled tokens.
            entropy: float32 ``[active]``, nats.

        Returns:
            Whether the canvas is done.
        """
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
        end = self._stopping.answer_end(self.argmax, self.horizon)
        done = self._stopping.met(same[:end], self.entropy[:end])
        # If the end has just moved past the computed positions, the step says nothing of those up to the end.
        if (done and end <= self.active) or self.exhausted:
            return True
        self._freeze(end)
        return False

    def pin(self, start: int, tokens: Sequence[int]) -> None:
        """Fix ``tokens`` from position ``start`` on, as input of the next steps and as committed tokens."""
        where = slice(start, start + len(tokens))
        self.tokens[where] = self.argmax[where] = self._seen[where] = torch.tensor(list(tokens), dtype=torch.long)
        self.pinned[where] = True
        self.entropy[where] = 0.0
        if where.stop > self.active:
            self._thaw()

    def unpin(self, position: int, token: int) -> None:
        """Free a pinned position. The next step reads ``token`` there."""
        self.tokens[position] = token
        self.pinned[position] = False

    def disturb(self, start: int, stop: int) -> None:
        """Start the unpinned positions ``[start, stop)`` again, from noise and without self-conditioning."""
        where = slice(start, stop)
        pinned = self.pinned[where]
        self.tokens[where] = torch.where(pinned, self.tokens[where], self._noise()[where])
        self.unconditioned[where] |= ~pinned
        self._seen[where].masked_fill_(~pinned, -1)
        self._thaw()
        self._stopping.restart()

    def draft(self, start: int, stop: int) -> list[int]:
        """The likeliest tokens of ``[start, stop)``, cut before the first position disturbed since the last step."""
        known = self._seen[start:stop] >= 0
        return self.argmax[start : start + leading(known)].tolist()

    def _freeze(self, end: int) -> None:
        """Compute only the first ``end`` positions from now on if the end has not moved, else all."""
        self.active = end if end == self._last_end else self.length
        self._last_end = end

    def _thaw(self) -> None:
        """Compute all positions again."""
        self.active = self.length
        self._last_end = -1

    def _step_draws(self) -> tuple[Tensor, Tensor]:
        # Kept until the step has succeeded, so that a repeated step repeats its draws. Made for the whole canvas, so
        # that a position's draw does not depend on what is frozen.
        if self._draws is None:
            self._draws = torch.rand(self.length, generator=self._generator), self._noise()
        return self._draws

    def _noise(self) -> Tensor:
        return torch.randint(self._vocab_size, (self.length,), generator=self._generator)
