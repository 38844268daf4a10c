"""Grammar-true text from a model that writes all positions at once: draft, verify, repair.

Masking position by position, as autoregressive engines do, does not work here: un-accepted positions are random tokens
and the committed text is the last step's argmax canvas. So the canvas is denoised freely (the draft), and after every
step the part at its front that is sure of itself is walked through the grammar (verify). Where a token cannot follow,
the likeliest tokens that can are searched for from a few positions before it on, by the canvas's own distributions
(repair): the mistake is often earlier than where it shows, as in a tool's name that began like another's. The same is
done where the draft says something else than what must follow the front: a sure first letter may leave only one name,
and be wrong. Behind a repair the canvas is denoised anew and adapts.

The idea of drafting freely and constraining afterwards is that of https://arxiv.org/abs/2603.03305, the look ahead over
the parallel distributions that of https://arxiv.org/abs/2602.00612, both for masked models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice

import torch
from torch import Tensor

from dgemma_core.denoise.canvas import Canvas, leading
from dgemma_core.denoise.guide import Rows
from dgemma_core.errors import AnswerBudgetError
from dgemma_core.structured.endings import short_ending
from dgemma_core.structured.matcher import Alphabet, Matcher

# A repair begins at most so many tokens before the one that cannot follow, and looks at so many from that one on.
BACK, AHEAD = 8, 6
# With fewer denoising steps left, what stands behind a repair is not begun anew.
RENEWAL = 4
BEAM = 8
_CANDIDATES = 16  # for one position
_READ = 64  # likeliest tokens of a position, among which the allowed ones are looked for first
_LONGEST = 1024  # Shortest answers up to this length are told when they do not fit.


@dataclass(frozen=True)
class _Path:
    """One way through a grammar that a beam search follows.

    Attributes:
        score: how much less likely its tokens are than the likeliest ones, in nats and negative.
        tokens: token ids, an end token included.
        matcher: behind them; None where the text is at its end.
    """

    score: float
    tokens: tuple[int, ...]
    matcher: Matcher | None


class GrammarCursor:
    """A grammar's state at the end of what is verified, and the room left for the rest.

    At every moment a known way to a complete text fits into the room left (the promise), so the text can always be
    finished; a token that would break the promise counts as refused.

    Args:
        matcher: at the beginning of the grammar.
        alphabet: the tokenizer.
        hints: texts that may complete a string, see ``string_hints``.
        room: tokens the text may take.
        ends: tokens that end a draft; by default those that end an answer.

    Raises:
        AnswerBudgetError: no complete text was found that fits ``room``.
    """

    def __init__(
        self,
        matcher: Matcher,
        alphabet: Alphabet,
        hints: Sequence[str],
        room: int,
        ends: frozenset[int] | None = None,
    ) -> None:
        self._matcher = matcher
        self._alphabet = alphabet
        self._hints = hints
        self._ends = alphabet.end_ids if ends is None else ends
        self.room = room
        way = short_ending(matcher, alphabet, max(room, _LONGEST), hints)
        if way is None or len(way) > room:
            raise AnswerBudgetError(None if way is None else len(way), room)
        self._promise = way

    @property
    def stopped(self) -> bool:
        """Whether the text is complete and nothing can follow."""
        return self._matcher.stopped or self.room == 0

    def cut_before(self, rest: Sequence[int]) -> bool:
        """Whether the text ends here for want of room, while the draft goes on with ``rest``."""
        return self.room == 0 and not self._matcher.stopped and not (rest and rest[0] in self._ends)

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

    def fits(self, draft: Sequence[int]) -> int:
        """How many tokens of ``draft`` could follow: all of them, where an end token among them may stand."""
        end = self._first_end(draft)
        taken = self._matcher.accepts(draft[:end])
        if taken < end or end == len(draft):
            return taken
        self._matcher.consume(draft[:end])
        accepting = self._matcher.accepting
        self._matcher.rollback(end)
        return len(draft) if accepting else end

    def forced_after(self, draft: Sequence[int]) -> list[int]:
        """Tokens that must follow behind ``draft``, which could follow itself; none behind an end token."""
        if self._first_end(draft) < len(draft):
            return []
        self._matcher.consume(draft)
        forced = self._matcher.forced()
        self._matcher.rollback(len(draft))
        return forced

    def take(self, draft: Sequence[int]) -> tuple[list[int], bool]:
        """Verify the longest beginning of ``draft`` that can follow and keeps the promise.

        Returns:
            The tokens taken, and whether the text ends behind them.
        """
        body = list(draft[: self._first_end(draft)])
        count = self._matcher.accepts(body)
        if count and not self._follow(body[:count]):
            kept, most = 0, count - 1
            while kept < most:  # Any beginning that keeps the promise will do; a long one is wanted.
                middle = (kept + most + 1) // 2
                if self._follow(body[kept:middle]):
                    kept = middle
                else:
                    most = middle - 1
            count = kept
        ended = count == len(body) < len(draft) and self._matcher.accepting
        return body[:count], ended or self.stopped

    def take_forced(self, limit: int) -> list[int]:
        """Verify up to ``limit`` tokens that must follow anyway."""
        forced = self._matcher.forced()[:limit]
        return forced if forced and self._follow(forced) else []

    def loose_end(self, draft: Sequence[int]) -> Sequence[int]:
        """The tokens at the end of ``draft`` that a search may exchange.

        Those behind the last token that begins or ends free text: without it nearly everything fits, and what is wrong
        would be hidden in a string.
        """
        marks = (place for place, token in enumerate(reversed(draft)) if token in self._alphabet.delimiters)
        return draft[len(draft) - next(marks, len(draft)) :]

    def search(self, logits: Tensor, count: int) -> tuple[list[int], bool] | None:
        """Verify the likeliest ``count`` tokens, found by a beam search over the canvas's parallel distributions.

        Args:
            logits: ``[n, vocab]`` of this position and those behind it, ``n >= count``.
            count: so many are verified. What could stand behind them takes part in the choice. The text may end at the
                last of them.

        Returns:
            The tokens, fewer where the text ends among them, and whether it does; None if they would break the promise.
        """
        # How much less likely a token is than the likeliest: so a path that has ended, which costs nothing any more, is
        # not better off for that.
        regret = logits - logits.max(-1, keepdim=True).values
        values, ids = regret.topk(min(_READ, regret.shape[-1]))
        paths = [_Path(0.0, (), self._matcher.copy())]
        for place, row in enumerate(regret):
            likely = (values[place], ids[place])
            options = [option for path in paths for option in self._options(path, row, likely, place >= count - 1)]
            paths = [self._extend(*option) for option in nlargest(BEAM, options, key=lambda option: option[0])]
        return self._take_until_end(paths[0].tokens[:count]) if paths else None

    def _options(
        self, path: _Path, row: Tensor, likely: tuple[Tensor, Tensor], may_end: bool
    ) -> list[tuple[float, _Path, int | None]]:
        """What may follow a path by one position's row, its best sorted: the score with it, the path, and the token."""
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

    def _allowed(self, matcher: Matcher) -> Tensor:
        """What could follow, or end the text: bool ``[vocab]``."""
        allowed = torch.from_numpy(matcher.allowed())
        allowed[[*self._ends]] = matcher.accepting
        return allowed

    def _can_follow(self, matcher: Matcher, token: int) -> bool:
        # A mask may hold a control token where only its characters could stand.
        return token in self._ends or matcher.accepts([token]) == 1

    def _extend(self, score: float, path: _Path, token: int | None) -> _Path:
        if path.matcher is None or token is None:
            return path
        matcher: Matcher | None = None
        if token not in self._ends:
            matcher = path.matcher.copy()
            matcher.consume([token])
        return _Path(score, (*path.tokens, token), None if matcher is None or matcher.stopped else matcher)

    def _take_until_end(self, tokens: Sequence[int]) -> tuple[list[int], bool] | None:
        body = list(tokens[: self._first_end(tokens)])
        if not self._follow(body):
            return None
        return body, len(body) < len(tokens) or self.stopped

    def repair(self, logits: Tensor, limit: int) -> tuple[list[int], bool]:
        """Verify the likeliest token that can follow and keeps the promise, or several where room runs out.

        Args:
            logits: ``[vocab]`` of this position.
            limit: tokens at most.

        Returns:
            The tokens and whether the text ends behind them: at least one token, or the end.
        """
        allowed = self._allowed(self._matcher)
        tokens = logits.masked_fill(~allowed, -torch.inf).topk(min(_CANDIDATES, int(allowed.sum()))).indices.tolist()
        for token in tokens:
            if token in self._ends:
                return [], True
            repaired = self._take_until_end([token]) if self._can_follow(self._matcher, token) else None
            if repaired:
                return repaired
        way, rest = self._promise[:limit], self._promise[limit:]
        self._matcher.consume(way)
        self.room, self._promise = self.room - len(way), rest
        return way, not way or self.stopped

    def _first_end(self, tokens: Sequence[int]) -> int:
        return next((i for i, token in enumerate(tokens) if token in self._ends), len(tokens))

    def _follow(self, tokens: Sequence[int]) -> bool:
        """Let acceptable tokens follow, if a way to a complete text fits the room behind them."""
        left = self.room - len(tokens)
        if left < 0:
            return False
        self._matcher.consume(tokens)
        way = self._way(left)
        if way is None:
            self._matcher.rollback(len(tokens))
            return False
        self.room, self._promise = left, way
        return True

    def _way(self, left: int) -> list[int] | None:
        """A way to a complete text of at most ``left`` tokens, None if none is found."""
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
        return short_ending(self._matcher, self._alphabet, left, self._hints)


