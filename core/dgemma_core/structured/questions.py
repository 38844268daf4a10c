"""Typed questions and how they are written down for the model. Knows neither torch nor the engine.

The embedded checkpoint's recipe teaches exactly these words (``training/data/decide.py``), so they stand in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

QuestionType = Literal["bool", "choice", "score"]
QUESTION_TYPES: tuple[str, ...] = get_args(QuestionType)

YES_NO = ("yes", "no")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
INSTRUCTION = "Answer the questions about the text above. Write one line each: the number, a colon and the label."


@dataclass(frozen=True)
class Question:
    """One typed question.

    Args:
        type: ``"bool"`` (yes or no), ``"choice"`` (one of named options) or ``"score"`` (one of ordered levels, lowest
            first).
        text: the question.
        options: for ``choice`` and ``score`` 2 to 26 names, or a mapping from names to descriptions; not for ``bool``.

    Raises:
        ValueError: naming the field, its value and what is accepted.
    """

    type: QuestionType
    text: str
    options: Mapping[str, str] | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.type not in QUESTION_TYPES:
            raise ValueError(f"type={self.type!r}: must be one of {', '.join(QUESTION_TYPES)}")
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError(f"text={self.text!r}: a question needs words")
        if self.type == "bool":
            if self.options:
                raise ValueError(f"options={self.options!r}: a bool question has none; use type='choice'")
            return
        options = self.options
        if isinstance(options, str) or not isinstance(options, Mapping | Sequence):
            raise ValueError(f"options={options!r}: a {self.type} question needs a list of names or a mapping")
        names = list(options)
        if not 2 <= len(names) <= len(LETTERS) or len(set(names)) != len(names):
            raise ValueError(f"options={names!r}: give 2 to {len(LETTERS)} different names")
        described = options.values() if isinstance(options, Mapping) else ()
        for value in (*names, *described):
            if not isinstance(value, str):
                raise ValueError(f"options hold {value!r}: names and descriptions are strings")
        if not all(name.strip() for name in names):
            raise ValueError(f"options={names!r}: an option needs a name")

    @property
    def names(self) -> tuple[str, ...]:
        """What the answer is one of: the options' names, or ``yes`` and ``no``."""
        return YES_NO if self.type == "bool" else tuple(self.options or ())

    @property
    def labels(self) -> tuple[str, ...]:
        """What the model writes for each of :attr:`names`: short, whatever the names are."""
        return YES_NO if self.type == "bool" else tuple(LETTERS[: len(self.names)])


def render_questions(questions: Sequence[Question]) -> str:
    """The part of the prompt that follows the context."""
    lines = [INSTRUCTION]
    for number, question in enumerate(questions, 1):
        if question.type == "bool":
            lines.append(f"{number}. {question.text} (yes or no)")
            continue
        lines.append(f"{number}. {question.text}{' (from lowest to highest)' if question.type == 'score' else ''}")
        described = question.options if isinstance(question.options, Mapping) else {}
        for label, name in zip(question.labels, question.names, strict=True):
            description = described.get(name, "")
            lines.append(f"{label}) {name}: {description}" if description else f"{label}) {name}")
    return "\n".join(lines)


def check_draws(draws: object) -> None:
    """Raises a ``ValueError`` unless ``draws``, noise draws that answers are averaged over, is a positive integer."""
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws={draws!r}: must be an integer of at least 1")


def render_answers(labels: Sequence[str]) -> str:
    """The model's turn: one line per question."""
    return "\n".join(f"{number}: {label}" for number, label in enumerate(labels, 1))
