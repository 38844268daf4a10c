"""Conversations: written as the chat template writes them, with a label on every token and no canvases."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from training.data.context import make_context
from training.data.decide import checks, statement
from training.data.dialogue import dialogue, quiz
from training.data.lexicon import Source
from training.data.mixture import DEFAULT_MIX
from training.loss import compute_losses
from training.train import PRESETS, build_model
from training.tree import QUESTION_WEIGHT, draw_batches, encode_branches, encode_dialogue
from training.walk import Walk

pytestmark = pytest.mark.landing  # It trains a tokenizer and models.


def test_turns_about_facts_read_like_one_chat(tokenizer: PreTrainedTokenizerFast) -> None:
    source = Source(random.Random(4))
    compared = 0
    while compared < 5:
        turns = dialogue(source, 0.5)
        if any(t.calls or t.tools or t.raw or t.asked for t in turns) or any(len(t.messages) > 1 for t in turns[1:]):
            continue
        messages = []
        for turn in turns:
            messages += [*turn.messages, {"role": "assistant", "content": turn.answer}]
        ids, weights = encode_dialogue(tokenizer, turns)
        assert tokenizer.decode(ids) + "\n" == tokenizer.apply_chat_template(messages, tokenize=False)
        answers = [i for i, weight in zip(ids, weights, strict=True) if weight != QUESTION_WEIGHT]
        text = tokenizer.decode(answers).split("<turn|>")[:-1]
        assert text == [turn.answer for turn in turns]
        compared += 1


def test_a_quiz_tells_its_labels(tokenizer: PreTrainedTokenizerFast) -> None:
    source = Source(random.Random(6))
    for _ in range(5):
        turn = quiz(source, 0.3)
        (encoded,) = encode_branches(tokenizer, turn)
        assert len(turn[0].asked) >= 8
        ids, weights = encode_dialogue(tokenizer, turn)
        told = [i for i, weight in zip(ids, weights, strict=True) if weight != QUESTION_WEIGHT]
        assert told == [encoded.target[i] for i in sorted(encoded.holes)]


def test_labels_say_whether_the_context_does() -> None:
    source, seen = Source(random.Random(8)), set()
    for _ in range(40):
        context = make_context(source, 1, short=True)
        question, answer = statement(source, context)
        assert question.text.endswith(f": {context.facts[0].value}?") == (answer == "yes")
        seen.add(answer)
    assert seen == {"yes", "no"}


def test_two_forms_of_a_check_have_the_same_label() -> None:
    source, seen = Source(random.Random(9)), set()
    for _ in range(80):
        context = make_context(source, 3, short=True)
        (first, label), (second, same) = checks(source, context)
        stated = [all(fact.value.lower() in q.text.lower() for q in (first, second)) for fact in context.facts]
        assert label == same
        assert any(stated) or label == "no"
        seen.add(label)
    assert seen == {"yes", "no"}


def test_conversations_have_a_causal_loss_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    (batch, *_) = draw_batches(tokenizer, "talk", DEFAULT_MIX | {"dialogue": 0.5, "quiz": 0.5}, 0.0, 1500, trees=8)
    assert batch.canvas.shape == (batch.tokens.shape[0], 0)
    labels, following = batch.labels[:, :-1], batch.tokens[:, 1:]
    assert torch.equal(labels[labels >= 0], following[labels >= 0])
    walk = Walk(build_model(PRESETS["tiny"], tokenizer, 0), torch.float32)
    losses = compute_losses(walk, batch, torch.Generator().manual_seed(0))
    losses.total.backward()
    assert losses.diffusion == 0.0
    assert losses.causal > 1.0
    assert walk.model.model.decoder.layers[0].self_attn.q_proj.weight.grad is not None


def test_pools_mix_conversations_and_trees(tokenizer: PreTrainedTokenizerFast) -> None:
    batches = list(draw_batches(tokenizer, "mixed", DEFAULT_MIX | {"dialogue": 0.5}, 0.0, 1500, trees=24))
    kinds = {batch.canvas.numel() > 0 for batch in batches}
    assert kinds == {True, False}