class GrammarRegion:
    """Walks a grammar through consecutive positions of canvases.

    Args:
        cursor: the grammar.
    """

    def __init__(self, cursor: GrammarCursor) -> None:
        self.cursor = cursor
        self.complete = False

    def open(self, canvas: Canvas, start: int, stop: int) -> int:
        """Pin what must stand at the beginning; returns the first position that is not verified."""
        return start if self.complete else self._pin_forced(canvas, start, stop)

    def review(self, canvas: Canvas, start: int, stop: int, settled: bool, rows: Rows) -> int:
        """Keep the front of ``[start, stop)`` within the grammar; returns the first position that is not verified.

        :attr:`complete` says afterwards whether the text ends there. Less than ``stop`` otherwise means that the rest
        wants further denoising.
        """
        if self.complete or start == stop:
            return start
        stop = min(stop, start + self.cursor.room)
        if canvas.exhausted:
            return self._finish(canvas, start, stop, rows)
        draft = canvas.draft(start, stop)
        front = len(draft) if settled else leading(canvas.steady[start:stop])
        fits = self.cursor.fits(draft)
        if fits < front:
            return self._mend(canvas, start, start + fits, stop, rows)
        if settled:
            at = self._take(canvas, start, stop)
            # What the grammar allows may still be too long for the room.
            return at if self.complete or at == stop else self._mend(canvas, at, at, stop, rows)
        if fits == len(draft) or fits >= front + len(self.cursor.forced_after(draft[:front])):
            return start
        # Behind the front stands something else than what must: one of the two is wrong.
        return self._mend(canvas, start, start + fits, stop, rows)

    def _mend(self, canvas: Canvas, start: int, place: int, stop: int, rows: Rows) -> int:
        """Replace the draft's token at ``place``, which cannot follow, and maybe some before it."""
        before = self.cursor.loose_end(canvas.draft(max(start, place - BACK), place))
        begin, sure = place - len(before), bool(canvas.steady[place])
        at = self._take(canvas, start, begin)
        found = None
        if at == begin and not self.complete:
            found = self.cursor.search(rows.logits(begin, min(stop, place + AHEAD)), place + 1 - begin)
        if found is None and not self.complete:
            at = self._take(canvas, at, place)
            found = None if self.complete else self.cursor.repair(rows.logits(at, at + 1)[0], stop - at)
        if found is not None:
            at = self._pin(canvas, at, *found)
        if not self.complete:
            at = self._pin_forced(canvas, at, stop)
        # What is not sure yet and follows what it followed before adapts by itself.
        adapts = not sure and found is not None and found[0][: len(before)] == before
        if not adapts and not self.complete and at < stop and canvas.steps_left >= RENEWAL:
            canvas.disturb(at, stop)
        return at

    def _finish(self, canvas: Canvas, start: int, stop: int, rows: Rows) -> int:
        """Verify and repair up to ``stop`` or the text's end by what the last step has said."""
        at = first = self._take(canvas, start, stop)
        if self.complete or at == stop:
            return at
        logits = rows.logits(at, stop)
        while not self.complete and at < stop:
            at = self._pin(canvas, at, *self.cursor.repair(logits[at - first], stop - at))
            if not self.complete:
                at = self._pin_forced(canvas, at, stop)
            if not self.complete:
                at = self._take(canvas, at, stop)
        return at

    def _take(self, canvas: Canvas, at: int, stop: int) -> int:
        """Verify the draft from ``at`` on, as far as it can follow."""
        return self._pin(canvas, at, *self.cursor.take(canvas.draft(at, stop)))

    def _pin_forced(self, canvas: Canvas, at: int, stop: int) -> int:
        return self._pin(canvas, at, self.cursor.take_forced(stop - at), self.cursor.stopped)

    def _pin(self, canvas: Canvas, at: int, tokens: Sequence[int], complete: bool) -> int:
        canvas.pin(at, tokens)
        self.complete = complete
        return at + len(tokens)


class GrammarGuide:
    """A :class:`~dgemma_core.denoise.guide.Guide` for answers that are one text of a grammar, on one or more canvases.

    Args:
        cursor: at the beginning.
    """

    reads = None

    def __init__(self, cursor: GrammarCursor) -> None:
        self._region = GrammarRegion(cursor)
        self._at = 0
        self.end: int | None = None
        self.cut = False

    def open(self, canvas: Canvas) -> None:
        """Pin the forced beginning."""
        self._at = self._region.open(canvas, 0, canvas.length)

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Keep the canvas within the grammar; done when the text ends or the canvas is full."""
        self._at = self._region.review(canvas, self._at, canvas.length, settled, rows)
        if self._region.complete:
            self.end = self._at
            self.cut = self._region.cursor.cut_before(canvas.draft(self._at, canvas.length))
            return True
        if self._at < canvas.length:
            ahead = self._region.cursor.ends_after(canvas.draft(self._at, canvas.length))
            canvas.horizon = None if ahead is None else self._at + ahead
            return False
        return True
