"""Typed decisions: several questions over one context, read in one denoising step.

The canvas holds the questions, each with a blank of noise for its answer. One step tells how likely each option is in
its blank, given the context and all the questions; only the options' rows of the output embedding are read.
Probabilities are the model's own, not calibrated, unless a :class:`~dgemma_core.api.calibration.Calibration` is
given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.messages import Message
from dgemma_core.api.questions import Answer, Question, check_draws, render_options
from dgemma_core.denoise.canvas import Canvas, shortest_canvas
from dgemma_core.denoise.guide import Rows
from dgemma_core.structured.forms import Blank, Form, FormWriter, Line


@dataclass(frozen=True)
class Ask:
    """Questions that one canvas answers.

    Attributes:
        names: of the questions.
        messages: the prompt.
        form: the answers'.
        canvas_length: positions, the form's and a few behind it.
    """

    names: tuple[str, ...]
    messages: list[Message]
    form: Form
    canvas_length: int


def plan_asks(
    context: str | Sequence[Message], questions: Mapping[str, Question], writer: FormWriter, canvas_limit: int
) -> list[Ask]:
    """As few canvases as the questions fit, in order.

    Args:
        context: a text, or chat messages.
        questions: by name.
        writer: of forms, in the checkpoint's tokens.
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
    if not isinstance(context, str) and not all(isinstance(message, Message) for message in context):
        raise ValueError(f"context={context!r}: must be a text or a list of Message")
    items = iter(questions.items())
    return [
        _ask(context, dict(islice(items, len(lines))), lines, writer, canvas_limit)
        for lines in fill_canvases(questions.values(), writer, canvas_limit)
    ]


def fill_canvases(questions: Iterable[Question], writer: FormWriter, canvas_limit: int) -> Iterator[list[Line]]:
    """The questions' lines in their order, as many to a canvas as it holds, and at least one."""
    lines: list[Line] = []
    for question in questions:
        line = writer.line(len(lines) + 1, question)
        if lines and sum(map(len, lines)) + len(line) >= canvas_limit:  # The end token needs a position, too.
            yield lines
            lines = []
            line = writer.line(1, question)
        lines.append(line)
    yield lines


def _ask(
    context: str | Sequence[Message],
    batch: Mapping[str, Question],
    lines: Sequence[Line],
    writer: FormWriter,
    canvas_limit: int,
) -> Ask:
    asked = list(batch.values())
    form = writer.join(lines)
    # Only a question that is alone in its canvas can be too long for it.
    if spelled_out := len(form.tokens) > canvas_limit:
        form = writer.write(asked, spelled_out)
        if len(form.tokens) > canvas_limit:
            raise ValueError(
                f"options={asked[0].names!r}: their names do not fit a canvas of {canvas_limit} tokens: "
                "give short names, and what they mean as descriptions"
            )
    messages = decision_prompt(context, render_options(asked, spelled_out))
    return Ask(tuple(batch), messages, form, shortest_canvas(len(form.tokens), canvas_limit))


def decision_prompt(context: str | Sequence[Message], instruction: str) -> list[Message]:
    """Chat messages that put the instruction behind the context, so that the context is a prefix to be reused."""
    if isinstance(context, str):
        return [Message("user", f"{context}\n\n{instruction}")]
    messages = list(context)
    if messages and messages[-1].role == "user":
        return [*messages[:-1], replace(messages[-1], content=[*messages[-1].parts, f"\n\n{instruction}"])]
    return [*messages, Message("user", instruction)]


class DecisionGuide:
    """A :class:`dgemma_core.denoise.guide.Guide` that reads the options' probabilities and ends the canvas.

    Args:
        form: of the questions.
        pad_id: fills the canvas behind the end.
        draws: noise draws to average over, one denoising step each.

    Raises:
        ValueError: ``draws`` is not a positive integer.

    Attributes:
        logits: after the last draw, per draw and fork float32 ``[token_ids]``.
    """

    cut = False

    def __init__(self, form: Form, pad_id: int, draws: int) -> None:
        check_draws(draws)
        self._form = form
        self._pad_id = pad_id
        self._draws = draws
        self.reads = tuple(fork.position for fork in form.forks)
        self.end: int | None = None
        self.logits: list[list[Tensor]] = []

    def open(self, canvas: Canvas) -> None:
        """Pin the form around what depends on the answers."""
        form = self._form
        noise = canvas.tokens.clone()
        canvas.pin(0, [*form.tokens, *[self._pad_id] * (canvas.length - len(form.tokens))])
        for position in form.open_positions():
            canvas.unpin(position, int(noise[position]))

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Read the forks; done after the last draw."""
        form = self._form
        self.logits.append(rows.label_logits(self.reads, [fork.token_ids for fork in form.forks]))
        if len(self.logits) < self._draws:
            canvas.disturb(0, canvas.length)
            return False
        for blank, p in zip(form.blanks, self.probabilities(1.0), strict=True):
            canvas.pin(blank.start, list(blank.options[int(p.argmax())]))
        self.end = len(form.tokens) - 1
        return True

    def probabilities(self, temperature: float) -> list[Tensor]:
        """Per question float32 ``[options]``.

        A draw gives an option the product of its tokens' probabilities at the forks on its way. The temperature scales
        the mean over the draws, as :meth:`~dgemma_core.api.calibration.Calibration.apply` does.
        """
        draws = [[logits.log_softmax(-1) for logits in draw] for draw in self.logits]
        means = [
            torch.stack([_log_probabilities(blank, told) for told in draws]).logsumexp(0) for blank in self._form.blanks
        ]
        return [(mean / temperature).softmax(-1) for mean in means]


def _log_probabilities(blank: Blank, told: Sequence[Tensor]) -> Tensor:
    """Of a blank's options, float32 ``[options]``, from those of the tokens at every fork."""
    return torch.stack([torch.stack([told[fork][way] for fork, way in path]).sum() for path in blank.paths])


def to_answer(question: Question, probabilities: Tensor) -> Answer:
    """The answer of one question from ``[options]`` probabilities."""
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
