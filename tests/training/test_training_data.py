"""Generators: the same seed gives the same data, and evaluation names never occur in training."""

from __future__ import annotations

import json
import random

import pytest
from transformers import PreTrainedTokenizerFast

from dgemma_core.api.questions import render_options
from dgemma_core.structured.decision_plan import plan_asks
from training.data.context import make_context
from training.data.decide import decide, route, split_by_canvas
from training.data.example import ABSTAIN, CHAT_TASKS
from training.data.infill import infill
from training.data.lexicon import Source, is_held_out
from training.data.mixture import DEFAULT_MIX, draw_example, draw_tree, source_for
from training.data.tools import described_call
from training.evaluate import EMBEDDED
from training.tree import TURN_END, encode_branches, form_writer


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


@pytest.mark.parametrize("task", CHAT_TASKS)
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


def test_decisions_name_their_blanks() -> None:
    """Answers stand right after their questions, as the engine lays them out; what tells them apart is a hole."""
    source, tokenizer = source_for("decide", held_out=False), PreTrainedTokenizerFast.from_pretrained(EMBEDDED)
    for branches in (decide(source, make_context(source, 5), 6), route(source, 6)):
        for branch, encoded in zip(branches, encode_branches(tokenizer, branches), strict=True):
            form = form_writer(tokenizer).write([question for question, _ in branch.asked])
            assert tokenizer.decode(encoded.target[-1]) == TURN_END
            for number, (blank, (question, name)) in enumerate(zip(form.blanks, branch.asked, strict=True), 1):
                before, answer = encoded.target[: blank.start], encoded.target[blank.start :]
                assert tokenizer.decode(before).endswith(f"{number}. {question.text}")
                assert tokenizer.decode(answer).replace(TURN_END, "\n").startswith(f" {name}\n")
            assert encoded.holes == set(form.open_positions())
            assert str(branch.messages[-1]["content"]).endswith(render_options([q for q, _ in branch.asked]))


def test_canvases_with_typed_questions_are_the_engines() -> None:
    source, tokenizer = source_for("split", held_out=False), PreTrainedTokenizerFast.from_pretrained(EMBEDDED)
    writer, spelled_out = form_writer(tokenizer), 0
    for branch in decide(source, make_context(source, 5), 30):
        context = str(branch.messages[-1]["content"]).removesuffix(render_options([q for q, _ in branch.asked]))
        parts = list(split_by_canvas(source, branch, writer, 64))
        assert [typed for part in parts for typed in part.asked] == list(branch.asked)
        named = {str(i): question for i, (question, _) in enumerate(branch.asked)}
        asks = plan_asks(context.strip(), named, writer, 64)
        assert [len(part.asked) for part in parts] == [len(ask.names) for ask in asks]
        for part, ask in zip(parts, asks, strict=True):
            if part.spelled_out:
                spelled_out += 1
                assert part.asked[0][0].text in str(part.messages[-1]["content"])
            else:
                assert part.messages[-1]["content"] == ask.messages[0].text
    assert spelled_out


def test_quoted_names_and_descriptions_are_copied_from_the_request() -> None:
    source, scripts = Source(random.Random(6)), set()
    for _ in range(60):
        tool, request, arguments = described_call(source)
        assert set(arguments) == {name for name, _, _ in tool.arguments}
        assert all(value in request for value in arguments.values())
        scripts.add(all(value.isascii() for value in arguments.values()))
    assert scripts == {True, False}


def test_blanks_can_be_filled_from_the_text() -> None:
    source = source_for("infill", held_out=False)
    for _ in range(40):
        for branch in infill(source, make_context(source, 4), 2):
            assert branch.raw is not None
            ((start, end),) = branch.holes
            value = branch.answer[start:end].strip()
            assert value
            assert value in branch.raw + branch.answer[end:]
