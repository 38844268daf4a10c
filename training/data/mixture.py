"""Draws trees, that is branches that share a beginning, from all tasks by their shares."""

from __future__ import annotations

import random

from .context import make_alike, make_context, pick_frame
from .decide import BOUND, DRILLED, decide, route
from .example import Branch
from .infill import infill
from .lexicon import Source
from .questions import QUESTIONS
from .refine import refine
from .selection import selection_branches
from .tools import tool_branches

# Relative shares of branches. The tasks of `QUESTIONS` share one context; each of the others has its own trees.
# "dialogue" and "quiz" are shares of batches without canvases, with conversations or with many typed questions each.
DEFAULT_MIX: dict[str, float] = {
    "qa": 0.22,
    "abstain": 0.13,
    "lists": 0.07,
    "decisions": 0.08,
    "json": 0.1,
    "tools": 0.2,
    "selection": 0.03,
    "refine": 0.02,
    "decide": 0.1,
    "infill": 0.05,
    "dialogue": 0.25,
    "quiz": 0.1,
}
MAX_FACTS = 10
ALIKE = 0.4  # share of the contexts for typed questions whose entities have the same relations


def draw_tree(source: Source, mix: dict[str, float], level: float) -> list[Branch]:
    """One tree. `level` is the place in the curriculum: contexts grow from three facts (0) to `MAX_FACTS` (1).

    Below 0 decisions are asked one at a time, and contexts shrink to one fact at -0.3.
    """
    rng = source.rng
    branch_count = rng.randint(4, 8)
    context_share = sum(mix[t] for t in QUESTIONS)
    # Some kinds of trees have fewer branches, so they are drawn more often.
    kinds = {
        "context": context_share,
        "tools": mix["tools"],
        "selection": 2 * mix["selection"],
        "refine": 2 * mix["refine"],
        "decide": 2 * mix["decide"],
        "infill": mix["infill"],
    }
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind == "tools":
        return tool_branches(source, branch_count, max(0.0, level)) or draw_tree(source, mix, level)
    if kind == "selection":
        return selection_branches(source, branch_count)
    if kind == "decide" and source.chance(0.2):
        return route(source, branch_count)
    most = max(1, round(3 + (MAX_FACTS - 3) * level))
    alike = kind == "decide" and source.chance(ALIKE)
    context = make_alike(source) if alike else make_context(source, rng.randint(1, most))
    if kind == "refine":
        return refine(source, context, branch_count // 2)
    if kind == "decide":
        count, longest = (branch_count // 2, 8) if level >= 0 else (2 * branch_count, 1)
        return decide(source, context, count, longest, BOUND if alike else DRILLED)
    if kind == "infill":
        return infill(source, context, branch_count) or draw_tree(source, mix, level)
    frame = pick_frame(source)
    tasks = list(QUESTIONS)
    weights = [mix[t] for t in tasks]
    branches: dict[str, Branch] = {}
    for _ in range(branch_count):
        task = rng.choices(tasks, weights)[0]
        question, answer = QUESTIONS[task](source, context)
        branches.setdefault(question, Branch(task, list(frame.messages(context.text, question)), answer))
    return list(branches.values())


def draw_example(source: Source, task: str, level: float = 1.0) -> Branch:
    """One branch of one task, for evaluation."""
    mix = {**dict.fromkeys(DEFAULT_MIX, 0.0), task: 1.0}
    if task == "decisions":
        mix["selection"] = 0.2
    if task == "qa":
        mix["refine"] = 0.04
    return source.choice(draw_tree(source, mix, level))


def source_for(seed: str, held_out: bool) -> Source:
    """A source seeded by a string."""
    return Source(random.Random(seed), held_out)
