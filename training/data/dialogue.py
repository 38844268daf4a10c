"""Conversations of many short turns over one context: every turn is a task, so few tokens carry many answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dgemma_core.structured.questions import render_questions

from .context import Context, Frame, make_context, sentence
from .decide import KINDS, Typed, branch_of, decide, route
from .example import Branch
from .lexicon import Source
from .questions import QUESTIONS, other_value
from .selection import selection_branches
from .tools import tool_branches

OPENINGS = (
    Frame("{c}\n\n{q}"),
    Frame("{c}\n\n{q}"),
    Frame("Context: {c}\n\nQuestion: {q}"),
    Frame("Context:\n{c}\n\n{q}"),
)
Labelled = list[tuple[str, bool]]  # lines, and whether what each says is right
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


def _drill(source: Source, level: float) -> list[Branch]:
    """Many decisions about a few facts; comparing is learned late and from many labels only."""
    context = make_context(source, source.rng.randint(1, max(1, round(2 + 4 * level))))
    questions = [QUESTIONS["decisions"](source, context) for _ in range(source.rng.randint(10, 20))]
    messages = [[{"role": "user", "content": question}] for question, _ in questions]
    messages[0] = list(source.choice(OPENINGS).messages(context.text, questions[0][0]))
    return [Branch("decisions", asked, answer) for asked, (_, answer) in zip(messages, questions, strict=True)]


def _statement(source: Source, context: Context) -> Labelled:
    """A value of a fact, right or wrong, in few words or as a question."""
    fact = source.choice(context.facts)
    truth = source.chance(0.5)
    value = fact.value if truth else other_value(source, context, fact)
    if source.chance(0.5):
        return [(f"{fact.entity}, {fact.relation.noun}: {value}?", truth)]
    return [(sentence(fact.relation.check, fact.entity, value), truth)]


def _labelled(source: Source, context: Context) -> Labelled:
    """A typed question: itself, or each of its options, with whether it is right."""
    question, label = source.choice(KINDS)(source, context)
    if question.type == "bool":
        return [(question.text, label == "yes")]
    lines = render_questions([question]).split("\n")[2:]
    marked = [(line, own == label) for line, own in zip(lines, question.labels, strict=True)]
    return [(f"{question.text}\n{marked[0][0]}", marked[0][1]), *marked[1:]]


def _quiz(source: Source, level: float) -> list[Branch]:
    """Statements right behind each other, each with its label: many comparisons for few tokens.

    With a label every forty tokens, as conversations have them, a network of this size does not begin to compare what is
    asked with what is written; with one every ten it does within minutes.
    """
    short = source.chance(0.3)
    context = make_context(source, source.rng.randint(1, max(1, round(2 + 6 * level))), short)
    kind = source.choice((_statement, _labelled))
    note = source.choice(("", "", " (yes or no)", " Answer yes or no."))
    text, holes = "", []
    for _ in range(source.rng.randint(10, 24)):
        for line, truth in kind(source, context):
            start = len(text) + len(line) + len(note)
            text += f"{line}{note} {'yes' if truth else 'no'}"
            holes.append((start, len(text)))
            text += "\n"
    asked = {"role": "user", "content": f"{context.text}\n\nIs this right?"}
    return [Branch("decisions", [asked], text.rstrip(), holes=tuple(holes))]


def _short_turns(source: Source, level: float) -> list[Branch]:
    """The statements of a quiz as turns of a chat: the label no longer stands right behind what it is about."""
    context = make_context(source, source.rng.randint(1, max(1, round(2 + 6 * level))), source.chance(0.3))
    note = source.choice(("", "", " (yes or no)", " Answer yes or no."))
    turns = []
    for _ in range(source.rng.randint(12, 24)):
        ((text, truth),) = _statement(source, context)
        opened = text + note if turns else f"{context.text}\n\n{text}{note}"
        turns.append(Branch("decisions", [{"role": "user", "content": opened}], "yes" if truth else "no"))
    return turns


def _with_tools(source: Source, level: float) -> list[Branch]:
    """Declared tools and several requests; all but the first turn leave out what comes before it."""
    turns = tool_branches(source, source.rng.randint(4, 9), max(0.0, level))
    later = [replace(t, messages=[m for m in t.messages if m["role"] != "system"], tools=None) for t in turns[1:]]
    return [*turns[:1], *later]


def _choices(source: Source, level: float) -> list[Branch]:
    kind: Callable[[Source, int], list[Branch]] = source.choice((selection_branches, route))
    return [b for _ in range(3) for b in kind(source, 3)]


def _typed(source: Source, level: float) -> list[Branch]:
    """Typed decisions as the engine asks them; several conversations' beginnings in a row."""
    branches = []
    for _ in range(3):
        context = make_context(source, source.rng.randint(1, max(1, round(2 + 4 * level))))
        branches += decide(source, context, 1, 8)
    return branches


def dialogue(source: Source, level: float) -> list[Branch]:
    """The turns of one conversation, in order; each branch holds only the messages since the one before."""
    kinds = (_about_facts, _drill, _with_tools, _choices, _typed, _quiz, _short_turns)
    turns = source.rng.choices(kinds, (0.27, 0.06, 0.17, 0.05, 0.13, 0.14, 0.18))[0](source, level)
    return turns or dialogue(source, level)
