"""A position in a grammar: what is verified so far, and how many tokens the rest may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from torch import Tensor

from dgemma_core.errors import AnswerBudgetError
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.beam_search import TokenSearch
from dgemma_core.structured.draft_walk import DraftWalk, walk_draft
from dgemma_core.structured.endings import short_ending
from dgemma_core.structured.matcher import Matcher
from dgemma_core.structured.shortfall import Shortfall

_LONGEST = 1024  # The error names the shortest ending only up to this length.


class GrammarCursor:
    """A grammar's state after the verified tokens, and the room left for the rest of the text.

    The cursor always knows an ending: tokens that complete the text and fit the room left. So the text can be finished
    at any moment. A token after which no ending is found within the room counts as refused.

    Args:
        matcher: at the beginning of the grammar.
        alphabet: the tokenizer.
        hints: texts that may complete a string, see ``string_hints``.
        room: tokens the text may take.
        ends: tokens that end a draft; by default those that end an answer.

    Attributes:
        room: tokens the text may still take.

    Raises:
        AnswerBudgetError: no ending was found that fits ``room``.
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
        self._search = TokenSearch(self._ends)
        self._shortfall = Shortfall(alphabet.bytes_of)
        self.room = room
        ending = short_ending(matcher, alphabet, max(room, _LONGEST), hints)
        if ending is None or len(ending) > room:
            raise AnswerBudgetError(None if ending is None else len(ending), room)
        self._ending = ending

    @property
    def stopped(self) -> bool:
        """Whether the text is complete and nothing can follow."""
        return self._matcher.stopped or self.room == 0

    @property
    def complete(self) -> bool:
        """Whether the grammar lets nothing follow."""
        return self._matcher.stopped

    @property
    def shortened(self) -> bool:
        """Whether the text is another one than with more room."""
        return self._shortfall.lost

    def cut_before(self, rest: Sequence[int], logits: Callable[[], Tensor] | None = None) -> bool:
        """Whether the text, which ends here, would have been another one with more room.

        Args:
            rest: the draft after the text; empty if nothing is known of it.
            logits: ``[1, vocab]`` of the position after the text, ``[0, vocab]`` if they are not known. They are read
                where the draft's next token cannot follow.
        """
        if self._shortfall.lost:
            return True
        if self.room or self._matcher.stopped:
            return False
        if not rest:
            return True
        if rest[0] in self._ends or self._matcher.accepts(rest[:1]):
            return rest[0] not in self._ends
        known = None if logits is None else logits()
        if known is None or not len(known):
            return True
        return any(token not in self._ends for token in islice(self._search.candidates(self._matcher, known[0]), 1))

    def ends_after(self, draft: Sequence[int]) -> int | None:
        """How many tokens of ``draft``, its end token included, make the text complete; None if they do not."""
        body = draft[: self._first_end(draft)]
        taken = self._matcher.accepts(body)
        self._matcher.consume(body[:taken])
        stopped, accepting = self._matcher.stopped, self._matcher.accepting
        self._matcher.rollback(taken)
        if stopped:
            return taken
        return taken + 1 if accepting and taken == len(body) < len(draft) else None

    def fits(self, draft: Sequence[int]) -> int:
        """How many tokens of ``draft`` could follow; all of them if the text is complete at its first end token."""
        end = self._first_end(draft)
        taken = self._matcher.accepts(draft[:end])
        if taken < end or end == len(draft):
            return taken
        self._matcher.consume(draft[:end])
        accepting = self._matcher.accepting
        self._matcher.rollback(end)
        return len(draft) if accepting else end

    def forced_after(self, draft: Sequence[int]) -> list[int]:
        """The only tokens the grammar allows after ``draft``, which must fit; none if ``draft`` has an end token."""
        if self._first_end(draft) < len(draft):
            return []
        self._matcher.consume(draft)
        forced = self._matcher.forced()
        self._matcher.rollback(len(draft))
        return forced

    def walk(self, draft: Sequence[int], limit: int) -> DraftWalk:
        """Walk through a draft of the causal mode, at most ``limit`` tokens of it. Changes nothing."""
        return walk_draft(self._matcher, self._alphabet, self._ends, draft, limit)

    def loose_end(self, draft: Sequence[int]) -> Sequence[int]:
        """The last tokens of ``draft`` that a search may exchange: those after its last delimiter of free text.

        If the search could exchange the delimiter, it could open a string there. Nearly everything fits in a string, so
        the mistake would stay hidden in it.
        """
        marks = (place for place, token in enumerate(reversed(draft)) if token in self._alphabet.delimiters)
        return draft[len(draft) - next(marks, len(draft)) :]

    def take(self, draft: Sequence[int], limit: int | None = None) -> tuple[list[int], bool]:
        """Verify the first tokens of ``draft``, as many as can follow and leave room for an ending.

        Args:
            draft: the tokens.
            limit: most tokens to verify, by default all of them. The others only tell what the draft wants.

        Returns:
            The tokens taken, and whether the text ends after them.
        """
        whole = list(draft[: self._first_end(draft)])
        draft = draft[:limit]
        body = whole[:limit]
        count = self._matcher.accepts(body)
        if count and not self._follow(body[:count]):
            kept, most = 0, count - 1
            # Bisection: it may miss the longest part that leaves room for an ending, but it needs few searches.
            while kept < most:
                middle = (kept + most + 1) // 2
                if self._follow(body[kept:middle]):
                    kept = middle
                else:
                    most = middle - 1
            count = kept
            wanted = whole[count:]
            self._shortfall.refuse(wanted[: self._matcher.accepts(wanted)])
        ended = count == len(body) < len(draft) and self._matcher.accepting
        return body[:count], ended or self.stopped

    def take_forced(self, limit: int) -> list[int]:
        """Verify the tokens that the grammar forces here, at most ``limit``."""
        forced = self._matcher.forced()[:limit]
        return forced if forced and self._follow(forced) else []

    def search(self, logits: Tensor, count: int) -> tuple[list[int], bool] | None:
        """Verify the likeliest ``count`` tokens that fit, found by :meth:`TokenSearch.best_path`.

        Args:
            logits: ``[n, vocab]`` of this position and the next ones, ``n >= count``.
            count: tokens to verify.

        Returns:
            The tokens, fewer where the text ends among them, and whether it ends; None if no tokens were found or they
            leave no room for an ending.
        """
        path = self._search.best_path(self._matcher, logits, count)
        if path is None:
            return None
        found = self._take_until_end(path)
        if found is None:
            self._shortfall.refuse(path[: self._first_end(path)])
        return found

    def repair(self, logits: Tensor, limit: int) -> tuple[list[int], bool]:
        """Verify the likeliest token that fits and leaves room for an ending; otherwise the known ending.

        Args:
            logits: ``[vocab]`` of this position.
            limit: tokens at most.

        Returns:
            The tokens, and whether the text ends after them: at least one token, or the end.
        """
        for place, token in enumerate(self._search.candidates(self._matcher, logits)):
            if token in self._ends:
                return [], True
            repaired = self._take_until_end([token])
            if repaired:
                return repaired
            if place == 0:
                self._shortfall.refuse([token])
        ending, rest = self._ending[:limit], self._ending[limit:]
        self._matcher.consume(ending)
        self._shortfall.take(ending)
        self.room, self._ending = self.room - len(ending), rest
        return ending, not ending or self.stopped

    def _first_end(self, tokens: Sequence[int]) -> int:
        return next((i for i, token in enumerate(tokens) if token in self._ends), len(tokens))

    def _take_until_end(self, tokens: Sequence[int]) -> tuple[list[int], bool] | None:
        body = list(tokens[: self._first_end(tokens)])
        if not self._follow(body):
            return None
        return body, len(body) < len(tokens) or self.stopped

    def _follow(self, tokens: Sequence[int]) -> bool:
        """Consume tokens that fit, if an ending fits the room after them; returns whether it did."""
        left = self.room - len(tokens)
        if left < 0:
            return False
        self._matcher.consume(tokens)
        ending = self._find_ending(left)
        if ending is None:
            self._matcher.rollback(len(tokens))
            return False
        self._shortfall.take(tokens)
        self.room, self._ending = left, ending
        return True

    def _find_ending(self, left: int) -> list[int] | None:
        """An ending of at most ``left`` tokens; None if none is found."""
        if self._matcher.accepting:
            return []
        # The ending known so far, or its rest, often still fits: checking that is cheaper than a search.
        for skipped in range(min(3, len(self._ending))):
            ending = self._ending[skipped:]
            if len(ending) <= left and self._matcher.accepts(ending) == len(ending):
                self._matcher.consume(ending)
                complete = self._matcher.accepting
                self._matcher.rollback(len(ending))
                if complete:
                    return ending
        return short_ending(self._matcher, self._alphabet, left, self._hints)
