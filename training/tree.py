"""From branches to packed rows: tokens, positions, labels and canvases of one training step."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from dgemma_core.structured.forms import FormWriter

from .data.decide import split_by_canvas
from .data.dialogue import dialogue, quiz
from .data.example import TASKS, Branch
from .data.lexicon import Source
from .data.mixture import draw_tree
from .walk import PAD, Packed

# The share of batches with each canvas length, and how many canvases a row then holds.
CANVAS_LENGTHS = {16: 0.2, 32: 0.25, 64: 0.55}
CANVASES_PER_ROW = {16: 16, 32: 10, 64: 8}
TYPED_LENGTH = 64  # canvas length for typed questions; a row has a branch for each canvas
ROUND = 32  # rows are padded to a multiple of this, so that there are few shapes and kernels are reused
TURN_END, TOOL_END = "<turn|>", "<|tool_response>"
# The tokens of a short answer weigh more than those of a sentence of SENTENCE tokens, up to LIGHT times as much.
SENTENCE, LIGHT = 12, 3.0
TASK_WEIGHT = {"decisions": 1.5}
QUESTION_WEIGHT = 0.1  # weight of contexts and questions in dialogues and around typed answers; hard to foresee


@dataclass(frozen=True)
class Encoded:
    """One branch as token ids. `target` ends with the end token; `holes` are indices into it."""

    task: int
    prompt: list[int]
    target: list[int]
    holes: frozenset[int] = frozenset()
    causal: bool = True
    typed: bool = False

    @property
    def weights(self) -> list[float]:
        """Weights of the target's tokens in the loss; the questions between typed answers weigh little."""
        given = QUESTION_WEIGHT if self.typed else self.weight
        return [self.weight if i in self.holes else given for i in range(len(self.target))]

    @property
    def weight(self) -> float:
        """Weight of the tokens that are asked for."""
        told = len(self.holes) + 1 if self.holes else len(self.target)
        return min(LIGHT, max(1.0, SENTENCE / told)) * TASK_WEIGHT.get(TASKS[self.task], 1.0)


def render(tokenizer: PreTrainedTokenizerFast, branch: Branch) -> tuple[str, str]:
    """Prompt text and target text, exactly as the chat template writes them."""
    if branch.raw is not None:
        return f"{tokenizer.bos_token}{branch.raw}", branch.answer + TURN_END
    reply: dict[str, Any] = {"role": "assistant", "content": branch.answer}
    if branch.calls:
        reply["tool_calls"] = branch.calls
    options: dict[str, Any] = {"tools": branch.tools, "tokenize": False}
    prompt = tokenizer.apply_chat_template(branch.messages, add_generation_prompt=True, **options)
    full = tokenizer.apply_chat_template([*branch.messages, reply], **options)
    assert isinstance(prompt, str)
    assert isinstance(full, str)
    assert full.startswith(prompt)
    target = full[len(prompt) :].removesuffix(f"{TURN_END}\n")
    return prompt, target + (TOOL_END if branch.calls else TURN_END)


def encode_branches(tokenizer: PreTrainedTokenizerFast, branches: list[Branch]) -> list[Encoded]:
    """Token ids of every branch of a tree."""
    texts = [render(tokenizer, b) for b in branches]
    prompts = tokenizer([p for p, _ in texts], add_special_tokens=False).input_ids
    targets = tokenizer([t for _, t in texts], add_special_tokens=False, return_offsets_mapping=True)
    return [
        _with_blanks(tokenizer, branch, prompt)
        if branch.asked
        else _with_holes(branch, prompt, targets.input_ids[i], targets.offset_mapping[i])
        for i, (branch, prompt) in enumerate(zip(branches, prompts, strict=True))
    ]


def form_writer(tokenizer: PreTrainedTokenizerFast) -> FormWriter:
    """The engine's writer of decision forms, for this tokenizer."""
    end, pad = tokenizer.convert_tokens_to_ids([TURN_END, "<pad>"])

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return ids

    return FormWriter(encode, end, pad)


def _with_blanks(tokenizer: PreTrainedTokenizerFast, branch: Branch, prompt: list[int]) -> Encoded:
    """Typed questions as the engine lays them out, with the right answers in their blanks."""
    form = form_writer(tokenizer).write([question for question, _ in branch.asked], branch.spelled_out)
    target = list(form.tokens)
    for blank, (question, name) in zip(form.blanks, branch.asked, strict=True):
        right = blank.options[question.names.index(name)]
        target[blank.start : blank.start + len(right)] = right
    return Encoded(TASKS.index(branch.task), prompt, target, frozenset(form.open_positions()), typed=True)


