"""Conversations of many short turns over one context. Every turn is a task, so few tokens carry many answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .context import Context, Frame, make_alike, make_context
from .decide import (
    BOUND,
    KINDS,
    answered,
    branch_of,
    checked,
    graded_evenly,
    holds,
    mentioned,
    related,
    route,
    statement,
)
from .example import Branch, Typed
from .lexicon import Source
from .questions import QUESTIONS
from .selection import selection_branches
from .tools import tool_branches

OPENINGS = (
    Frame("{c}\n\n{q}"),
    Frame("{c}\n\n{q}"),
    Frame("Context: {c}\n\nQuestion: {q}"),
    Frame("Context:\n{c}\n\n{q}"),
)
# Weights of the kinds of turns over facts; long answers are rare.
TURNS = {"qa": 0.3, "abstain": 0.17, "decisions": 0.28, "json": 0.11, "lists": 0.04, "typed": 0.1}


def _fact_turn(source: Source, context: Context) -> Branch:
    """One turn about the context, without repeating it."""
    task = source.rng.choices(list(TURNS), list(TURNS.values()))[0]
    if task == "typed":
        asked: list[Typed] = [source.choice(KINDS)(source, context) for _ in range(source.choice((1, 1, 1, 2, 3)))]
        return branch_of(None, "", asked)
    question, answer = QUESTIONS[task](source, context)
    return Branch(task, [{"role": "user", "content": question}], answer)


def _about_facts(source: Source, level: float) -> list[Branch]:
    context = make_context(source, source.rng.randint(1, max(1, round(3 + 6 * level))))
    turns = [_fact_turn(source, context) for _ in range(source.rng.randint(6, 8 + round(8 * max(0.0, level))))]
    first = turns[0]
    opened = source.choice(OPENINGS).messages(context.text, str(first.messages[0]["content"]).strip())
    return [replace(first, messages=list(opened)), *turns[1:]]


QUIZZES = ((holds, checked), (checked, statement), KINDS, (answered, graded_evenly, related, mentioned))


def quiz(source: Source, level: float) -> list[Branch]:
    """Many typed questions about one context, each with its answer right after it: many labels for few tokens.

    With a label every forty tokens a network of this size did not learn within hours to compare the question with the
    text; with one every ten it does within minutes.
    """
    if source.chance(0.4):
        context, kinds = make_alike(source), BOUND
    else:
        context = make_context(source, source.rng.randint(1, max(1, round(2 + 7 * level))), source.chance(0.3))
        kinds = source.choice(QUIZZES)
    count = source.rng.randint(8, 24)
    return [branch_of(None, context.text, [source.choice(kinds)(source, context) for _ in range(count)])]


def _with_tools(source: Source, level: float) -> list[Branch]:
    """Declared tools and several requests; only the first turn has the declarations and the system message."""
    turns = tool_branches(source, source.rng.randint(4, 9), max(0.0, level))
    later = [replace(t, messages=[m for m in t.messages if m["role"] != "system"], tools=None) for t in turns[1:]]
    return [*turns[:1], *later]


def _choices(source: Source, level: float) -> list[Branch]:
    kind: Callable[[Source, int], list[Branch]] = source.choice((selection_branches, route))
    return [b for _ in range(3) for b in kind(source, 3)]


def dialogue(source: Source, level: float) -> list[Branch]:
    """The turns of one conversation, in order; each branch holds only the messages since the one before."""
    turns = source.rng.choices((_about_facts, _with_tools, _choices), (0.5, 0.4, 0.1))[0](source, level)
    return turns or dialogue(source, level)
