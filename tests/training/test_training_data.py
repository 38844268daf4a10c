"""Generators: the same seed gives the same data, and evaluation names never occur in training."""

from __future__ import annotations

import json
import random

import pytest

from training.data.example import ABSTAIN, TASKS
from training.data.lexicon import Source, is_held_out
from training.data.mixture import DEFAULT_MIX, draw_example, draw_tree, source_for


def _draw(seed: str, held_out: bool, trees: int = 60) -> list[object]:
    source = source_for(seed, held_out)
    return [draw_tree(source, DEFAULT_MIX, level=number / trees) for number in range(trees)]


def test_same_seed_same_data() -> None:
    assert _draw("a", False) == _draw("a", False)
    assert _draw("a", False) != _draw("b", False)


def test_held_out_names_are_disjoint() -> None:
    train, test = Source(random.Random(1)), Source(random.Random(1), held_out=True)
    seen = {train.name() for _ in range(3000)}
    unseen = {test.name() for _ in range(1000)}
    assert not seen & unseen
    assert not any(is_held_out(name) for name in seen)
    assert all(is_held_out(name) for name in unseen)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_examples(task: str) -> None:
    source = source_for("tasks", held_out=True)
    for _ in range(30):
        branch = draw_example(source, task)
        assert branch.task == task
        assert bool(branch.answer) != bool(branch.calls)
        assert branch.messages[-1]["role"] in ("user", "tool")
        if task == "abstain":
            assert branch.answer == ABSTAIN
        if task == "json":
            assert isinstance(json.loads(branch.answer), dict)


def test_answers_are_in_the_context() -> None:
    """The words of an extractive answer come from the prompt, apart from the canonical form's own."""
    source = source_for("grounded", held_out=False)
    for _ in range(50):
        branch = draw_example(source, "qa")
        text = " ".join(str(m["content"]) for m in branch.messages).lower()
        names = [w.strip(".,") for w in branch.answer.split()[1:] if w[0].isupper() or w[0].isdigit()]
        assert branch.answer == ABSTAIN or all(name.lower() in text for name in names)
