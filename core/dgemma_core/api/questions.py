"""Typed questions, their answers, and the words that ask them.

The embedded checkpoint is trained on exactly these words (``training/data/decide.py``), so they stand in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.setting_table import is_integer
from dgemma_core.api.surrogates import without_surrogates

QuestionType = Literal["bool", "choice", "score"]
QUESTION_TYPES: tuple[str, ...] = get_args(QuestionType)

YES_NO = ("yes", "no")
MOST_OPTIONS = 26
INSTRUCTION = "Answer each question: yes or no, or one of its options."


@dataclass(frozen=True)
class Question(JsonForm):
    """One typed question.

    Args:
        type: ``"bool"`` (yes or no), ``"choice"`` (one of named options) or ``"score"`` (one of ordered levels, lowest
            first).
        text: the question.
        options: 2 to 26 names (kept as a tuple), or a mapping from names to descriptions. A ``bool`` question has none.
            Halves of surrogate pairs in texts become U+FFFD.

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
        object.__setattr__(self, "text", without_surrogates(self.text))
        if self.type == "bool":
            if self.options:
                raise ValueError(f"options={self.options!r}: a bool question has none; use type='choice'")
            object.__setattr__(self, "options", None)
            return
        options = self.options
        if isinstance(options, str) or not isinstance(options, Mapping | Sequence):
            raise ValueError(f"options={options!r}: a {self.type} question needs a list of names or a mapping")
        options = without_surrogates(options)
        names = list(options)
        if not 2 <= len(names) <= MOST_OPTIONS or len(set(names)) != len(names):
            raise ValueError(f"options={names!r}: give 2 to {MOST_OPTIONS} different names")
        described = options.values() if isinstance(options, Mapping) else ()
        for value in (*names, *described):
            if not isinstance(value, str):
                raise ValueError(f"options hold {value!r}: names and descriptions are strings")
        if not all(name.strip() for name in names):
            raise ValueError(f"options={names!r}: an option needs a name")
        if len({one_line(name) for name in names}) != len(names):
            raise ValueError(f"options={names!r}: two of them differ only in blanks")
        object.__setattr__(self, "options", options if isinstance(options, Mapping) else tuple(names))

    @property
    def names(self) -> tuple[str, ...]:
        """The possible answers: the options' names, or ``yes`` and ``no``."""
        return YES_NO if self.type == "bool" else tuple(self.options or ())


@dataclass(frozen=True)
class Answer(JsonForm):
    """The answer to one question.

    Attributes:
        value: ``True`` or ``False`` for ``bool``, else the likeliest option's name.
        probabilities: probability of every option (``"yes"`` and ``"no"`` for ``bool``), in the options' order. They
            sum to 1.
    """

    value: bool | str
    probabilities: Mapping[str, float]

    @property
    def confidence(self) -> float:
        """Probability of :attr:`value`."""
        return max(self.probabilities.values())

    @property
    def level(self) -> float:
        """Expected index of the option, from 0. For a ``score`` question this is the score."""
        return sum(place * p for place, p in enumerate(self.probabilities.values()))


def one_line(text: str) -> str:
    """The text on one line: every run of blanks and line breaks becomes one blank."""
    return " ".join(text.split())


def render_options(questions: Sequence[Question], spelled_out: bool = False) -> str:
    """The part of the prompt after the context: an instruction, and each question's options.

    The questions themselves stand in the canvas. So a call with other questions of the same options finds the whole
    prompt in the prefix cache.

    Args:
        questions: in the order of the canvas.
        spelled_out: write the questions here, because they are too long for a canvas.
    """
    lines = [INSTRUCTION]
    for number, question in enumerate(questions, 1):
        asked = [one_line(question.text)] if spelled_out else []
        if question.options:
            described = question.options if isinstance(question.options, Mapping) else {}
            written = {name: one_line(name) for name in question.names}
            options = [f"{w} ({one_line(described[n])})" if described.get(n) else w for n, w in written.items()]
            way = ", from lowest to highest" if question.type == "score" else ""
            # A comma in a name would look like the end of an option.
            lines_up = any("," in name for name in written)
            listed = "".join(f"\n- {option}" for option in options) if lines_up else " " + ", ".join(options)
            asked.append(f"One of these{way}:{listed}")
        if asked:
            lines.append(f"{number}. {' '.join(asked)}")
    return "\n".join(lines)


def check_draws(draws: object) -> int:
    """The number of noise draws that answers are averaged over, checked. A numpy integer becomes Python's own.

    Raises:
        ValueError: not a positive integer.
    """
    draws = plain(draws)
    if not is_integer(draws) or draws < 1:
        raise ValueError(f"draws={draws!r}: must be an integer of at least 1")
    return draws
