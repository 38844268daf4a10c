"""A canvas that moves along with the verified text. It only drafts; what it drafts is verified by the causal mode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_core.denoise.sampling import entropy_bound_mask, renoise


class SlidingCanvas:
    """A short canvas whose first positions are the tokens that are known but not encoded yet.

    Every pass denoises it once. Then it moves past the tokens that were verified: the statistics of the other positions
    move with it, and noise comes in at its end. It never stops by itself.

    Args:
        length: positions.
        vocab_size: noise tokens are uniform below it.
        entropy_bound: nats; the positions that a step accepts, see :func:`entropy_bound_mask`.
        temperature: of every step.
        generator: of the noise.

    Attributes:
        steps: denoising steps taken.
        shift: positions that the canvas has moved since the last step.
        tokens: int64 ``[length]``, the input of the next step.
        pinned: bool ``[length]``, positions of known tokens.
        unconditioned: bool ``[length]``, positions without self-conditioning.
        argmax: int64 ``[length]``, the likeliest tokens of the last step; -1 where it says nothing.
        entropy: float32 ``[length]``, nats, of the last step.
    """

    def __init__(
        self, length: int, vocab_size: int, entropy_bound: float, temperature: float, generator: torch.Generator
    ) -> None:
        self.length = length
        self.temperature = temperature
        self.steps = 0
        self.shift = 0
        self._vocab_size = vocab_size
        self._entropy_bound = entropy_bound
        self._generator = generator
        self.argmax = torch.full((length,), -1)
        self.entropy = torch.zeros(length)
        self.unconditioned = torch.ones(length, dtype=torch.bool)
        self.pinned = torch.zeros(length, dtype=torch.bool)
        self.tokens = self._noise()
        self._sample = torch.zeros_like(self.tokens)
        self._uniform: Tensor | None = None

    @property
    def conditioned_on_token(self) -> Tensor:
        """Bool ``[length]``: positions that the next step conditions on their own token, because it is known."""
        return self.pinned if self.steps else torch.zeros_like(self.pinned)

    @property
    def uniform(self) -> Tensor:
        """float32 ``[length]`` in [0, 1): the next step's random draws. A repeated step repeats them."""
        if self._uniform is None:
            self._uniform = torch.rand(self.length, generator=self._generator)
        return self._uniform

    def draft(self, length: int) -> list[int]:
        """The likeliest tokens after the known ones, at most ``length``."""
        known = int(self.pinned.sum())
        tokens: list[int] = self.argmax[known : known + length].tolist()
        return tokens[: tokens.index(-1)] if -1 in tokens else tokens

    def advance(self, argmax: Tensor, sample: Tensor, entropy: Tensor) -> None:
        """Book the result of one step. All tensors are on the host.

        Args:
            argmax: int64 ``[length]``, the likeliest tokens.
            sample: int64 ``[length]``, the sampled tokens.
            entropy: float32 ``[length]``, nats.
        """
        self._uniform = None
        self.shift = 0
        self.steps += 1
        self.argmax = torch.where(self.pinned, self.tokens, argmax)
        self.entropy = entropy.masked_fill(self.pinned, 0.0)
        self.unconditioned = torch.zeros(self.length, dtype=torch.bool)
        self._sample = sample

    def move(self, count: int, known: Sequence[int]) -> None:
        """Move past ``count`` positions, and pin the tokens that are known from there on.

        Args:
            count: positions.
            known: tokens at the canvas's new beginning. Those that do not fit on it are left out.
        """
        self.shift += count
        gap = min(count, self.length)
        self.argmax = _moved(self.argmax, gap, -1)
        self.entropy = _moved(self.entropy, gap, 0.0)
        self._sample = _moved(self._sample, gap, 0)
        self.unconditioned = _moved(self.unconditioned, gap, True)
        known = known[: self.length]
        self.pinned = torch.zeros(self.length, dtype=torch.bool)
        self.pinned[: len(known)] = True
        # Positions that the last step says nothing of are not accepted, so that they begin from noise.
        unsure = self.entropy.masked_fill(self.unconditioned, torch.inf).masked_fill(self.pinned, 0.0)
        accepted = entropy_bound_mask(unsure, self._entropy_bound) & ~self.unconditioned
        self.tokens = renoise(self._sample, self._noise(), accepted)
        self.tokens[: len(known)] = torch.tensor(list(known), dtype=torch.long)

    def _noise(self) -> Tensor:
        return torch.randint(self._vocab_size, (self.length,), generator=self._generator)


def _moved(values: Tensor, count: int, fill: float) -> Tensor:
    """The values from index ``count`` on, with ``count`` new ones at the end."""
    return torch.cat((values[count:], torch.full_like(values[:count], fill)))
