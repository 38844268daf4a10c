"""Grammar-true text from a model that writes all positions at once: draft, verify, repair.

Masking position by position, as autoregressive engines do, does not work here: un-accepted positions are random tokens
and the committed text is the last step's argmax canvas. So the canvas is denoised freely until it settles (the draft),
its argmax tokens are walked through the grammar (verify), and the first token that cannot follow is replaced by the
best one that can, by the canvas's own distribution (repair). What is verified is pinned; the rest is denoised on and
adapts.

The idea of drafting freely and constraining afterwards is that of https://arxiv.org/abs/2603.03305, the look ahead over
the parallel distributions that of https://arxiv.org/abs/2602.00612, both for masked models.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from dgemma_core.canvas import Canvas
from dgemma_core.errors import AnswerBudgetError
from dgemma_core.readout import Rows
from dgemma_core.structured.completion import short_completion
from dgemma_core.structured.matcher import Alphabet, Matcher

# Denoising steps that the rest of a canvas gets to adapt to a repair before it is looked at again.
REPAIR_STEPS = 8
# Where the best token is less sure than this, so many candidates are compared by what could follow them.
SURE, BEAM, LOOK_AHEAD = 0.9, 4, 4
_CANDIDATES = 16
_LONGEST = 1024  # Shortest answers up to this length are told when they do not fit.


class GrammarWalk:
    """A grammar's state at the end of what is verified, and the room left for the rest.

    At every moment a known way to a complete text fits into the room left (the promise), so the text can always be
    finished; a token that would break the promise counts as refused.

    Args:
        matcher: at the beginning of the grammar.
        alphabet: the tokenizer.
        hints: texts that may complete a string, see ``string_hints``.
        room: tokens the text may take.

    Raises:
        AnswerBudgetError: no complete text was found that fits ``room``.
    """

    def __init__(self, matcher: Matcher, alphabet: Alphabet, hints: Sequence[str], room: int) -> None:
        self._matcher = matcher
        self._alphabet = alphabet
        self._hints = hints
        self.room = room
        way = short_completion(matcher, alphabet, max(room, _LONGEST), hints)
        if way is None or len(way) > room:
            raise AnswerBudgetError(None if way is None else len(way), room)
        self._promise = way

    @property
    def stopped(self) -> bool:
        """Whether the text is complete and nothing can follow."""
        return self._matcher.stopped or self.room == 0

    def cut_before(self, rest: Sequence[int]) -> bool:
        """Whether the text ends here for want of room, while the draft goes on with ``rest``."""
        return self.room == 0 and not self._matcher.stopped and not (rest and rest[0] in self._alphabet.end_ids)

    def ends_after(self, draft: Sequence[int]) -> int | None:
        """Length of the part of ``draft`` that would make the text complete, with its end token, if it would."""
        body = draft[: self._first_end(draft)]
        taken = self._matcher.accepts(body)
        self._matcher.consume(body[:taken])
        stopped, accepting = self._matcher.stopped, self._matcher.accepting
        self._matcher.rollback(taken)
        if stopped:
            return taken
        return taken + 1 if accepting and taken == len(body) < len(draft) else None

    def accepts(self, draft: Sequence[int]) -> int:
        """How many tokens of ``draft`` could follow."""
        return self._matcher.accepts(draft[: self._first_end(draft)])

    def take(self, draft: Sequence[int]) -> tuple[list[int], bool]:
        """Verify the longest beginning of ``draft`` that can follow and keeps the promise.

        Returns:
            The tokens taken, and whether the text ends behind them.
        """
        body = list(draft[: self._first_end(draft)])
        count = self._matcher.accepts(body)
        way = self._way_after(body[:count]) if count else None
        if count and way is None:
            low, high = 0, count - 1
            while low < high:  # Any beginning that keeps the promise will do; a long one is wanted.
                middle = (low + high + 1) // 2
                shorter = self._way_after(body[:middle])
                if shorter is None:
                    high = middle - 1
                else:
                    low, way = middle, shorter
            count = low
        if way is not None:
            self._follow(body[:count], way)
        ended = count == len(body) < len(draft) and self._matcher.accepting
        return body[:count], ended or self.stopped

    def take_forced(self, limit: int) -> list[int]:
        """Verify up to ``limit`` tokens that must follow anyway."""
        forced = self._matcher.forced()[:limit]
        way = self._way_after(forced) if forced else None
        if way is None:
            return []
        self._follow(forced, way)
        return forced

    def repair(self, logits: Tensor, limit: int, careful: bool) -> list[int] | None:
        """Verify the best token that can follow, or several where room runs out.

        Args:
            logits: ``[n, vocab]`` of this position and those behind it.
            limit: tokens at most.
            careful: compare candidates by what could follow them, where the best is not sure.

        Returns:
            At least one token, or None where the best is that the text ends here.
        """
        allowed = torch.from_numpy(self._matcher.allowed())
        scores = logits[0].masked_fill(~allowed, -torch.inf)
        probabilities = scores.softmax(-1)
        likely, tokens = probabilities.topk(min(_CANDIDATES, int(allowed.sum())))
        wanted = BEAM if careful and float(likely[0]) < SURE else 1
        ends = self._alphabet.end_ids
        ways = ((token, [] if token in ends else self._way_after([token])) for token in tokens.tolist())
        candidates = dict(islice(((token, way) for token, way in ways if way is not None), wanted))
        if not candidates:
            way = self._promise[:limit]
            self._matcher.consume(way)
            self.room -= len(way)
            self._promise = self._promise[limit:]
            return way or None
        best = next(iter(candidates))
        if len(candidates) > 1:
            best = max(candidates, key=lambda token: self._outlook(token, logits))
        if best in ends:
            return None
        self._follow([best], candidates[best])
        return [best]

    def _outlook(self, token: int, logits: Tensor) -> float:
        """Mean log-probability of ``token`` and the best that the next positions could hold after it."""
        state = self._matcher.copy()
        total, count = 0.0, 0
        for row in logits.log_softmax(-1):
            total, count = total + float(row[token]), count + 1
            if token in self._alphabet.end_ids:
                break
            state.consume([token])
            if state.stopped:
                break
            mask = torch.from_numpy(state.allowed())
            if count < len(logits):
                token = int(logits[count].masked_fill(~mask, -torch.inf).argmax())
        return total / count

    def _first_end(self, tokens: Sequence[int]) -> int:
        return next((i for i, token in enumerate(tokens) if token in self._alphabet.end_ids), len(tokens))

    def _way_after(self, tokens: Sequence[int]) -> list[int] | None:
        """A way to a complete text behind acceptable tokens, None if none fits the room. Changes nothing."""
        left = self.room - len(tokens)
        if left < 0:
            return None
        self._matcher.consume(tokens)
        way = self._way(left)
        self._matcher.rollback(len(tokens))
        return way

    def _follow(self, tokens: Sequence[int], way: list[int]) -> None:
        """Let tokens follow whose way to a complete text is known."""
        self._matcher.consume(tokens)
        self.room -= len(tokens)
        self._promise = way

    def _way(self, left: int) -> list[int] | None:
        if self._matcher.accepting:
            return []
        # Often the old way, or what is left of it, still leads to the end: asking is cheaper than searching.
        for skipped in range(min(3, len(self._promise))):
            way = self._promise[skipped:]
            if len(way) <= left and self._matcher.accepts(way) == len(way):
                self._matcher.consume(way)
                complete = self._matcher.accepting
                self._matcher.rollback(len(way))
                if complete:
                    return way
        return short_completion(self._matcher, self._alphabet, left, self._hints)


class GrammarRegion:
    """Walks a grammar through consecutive positions of canvases.

    Args:
        walk: the grammar.
    """

    def __init__(self, walk: GrammarWalk) -> None:
        self.walk = walk
        self.complete = False
        self._repaired_at = 0

    def open(self, canvas: Canvas, start: int, stop: int) -> int:
        """Pin what must stand at the beginning; returns the first position that is not verified."""
        self._repaired_at = 0
        at = self._pin(canvas, start, self.walk.take_forced(stop - start))
        self.complete = self.walk.stopped
        return at

    def review(self, canvas: Canvas, start: int, stop: int, settled: bool, rows: Rows) -> int:
        """Verify ``[start, stop)`` if it is time to; returns the first position that is not verified.

        :attr:`complete` says afterwards whether the text ends there. Less than ``stop`` otherwise means that the rest
        wants further denoising.
        """
        waited = canvas.steps - self._repaired_at
        if self.complete or not (settled or (self._repaired_at and waited >= REPAIR_STEPS)):
            return start
        at = first = start
        logits: Tensor | None = None
        while at < stop:
            taken, self.complete = self.walk.take(canvas.argmax[at:stop].tolist())
            at = self._pin(canvas, at, taken)
            if self.complete or at == stop:
                return at
            if logits is None:
                first, logits = at, rows.logits(at, stop if canvas.exhausted else min(stop, at + LOOK_AHEAD))
            repaired = self.walk.repair(logits[at - first :], stop - at, careful=not canvas.exhausted)
            if repaired is None:
                self.complete = True
                return at
            at = self._pin(canvas, at, repaired)
            at = self._pin(canvas, at, self.walk.take_forced(stop - at))
            self.complete = self.walk.stopped
            if self.complete or not canvas.exhausted:
                break
        self._repaired_at = canvas.steps
        if not self.complete and at < stop:
            canvas.disturb(at, at + self.walk.accepts(canvas.argmax[at:stop].tolist()), stop)
        return at

    @staticmethod
    def _pin(canvas: Canvas, at: int, tokens: Sequence[int]) -> int:
        canvas.pin(at, tokens)
        return at + len(tokens)


class GrammarGuide:
    """A :class:`dgemma_core.guide.Guide` for answers that are one text of a grammar, over as many canvases as it takes.

    Args:
        walk: at the beginning.
    """

    reads = None

    def __init__(self, walk: GrammarWalk) -> None:
        self._region = GrammarRegion(walk)
        self._at = 0
        self.end: int | None = None
        self.cut = False

    def open(self, canvas: Canvas) -> None:
        """Pin the forced beginning."""
        self._at = self._region.open(canvas, 0, canvas.length)

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Verify the canvas when it has settled; done when the text ends or the canvas is full."""
        self._at = self._region.review(canvas, self._at, canvas.length, settled, rows)
        if self._region.complete:
            self.end = self._at
            self.cut = self._region.walk.cut_before(canvas.argmax[self._at :].tolist())
            return True
        if self._at < canvas.length:
            ahead = self._region.walk.ends_after(canvas.argmax[self._at :].tolist())
            canvas.horizon = None if ahead is None else self._at + ahead
            return False
        return True
