"""One answer in the causal mode: typed token by token, or several tokens a pass that a draft has guessed right.

A pass encodes the tokens that are known but have no keys and values yet, then a draft of what may follow. The causal
mode predicts the token after each of them. The draft's tokens are accepted as long as they are the predicted ones; the
first prediction that differs is the next token. So the text is the one that is typed without a draft, and every pass
adds at least one token (speculative decoding, https://arxiv.org/abs/2211.17192).

Two drafts are verified in one pass: the likeliest tokens of a :class:`SlidingCanvas`, and a :class:`Lookup`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dgemma_core.denoise.causal_guide import CausalGuide
from dgemma_core.denoise.lookup import Lookup
from dgemma_core.denoise.sampling_rule import SamplingRule
from dgemma_core.denoise.sliding_canvas import SlidingCanvas

_PLACES = 16  # What stands beside the text may begin at a multiple of this.
_DRAWS = 64  # Random draws are made in blocks, so that a seed gives the same draws whatever the drafts are.


@dataclass(frozen=True)
class Draft:
    """Tokens that may follow the known ones.

    Attributes:
        tokens: the draft; empty to predict one token only.
        uniform: float32 ``[len(tokens) + 1]``, the draws of the predictions.
        allowed: bool ``[len(tokens) + 1, vocab]``, or None for all tokens.
        forced: per prediction the token that a grammar forces instead, or None.
    """

    tokens: tuple[int, ...]
    uniform: Tensor
    allowed: Tensor | None
    forced: tuple[int | None, ...]


@dataclass(frozen=True)
class Accepted:
    """What a pass has added to the text.

    Attributes:
        draft: number of the draft that agreed longest.
        tokens: new tokens of the answer.
        drafted: how many of them were drafted, so that they have keys and values already.
        predicted: rows of the predictions that gave the tokens; None for a token that a grammar has given.
        ended: whether the answer ends after ``tokens``.
        cut: whether it ends because its room is used up.
    """

    draft: int
    tokens: tuple[int, ...]
    drafted: int
    predicted: tuple[int | None, ...]
    ended: bool
    cut: bool


class CausalWriter:
    """The host's side of one answer in the causal mode.

    Args:
        room: tokens the answer may take.
        end_ids: token ids that end the answer.
        rule: how a token is chosen from its distribution.
        generator: of the random draws.
        logprobs: alternatives whose log-probabilities are wanted; None for no log-probabilities.
        canvas: drafts; None for no canvas.
        lookup: drafts; holds the prompt. None for no look-up.
        most: tokens of a draft at most.
        guide: keeps the text within a grammar; None for free text.
    """

    def __init__(
        self,
        room: int,
        end_ids: frozenset[int],
        rule: SamplingRule,
        generator: torch.Generator,
        logprobs: int | None = None,
        canvas: SlidingCanvas | None = None,
        lookup: Lookup | None = None,
        most: int = 0,
        guide: CausalGuide | None = None,
    ) -> None:
        self.canvas = canvas
        self.guide = guide
        self._room = room
        self._end_ids = end_ids
        self.rule = rule
        self.logprobs = logprobs
        self._generator = generator
        self._lookup = lookup
        self._most = most
        self._draws = torch.empty(0)
        self._written = 0
        self._drafts: list[Draft] | None = None

    @property
    def canvas_length(self) -> int:
        """Positions of the canvas; 0 without one."""
        return 0 if self.canvas is None else self.canvas.length

    @property
    def beside(self) -> int:
        """Room that a slot needs after the answer: for a canvas and a draft beside the text, each rounded up."""
        return self.canvas_length + self._most + 3 * _PLACES if self.drafting else 0

    @property
    def drafting(self) -> bool:
        """Whether there is anything that drafts."""
        return self.canvas is not None or self._lookup is not None

    def rows(self, known: int) -> int:
        """Positions that a pass takes at most, beside its ``known`` tokens: the canvas and both drafts."""
        # A canvas that is full of known tokens drafts nothing. A second draft repeats the known tokens.
        if self._lookup is None or known >= self.canvas_length:
            return self.canvas_length + self._most
        return self.canvas_length + 2 * self._most + known

    def begin(self) -> Accepted:
        """The tokens that the grammar forces at the answer's beginning. Call it once, before the first pass."""
        if self.guide is None:
            return Accepted(0, (), 0, (), ended=False, cut=False)
        taken = self.guide.begin()
        self._add(taken.tokens)
        return Accepted(0, taken.tokens, 0, (None,) * len(taken.tokens), taken.ended, cut=False)

    def propose(self, drafting: bool) -> tuple[Draft, ...]:
        """The drafts of the next pass: one, or two that differ. A repeated pass gets the same ones.

        Args:
            drafting: whether there are positions for drafts; otherwise one token is predicted.
        """
        if self._drafts is None:
            # A pass adds the draft and one token.
            limit = max(0, min(self._most, self._room - self._written - 1)) if drafting else 0
            guesses = []
            if self.canvas is not None:
                guesses.append(self._until_end(self.canvas.draft(limit)))
            if self._lookup is not None:
                guesses.append(self._until_end(self._lookup.draft(limit)))
            drafts = [self._fit(guess, limit) for guess in guesses] or [self._fit((), 0)]
            if len(drafts) == 2:
                drafts = _different(*drafts)
            self._drafts = drafts
        return tuple(self._drafts)

    def accept(self, predictions: Sequence[Tensor], logits: Callable[[int, int], Tensor]) -> Accepted:
        """Book the predictions of a pass.

        Args:
            predictions: int64 ``[len(draft) + 1]`` per draft of :meth:`propose`, on the host.
            logits: of a draft and a row: float32 ``[vocab]``; see :meth:`CausalGuide.take`.
        """
        assert self._drafts is not None, "a pass follows its proposal"
        drafts, self._drafts = self._drafts, None
        expected = [
            [own if forced is None else forced for own, forced in zip(found.tolist(), draft.forced, strict=True)]
            for found, draft in zip(predictions, drafts, strict=True)
        ]
        agreed = [common_length(draft.tokens, found) for draft, found in zip(drafts, expected, strict=True)]
        best = agreed.index(max(agreed))
        accepted = self._read(best, drafts[best].tokens, expected[best], logits)
        self._add(accepted.tokens)
        return accepted

    def _read(
        self, number: int, draft: Sequence[int], expected: Sequence[int], logits: Callable[[int, int], Tensor]
    ) -> Accepted:
        """Take the predicted tokens, one after the other, as long as the draft agrees with them."""
        new: list[int] = []
        rows: list[int | None] = []
        ended = cut = False
        while not ended and tuple(new) == tuple(draft[: len(new)]) and len(new) < len(expected):
            row = len(new)
            token = expected[row]
            if token in self._end_ids:
                ended = True
            elif self._written + row >= self._room:
                # The room is used up. The prediction says whether the text would have ended here, too.
                ended = cut = True
            elif self.guide is None:
                new.append(token)
                rows.append(row)
                ended = cut = self._written + len(new) >= self._room
            else:
                taken = self.guide.take(token, partial(logits, number, row))
                new.extend(taken.tokens)
                rows.extend([row if taken.as_predicted else None, *[None] * len(taken.tokens[1:])][: len(taken.tokens)])
                ended = taken.ended
        cut = cut or (self.guide is not None and self.guide.cut)
        return Accepted(number, tuple(new), common_length(draft, new), tuple(rows), ended, ended and cut)

    def _fit(self, guess: Sequence[int], limit: int) -> Draft:
        if self.guide is None:
            return Draft(tuple(guess), self._uniform(len(guess) + 1), None, (None,) * (len(guess) + 1))
        walked = self.guide.walk(guess, limit)
        return Draft(walked.tokens, self._uniform(len(walked.tokens) + 1), walked.allowed, walked.forced)

    def _until_end(self, tokens: Sequence[int]) -> Sequence[int]:
        return tokens[: next((i for i, token in enumerate(tokens) if token in self._end_ids), len(tokens))]

    def _add(self, tokens: Sequence[int]) -> None:
        self._written += len(tokens)
        if self._lookup is not None:
            self._lookup.extend(tokens)

    def _uniform(self, count: int) -> Tensor:
        """The draws of the next ``count`` tokens of the answer."""
        if self.rule.greedy:
            return torch.zeros(count)
        while len(self._draws) < self._written + count:
            self._draws = torch.cat((self._draws, torch.rand(_DRAWS, generator=self._generator)))
        return self._draws[self._written : self._written + count]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning of two sequences."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _different(first: Draft, second: Draft) -> list[Draft]:
    """Both drafts, or the longer one if the other is its beginning."""
    common = common_length(first.tokens, second.tokens)
    if common == len(second.tokens):
        return [first]
    return [second] if common == len(first.tokens) else [first, second]
