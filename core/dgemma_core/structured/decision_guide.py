"""Reads the options' probabilities from a canvas that holds a form, and turns them into answers.

The probabilities are the model's own. They are not calibrated, unless a
:class:`~dgemma_core.api.calibration.Calibration` is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.questions import Answer, Question, check_draws
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.guide import Rows
from dgemma_core.structured.decision_plan import Ask
from dgemma_core.structured.forms import Blank, Form


class DecisionGuide:
    """A :class:`dgemma_core.denoise.guide.Guide` that reads the options' probabilities and ends the canvas.

    Args:
        form: of the questions.
        pad_id: the token that fills the canvas after the form.
        draws: noise draws to average over, one denoising step each.

    Raises:
        ValueError: ``draws`` is not a positive integer.

    Attributes:
        logits: per draw so far and per fork float32 ``[token_ids]``.
    """

    cut = False

    def __init__(self, form: Form, pad_id: int, draws: int) -> None:
        self._form = form
        self._pad_id = pad_id
        self._draws = check_draws(draws)
        self.reads = tuple(fork.position for fork in form.forks)
        self.end: int | None = None
        self.logits: list[list[Tensor]] = []

    def open(self, canvas: Canvas) -> None:
        """Pin all positions of the form that do not depend on the answers."""
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

        In each draw, an option's probability is the product of the probabilities of its tokens at its forks. The
        temperature scales the mean over the draws, as :meth:`~dgemma_core.api.calibration.Calibration.apply` does.
        """
        draws = [[logits.log_softmax(-1) for logits in draw] for draw in self.logits]
        means = [
            torch.stack([_log_probabilities(blank, forks) for forks in draws]).logsumexp(0)
            for blank in self._form.blanks
        ]
        return [(mean / temperature).softmax(-1) for mean in means]


def _log_probabilities(blank: Blank, forks: Sequence[Tensor]) -> Tensor:
    """Of a blank's options, float32 ``[options]``, from those of the tokens at every fork."""
    return torch.stack([torch.stack([forks[fork][token] for fork, token in path]).sum() for path in blank.paths])


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
