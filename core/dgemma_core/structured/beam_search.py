"""The likeliest tokens that a grammar allows, from the distributions of a canvas's positions.

A canvas has one distribution per position, each computed without knowing the tokens drawn at the others. A beam search
over them weighs several positions together, as https://arxiv.org/abs/2602.00612 does for masked models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice

import torch
from torch import Tensor

from dgemma_core.structured.matcher import Matcher

BEAM = 8  # paths kept after every position
_CANDIDATES = 16  # likeliest allowed tokens that are tried at a single position
_READ = 64  # likeliest tokens of a position; allowed ones are looked for among them first


@dataclass(frozen=True)
class _Path:
    """Tokens that a grammar allows from a given state on.

    Attributes:
        score: log-probability of its tokens minus that of the likeliest tokens, in nats; 0 or negative.
        tokens: token ids, an end token included.
        matcher: the grammar after these tokens; None where the text has ended.
    """

    score: float
    tokens: tuple[int, ...]
    matcher: Matcher | None


class TokenSearch:
    """Finds likely tokens that a grammar allows. It never changes the matchers it is given.

    Args:
        ends: tokens that end a draft; allowed where the text is complete.
    """

    def __init__(self, ends: frozenset[int]) -> None:
        self._ends = ends

    def candidates(self, matcher: Matcher, logits: Tensor) -> Iterator[int]:
        """The likeliest allowed tokens of one position, the likeliest first; end tokens may be among them.

        Args:
            matcher: the grammar before the position.
            logits: ``[vocab]``.
        """
        allowed = self._allowed(matcher)
        count = min(_CANDIDATES, int(allowed.sum()))
        for token in logits.masked_fill(~allowed, -torch.inf).topk(count).indices.tolist():
            if self._can_follow(matcher, token):
                yield token

    def best_path(self, matcher: Matcher, logits: Tensor, count: int) -> tuple[int, ...] | None:
        """The likeliest allowed tokens of consecutive positions, found by a beam search.

        Args:
            matcher: the grammar before the first position.
            logits: ``[n, vocab]`` of the positions, ``n >= count``.
            count: tokens wanted. The positions after them take part in the choice. The text may end at the last of
                these tokens or later, not earlier.

        Returns:
            At most ``count`` token ids, fewer only where the text ends; None if the grammar allows no tokens.
        """
        # Scores are differences to the likeliest token. A path that has ended gets no further scores, and with plain
        # log-probabilities, which are negative, it would win by being short.
        regret = logits - logits.max(-1, keepdim=True).values
        values, ids = regret.topk(min(_READ, regret.shape[-1]))
        paths = [_Path(0.0, (), matcher.copy())]
        for place, row in enumerate(regret):
            likely = (values[place], ids[place])
            options = [option for path in paths for option in self._options(path, row, likely, place >= count - 1)]
            paths = [self._extend(*option) for option in nlargest(BEAM, options, key=lambda option: option[0])]
        return paths[0].tokens[:count] if paths else None

    def _options(
        self, path: _Path, row: Tensor, likely: tuple[Tensor, Tensor], may_end: bool
    ) -> list[tuple[float, _Path, int | None]]:
        """The best ways to continue a path by one position: new score, path and token, the best first."""
        matcher = path.matcher
        if matcher is None:
            return [(path.score, path, None)]
        allowed = self._allowed(matcher)
        if not may_end:
            allowed[[*self._ends]] = False
        values, ids = likely
        fitting = allowed[ids]
        good = zip(values[fitting].tolist(), ids[fitting].tolist(), strict=True)
        taken = list(islice((option for option in good if self._can_follow(matcher, option[1])), BEAM))
        if not taken:
            best = row.masked_fill(~allowed, -torch.inf).max(-1)
            value, token = float(best.values), int(best.indices)
            taken = [(value, token)] if allowed[token] and self._can_follow(matcher, token) else []
        return [(path.score + value, path, token) for value, token in taken]

    def _extend(self, score: float, path: _Path, token: int | None) -> _Path:
        if path.matcher is None or token is None:
            return path
        matcher: Matcher | None = None
        if token not in self._ends:
            matcher = path.matcher.copy()
            matcher.consume([token])
        return _Path(score, (*path.tokens, token), None if matcher is None or matcher.stopped else matcher)

    def _allowed(self, matcher: Matcher) -> Tensor:
        """The tokens that may come next, end tokens where the text is complete: bool ``[vocab]``."""
        allowed = torch.from_numpy(matcher.allowed())
        allowed[[*self._ends]] = matcher.accepting
        return allowed

    def _can_follow(self, matcher: Matcher, token: int) -> bool:
        # The matcher's mask may hold a control token where the grammar allows only its characters.
        return token in self._ends or matcher.accepts([token]) == 1
