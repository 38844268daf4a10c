"""Where the answers of typed questions stand in a canvas, in tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dgemma_core.api.questions import Question, one_line

OPTION_TOKENS = 16  # An option is written out so far, or further where others only part from it later.


@dataclass(frozen=True)
class Fork:
    """A canvas position where options of a question part.

    Attributes:
        position: index into the form's tokens.
        token_ids: the tokens that the options go on with.
    """

    position: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Blank:
    """Where a question's answer stands.

    Attributes:
        start: index into the form's tokens.
        options: token ids of every option, filled up to the same length.
        paths: per option its forks, as (index into the form's forks, index into the fork's tokens).
    """

    start: int
    options: tuple[tuple[int, ...], ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class Form:
    """The assistant's turn with blanks.

    Attributes:
        tokens: token ids, with the first option in every blank, up to and with the end token.
        blanks: one per question.
        forks: of all blanks; the only tokens whose logits are read.
    """

    tokens: tuple[int, ...]
    blanks: tuple[Blank, ...]
    forks: tuple[Fork, ...]

    def open_positions(self) -> list[int]:
        """Indices into ``tokens`` that depend on the answers, ascending."""
        return [
            blank.start + place
            for blank in self.blanks
            for place, column in enumerate(zip(*blank.options, strict=True))
            if len(set(column)) > 1
        ]


@dataclass(frozen=True)
class Line:
    """One question in tokens.

    Attributes:
        asked: number and text.
        options: token ids of every option, filled up to the same length.
    """

    asked: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        """Positions in the canvas."""
        return len(self.asked) + len(self.options[0])


@dataclass(frozen=True)
class FormWriter:
    """Writes forms in a checkpoint's tokens.

    Args:
        encode: plain text to token ids.
        end_id: the token that ends a turn.
        pad_id: fills a blank behind a shorter option.
    """

    encode: Callable[[str], list[int]]
    end_id: int
    pad_id: int

    def write(self, questions: Iterable[Question], spelled_out: bool = False) -> Form:
        """One line per question: its number, its text and the blank of its answer.

        A blank has room for the longest option; a shorter one ends with the line break that follows every answer. The
        trie of the options' tokens tells where they part; only there is the model asked. Right behind its question is
        the easiest place for an answer, above all for a small model.

        Args:
            questions: at least one.
            spelled_out: the questions' texts stand in the prompt, and not here.

        Raises:
            ValueError: the tokenizer spells two options alike.
        """
        return self.join([self.line(number, question, spelled_out) for number, question in enumerate(questions, 1)])

    def line(self, number: int, question: Question, spelled_out: bool = False) -> Line:
        """The ``number``-th question's line, as :meth:`write` writes it."""
        text = f"{number}." if spelled_out else f"{number}. {one_line(question.text)}"
        return Line(tuple(self.encode(f"\n{text}" if number > 1 else text)), self._spell(question))

    def join(self, lines: Iterable[Line]) -> Form:
        """The form of these lines, in their order."""
        tokens: list[int] = []
        blanks: list[Blank] = []
        forks: list[Fork] = []
        for line in lines:
            tokens += line.asked
            blanks.append(_blank(len(tokens), line.options, forks))
            tokens += line.options[0]
        return Form((*tokens, self.end_id), tuple(blanks), tuple(forks))

    def _spell(self, question: Question) -> tuple[tuple[int, ...], ...]:
        """The options' tokens, filled up to one length; long ones are cut where all are told apart."""
        spelled = [self.encode(f" {one_line(name)}") for name in question.names]
        room = max(map(len, spelled))
        line_break = self.encode("\n")
        filled = [(*ids, *line_break, *[self.pad_id] * room)[:room] for ids in spelled]
        if len(set(filled)) < len(filled):
            raise ValueError(f"options={question.names!r}: this checkpoint's tokenizer spells two of them alike")
        apart = next(n for n in range(1, room + 1) if len({ids[:n] for ids in filled}) == len(filled))
        return tuple(ids[: max(apart, OPTION_TOKENS)] for ids in filled)


def _blank(start: int, options: tuple[tuple[int, ...], ...], forks: list[Fork]) -> Blank:
    """A blank whose forks are added to ``forks``."""
    paths: list[list[tuple[int, int]]] = [[] for _ in options]
    for depth in range(len(options[0])):
        for prefix in dict.fromkeys(ids[:depth] for ids in options):
            members = [i for i, ids in enumerate(options) if ids[:depth] == prefix]
            told = tuple(dict.fromkeys(options[i][depth] for i in members))
            if len(told) == 1:
                continue
            for i in members:
                paths[i].append((len(forks), told.index(options[i][depth])))
            forks.append(Fork(start + depth, told))
    return Blank(start, options, tuple(map(tuple, paths)))