def _with_holes(branch: Branch, prompt: list[int], target: list[int], offsets: list[tuple[int, int]]) -> Encoded:
    """One encoded branch. A token that reaches into a hole belongs to it, and the first hole gets its room."""
    inside = [any(a < end and b > start for start, end in branch.holes) for a, b in offsets]
    holes = [i for i, hit in enumerate(inside) if hit]
    if branch.room and holes:
        after = next(i for i in range(holes[0], len(target)) if not inside[i])
        target = [*target[:after], *[PAD] * branch.room, *target[after:]]
        holes = [i for i in holes if i < after] + list(range(after, after + branch.room))
    return Encoded(TASKS.index(branch.task), prompt, target, frozenset(holes), branch.raw is None)


def shared_length(tree: list[Encoded]) -> int:
    """Length of the prompts' common beginning; every branch keeps at least one prompt token of its own."""
    limit = min(len(b.prompt) for b in tree) - 1
    first = tree[0].prompt
    for other in tree[1:]:
        limit = next((i for i in range(limit) if first[i] != other.prompt[i]), limit)
    return limit


def packed_length(tree: list[Encoded]) -> int:
    """Encoder tokens that a tree needs."""
    shared = shared_length(tree)
    return shared + sum(len(b.prompt) - shared + len(b.target) - 1 for b in tree)


