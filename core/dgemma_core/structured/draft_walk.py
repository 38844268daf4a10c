"""Walks through a draft of the causal mode: how much of it a grammar allows, and what may come at each place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.matcher import Matcher


@dataclass(frozen=True)
class DraftWalk:
    """A draft within a grammar.

    Attributes:
        tokens: the draft, cut before its first token that does not fit. Where the grammar forces tokens, they stand in
            it even if the draft has others there.
        allowed: bool ``[vocab]`` before each of ``tokens``, and after the last.
        forced: for each mask the only token that may come, or None.
    """

    tokens: list[int]
    allowed: list[NDArray[np.bool_]]
    forced: list[int | None]


def walk_draft(
    matcher: Matcher, alphabet: Alphabet, ends: frozenset[int], draft: Sequence[int], limit: int
) -> DraftWalk:
    """Walk through a draft from a grammar's present state on, which is the same afterwards.

    Args:
        matcher: the grammar. It has taken everything that it forces here.
        alphabet: the tokenizer.
        ends: tokens that end a text where it is complete.
        draft: tokens, without end tokens.
        limit: tokens at most.
    """
    walk = DraftWalk([], [], [])
    everything = np.ones(alphabet.vocab_size, dtype=np.bool_)
    while True:
        allowed = allowed_tokens(matcher, alphabet, ends)
        walk.allowed.append(allowed)
        walk.forced.append(None)
        place = len(walk.tokens)
        if place >= min(len(draft), limit) or not allowed[draft[place]] or draft[place] in ends:
            break
        matcher.consume([draft[place]])
        walk.tokens.append(draft[place])
        forced = matcher.forced()[: limit - place - 1]
        matcher.consume(forced)
        for token in forced:
            walk.tokens.append(token)
            walk.allowed.append(everything)
            walk.forced.append(token)
        if len(walk.tokens) >= limit and (rest := matcher.forced()):
            walk.allowed.append(everything)
            walk.forced.append(rest[0])
            break
        if matcher.stopped:
            # The text ends there, so the last mask is not used.
            walk.allowed.append(everything)
            walk.forced.append(None)
            break
        if list(draft[place + 1 : len(walk.tokens)]) != forced[: max(0, len(draft) - place - 1)]:
            draft = ()
    matcher.rollback(len(walk.tokens))
    return walk


def allowed_tokens(matcher: Matcher, alphabet: Alphabet, ends: frozenset[int]) -> NDArray[np.bool_]:
    """The tokens that may come next, end tokens where the text is complete: bool ``[vocab]``."""
    allowed = matcher.allowed()
    # The mask may hold a control token where the grammar allows only its characters.
    for token in alphabet.specials_in(allowed):
        allowed[token] = matcher.accepts([token]) == 1
    allowed[[*ends]] = matcher.accepting
    return allowed
