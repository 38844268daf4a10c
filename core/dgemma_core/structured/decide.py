"""Typed decisions: several questions over one context, read in one denoising step.

The canvas holds the answers' template, its label slots are noise. One step tells how likely each label is in its slot,
given the context and all the questions; only the labels' rows of the output embedding are read. Probabilities are the
model's own, not calibrated, unless a :class:`~dgemma_core.structured.calibration.Calibration` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgemma_core.canvas import Canvas, shortest_canvas
from dgemma_core.messages import Message
from dgemma_core.readout import Rows
from dgemma_core.structured.calibration import Calibration
from dgemma_core.structured.questions import Question, check_draws, render_questions


@dataclass(frozen=True)
class Answer:
    """What the model makes of one question.

    Attributes:
        value: ``True`` or ``False`` for ``bool``, else the likeliest option's name.
        probabilities: for every option (``"yes"`` and ``"no"`` for ``bool``), in their order, summing to 1.
    """

    value: bool | str
    probabilities: Mapping[str, float]

    @property
    def confidence(self) -> float:
        """Probability of :attr:`value`."""
        return max(self.probabilities.values())

    @property
    def level(self) -> float:
        """Expected place in the order of the options, from 0: the score of a ``score`` question."""
        return sum(place * p for place, p in enumerate(self.probabilities.values()))


@dataclass(frozen=True)
class Template:
    """The assistant's turn with slots.

    Attributes:
        tokens: token ids, with the first label in every slot, up to and with the end token.
        slots: indices into ``tokens``.
        labels: token ids that each slot chooses from.
    """

    tokens: tuple[int, ...]
    slots: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]


def build_template(questions: Sequence[Question], encode: Callable[[str], list[int]], end_id: int) -> Template:
    """Lay out the lines ``1: <label>``, ``2: <label>`` ... in tokens.

    Args:
        questions: at least one.
        encode: plain text to token ids.
        end_id: the token that ends a turn.

    A label of several tokens is represented by the first one that differs from the other labels'.

    Raises:
        ValueError: the tokenizer's spellings of the labels cannot be told apart by one token.
    """
    tokens: list[int] = []
    slots: list[int] = []
    labels: list[tuple[int, ...]] = []
    for number, question in enumerate(questions, 1):
        tokens += encode(f"\n{number}:" if tokens else f"{number}:")
        common, ids = _tell_apart([encode(f" {label}") for label in question.labels])
        tokens += common
        slots.append(len(tokens))
        labels.append(ids)
        tokens.append(ids[0])
    return Template((*tokens, end_id), tuple(slots), tuple(labels))


def _tell_apart(spellings: Sequence[Sequence[int]]) -> tuple[list[int], tuple[int, ...]]:
    """What all spellings begin with, and the token of each behind it."""
    columns = list(zip(*spellings, strict=False))
    at = next((i for i, column in enumerate(columns) if len(set(column)) > 1), len(columns))
    told = columns[at] if at < len(columns) else ()
    if len(set(told)) < len(spellings):
        raise ValueError(f"this checkpoint's tokenizer does not tell labels apart by one token: {list(spellings)!r}")
    return list(spellings[0][:at]), told


@dataclass(frozen=True)
class Ask:
    """Questions that one canvas answers.

    Attributes:
        names: of the questions.
        messages: the prompt.
        template: the answers'.
        canvas_length: positions, the template's and a few behind it.
    """

    names: tuple[str, ...]
    messages: list[Message]
    template: Template
    canvas_length: int


def plan_asks(
    context: str | Sequence[Message],
    questions: Mapping[str, Question],
    encode: Callable[[str], list[int]],
    end_id: int,
    canvas_limit: int,
) -> list[Ask]:
    """As few canvases as the answers fit, questions in order.

    Args:
        context: a text, or chat messages.
        questions: by name.
        encode: plain text to token ids.
        end_id: the token that ends a turn.
        canvas_limit: positions of the longest canvas.

    Raises:
        ValueError: bad context or questions, naming them.
    """
    if not isinstance(questions, Mapping) or not questions:
        raise ValueError(f"questions={questions!r}: give a mapping from names to Question, at least one")
    for name, question in questions.items():
        if not isinstance(question, Question):
            raise ValueError(f"questions[{name!r}]={question!r}: must be a Question")
    if (isinstance(context, str) and not context.strip()) or not context:
        raise ValueError(f"context={context!r}: there is nothing to decide about")
    asks = []
    for names in _batches(questions, encode, canvas_limit):
        batch = [questions[name] for name in names]
        template = build_template(batch, encode, end_id)
        length = shortest_canvas(len(template.tokens), canvas_limit)
        asks.append(Ask(tuple(names), decision_prompt(context, batch), template, length))
    return asks


def _batches(
    questions: Mapping[str, Question], encode: Callable[[str], list[int]], canvas_limit: int
) -> Iterator[list[str]]:
    """Names of questions whose answers fit one canvas together."""
    batch: list[str] = []
    for name in questions:
        if batch and len(build_template([questions[n] for n in (*batch, name)], encode, 0).tokens) > canvas_limit:
            yield batch
            batch = []
        batch.append(name)
    yield batch


def decision_prompt(context: str | Sequence[Message], questions: Sequence[Question]) -> list[Message]:
    """Chat messages that put the questions behind the context, so that the context is a prefix to be reused."""
    asked = render_questions(questions)
    if isinstance(context, str):
        return [Message("user", f"{context}\n\n{asked}")]
    messages = list(context)
    if messages and messages[-1].role == "user":
        return [*messages[:-1], replace(messages[-1], content=[*messages[-1].parts, f"\n\n{asked}"])]
    return [*messages, Message("user", asked)]


class DecisionGuide:
    """A :class:`dgemma_core.guide.Guide` that reads the labels' probabilities and ends the canvas.

    Args:
        template: of the questions.
        pad_id: fills the canvas behind the end.
        draws: noise draws to average over, one denoising step each.

    Raises:
        ValueError: ``draws`` is not a positive integer.

    Attributes:
        logits: after the last draw, per draw and slot float32 ``[labels]``.
    """

    reads_only = True

    def __init__(self, template: Template, pad_id: int, draws: int) -> None:
        check_draws(draws)
        self._template = template
        self._pad_id = pad_id
        self._draws = draws
        self.end: int | None = None
        self.logits: list[list[Tensor]] = []

    def open(self, canvas: Canvas) -> None:
        """Pin the template around the slots."""
        template = self._template
        filled = [*template.tokens, *[self._pad_id] * (canvas.length - len(template.tokens))]
        noise = canvas.tokens.clone()
        canvas.pin(0, filled)
        for slot in template.slots:
            canvas.unpin(slot, int(noise[slot]))

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Read the slots; done after the last draw."""
        template = self._template
        read = rows.label_logits(template.slots, template.labels)
        self.logits.append(read)
        if len(self.logits) < self._draws:
            canvas.disturb(0, 0, canvas.length)
            return False
        for slot, ids, p in zip(template.slots, template.labels, self.probabilities(1.0), strict=True):
            canvas.pin(slot, [ids[int(p.argmax())]])
        self.end = len(template.tokens) - 1
        return True

    def probabilities(self, temperature: float) -> list[Tensor]:
        """Per question float32 ``[labels]``: the mean over the draws of ``softmax(logits / temperature)``."""
        per_slot = zip(*self.logits, strict=True)
        return [torch.stack([(x / temperature).softmax(-1) for x in draws]).mean(0) for draws in per_slot]


def to_answer(question: Question, probabilities: Tensor) -> Answer:
    """The answer of one question from ``[labels]`` probabilities."""
    best = int(probabilities.argmax())
    named = dict(zip(question.names, probabilities.tolist(), strict=True))
    return Answer(best == 0 if question.type == "bool" else question.names[best], named)


def read_answers(
    asked: Iterable[tuple[Ask, DecisionGuide]], questions: Mapping[str, Question], calibration: Calibration | None
) -> dict[str, Answer]:
    """The answers of finished guides, by the questions' names."""
    temperature = 1.0 if calibration is None else calibration.temperature
    return {
        name: to_answer(questions[name], p)
        for ask, guide in asked
        for name, p in zip(ask.names, guide.probabilities(temperature), strict=True)
    }