def pack(trees: list[list[Encoded]], canvas_length: int, rng: random.Random, canvases: int | None = None) -> Packed:
    """One row per tree, each with the same number of canvases; long answers give several blocks."""
    slots = canvases or CANVASES_PER_ROW[canvas_length]
    rows, length, width = len(trees), max(packed_length(t) for t in trees), slots * canvas_length
    length = -(-length // ROUND) * ROUND
    tokens, position = np.zeros((rows, length), np.int64), np.zeros((rows, length), np.int64)
    branch, labels = np.full((rows, length), -1, np.int64), np.full((rows, length), -100, np.int64)
    label_weight = np.zeros((rows, length), np.float32)
    canvas = np.zeros((rows, slots, canvas_length), np.int64)
    canvas_branch = np.full((rows, slots, canvas_length), -1, np.int64)
    canvas_start, canvas_task = np.zeros_like(canvas), np.zeros_like(canvas)
    canvas_hole, canvas_weight = np.zeros_like(canvas, bool), np.zeros(canvas.shape, np.float32)
    for row, tree in enumerate(trees):
        shared = shared_length(tree)
        tokens[row, :shared] = tree[0].prompt[:shared]
        position[row, :shared] = np.arange(shared)
        branch[row, :shared] = 0
        at = shared
        weights: list[list[float]] = []
        first_blocks: list[tuple[int, int]] = []
        other_blocks: list[tuple[int, int]] = []
        for number, item in enumerate(tree, 1):
            ids = item.prompt[shared:] + item.target[:-1]
            tokens[row, at : at + len(ids)] = ids
            position[row, at : at + len(ids)] = np.arange(shared, shared + len(ids))
            branch[row, at : at + len(ids)] = number
            weights.append(item.weights)
            answer = at + len(item.prompt) - shared - 1
            if item.causal:
                labels[row, answer : answer + len(item.target)] = item.target
                label_weight[row, answer : answer + len(item.target)] = weights[-1]
            at += len(ids)
            blocks = [(number, b) for b in range(-(-len(item.target) // canvas_length))]
            rng.shuffle(blocks)
            first_blocks.append(blocks[0])
            other_blocks += blocks[1:]
        rng.shuffle(first_blocks)
        rng.shuffle(other_blocks)
        order = first_blocks + other_blocks
        for slot in range(slots):
            number, block = order[slot % len(order)]  # a repeated canvas gets its own noise
            item = tree[number - 1]
            part = item.target[block * canvas_length : (block + 1) * canvas_length]
            canvas[row, slot, : len(part)] = part
            canvas_branch[row, slot] = number
            canvas_start[row, slot] = len(item.prompt) + block * canvas_length
            canvas_task[row, slot] = item.task
            canvas_weight[row, slot] = item.weight
            canvas_weight[row, slot, : len(part)] = weights[number - 1][block * canvas_length :][: len(part)]
            canvas_hole[row, slot, [i for i in range(len(part)) if block * canvas_length + i in item.holes]] = True
    slot_ids = np.broadcast_to(np.arange(slots)[None, :, None], canvas.shape)
    flat = {
        "canvas": canvas,
        "canvas_branch": canvas_branch,
        "canvas_slot": slot_ids,
        "canvas_start": canvas_start,
        "canvas_position": canvas_start + np.arange(canvas_length),
        "canvas_task": canvas_task,
        "canvas_weight": canvas_weight,
        "canvas_hole": canvas_hole,
    }
    return Packed(
        tokens=torch.from_numpy(tokens),
        branch=torch.from_numpy(branch),
        position=torch.from_numpy(position),
        labels=torch.from_numpy(labels),
        label_weight=torch.from_numpy(label_weight),
        canvas_length=canvas_length,
        **{k: torch.from_numpy(np.ascontiguousarray(v.reshape(rows, width))) for k, v in flat.items()},
    )


def encode_dialogue(tokenizer: PreTrainedTokenizerFast, turns: list[Branch]) -> tuple[list[int], list[float]]:
    """Token ids of a conversation, and the weight of each in the loss."""
    ids: list[int] = []
    weights: list[float] = []
    for number, item in enumerate(encode_branches(tokenizer, turns)):
        between = tokenizer("\n", add_special_tokens=False).input_ids if number else []
        asked = [*between, *(item.prompt[1:] if number else item.prompt)]
        ids += asked + item.target
        weights += [QUESTION_WEIGHT] * len(asked) + item.weights
    return ids, weights


def pack_dialogues(dialogues: list[tuple[list[int], list[float]]], canvas_length: int) -> Packed:
    """One row per conversation, without canvases: every token has the causal loss alone."""
    rows, length = len(dialogues), -(-max(len(ids) for ids, _ in dialogues) // ROUND) * ROUND
    tokens, branch = np.zeros((rows, length), np.int64), np.full((rows, length), -1, np.int64)
    labels, label_weight = np.full((rows, length), -100, np.int64), np.zeros((rows, length), np.float32)
    for row, (ids, weights) in enumerate(dialogues):
        tokens[row, : len(ids)], branch[row, : len(ids)] = ids, 0
        labels[row, : len(ids) - 1], label_weight[row, : len(ids) - 1] = ids[1:], weights[1:]
    none = torch.zeros(rows, 0, dtype=torch.long)
    return Packed(
        tokens=torch.from_numpy(tokens),
        branch=torch.from_numpy(branch),
        position=torch.arange(length).expand(rows, length).clone(),
        labels=torch.from_numpy(labels),
        label_weight=torch.from_numpy(label_weight),
        canvas=none,
        canvas_branch=none,
        canvas_slot=none,
        canvas_start=none,
        canvas_position=none,
        canvas_task=none,
        canvas_weight=none.float(),
        canvas_hole=none.bool(),
        canvas_length=canvas_length,
    )


def draw_dialogues(
    tokenizer: PreTrainedTokenizerFast, turns: Iterable[list[Branch]], batch_tokens: int, longest: int
) -> list[Packed]:
    """Batches of conversations of similar length."""
    drawn = (encode_dialogue(tokenizer, conversation) for conversation in turns)
    sized = sorted((d for d in drawn if len(d[0]) <= longest), key=lambda d: len(d[0]))
    batches = []
    while sized:
        count = max(1, round(batch_tokens / (-(-len(sized[-1][0]) // ROUND) * ROUND)))
        if len(sized) >= count:  # The rest would make a batch of another size.
            batches.append(pack_dialogues(sized[-count:], 16))
        del sized[-count:]
    return batches


def draw_batches(
    tokenizer: PreTrainedTokenizerFast,
    seed: str,
    mix: dict[str, float],
    level: float,
    batch_tokens: int,
    trees: int = 64,
    longest: int = 1200,
) -> Iterator[Packed]:
    """Batches of one pool. Rows of similar length share a batch, and batches come in random order.

    The shares `mix["dialogue"]` and `mix["quiz"]` of a pool have no canvases; the rest are trees with canvases.
    """
    source = Source(random.Random(seed))
    rng = source.rng
    dialogues, quizzes = round(trees * mix["dialogue"]), round(trees * mix["quiz"])
    batches = draw_dialogues(tokenizer, (dialogue(source, level) for _ in range(dialogues)), batch_tokens, longest)
    batches += draw_dialogues(tokenizer, (quiz(source, level) for _ in range(quizzes)), batch_tokens, longest)
    writer = form_writer(tokenizer)
    pools: dict[bool, list[list[Encoded]]] = {False: [], True: []}
    for _ in range(trees - dialogues - quizzes):
        tree = draw_tree(source, mix, level)
        if typed := bool(tree[0].asked):
            parts = [part for branch in tree for part in split_by_canvas(source, branch, writer, TYPED_LENGTH)]
            tree = rng.sample(parts, min(len(parts), CANVASES_PER_ROW[TYPED_LENGTH]))
        pools[typed].append(encode_branches(tokenizer, tree))
    for typed, pool in pools.items():
        sized = sorted((tree for tree in pool if packed_length(tree) <= longest), key=packed_length)
        while sized:
            lengths, shares = list(CANVAS_LENGTHS), list(CANVAS_LENGTHS.values())
            canvas_length = TYPED_LENGTH if typed else rng.choices(lengths, shares)[0]
            row = -(-packed_length(sized[-1]) // ROUND) * ROUND + canvas_length * CANVASES_PER_ROW[canvas_length]
            count = max(1, round(batch_tokens / row))
            group = sized[-count:]
            group += rng.choices(group, k=count - len(group))  # the last group repeats rows: same shape, other noise
            batches.append(pack(group, canvas_length, rng))
            del sized[-count:]
    rng.shuffle(batches)
    yield from batches
