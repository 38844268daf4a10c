"""Forms: the assistant's turn with a blank for the answer of every typed question, in tokens.

A form has one line per question: its number, its text, and a blank. A blank has room for the longest option. Options
that share their first tokens part at a fork, a position where the next token decides between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dgemma_core.api.questions import Question, one_line

OPTION_TOKENS = 16  # Longer options are cut to this length, or to the length at which all of them differ.


@dataclass(frozen=True)
class Fork:
    """A position of a form where options of a question part.

    Attributes:
        position: index into the form's tokens.
        token_ids: the options' different tokens at this position.
    """

    position: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Blank:
    """The place of a question's answer.

    Attributes:
        start: index into the form's tokens.
        options: token ids of every option, all of the same length.
        paths: per option its forks, as (index into the form's forks, index into the fork's tokens).
    """

    start: int
    options: tuple[tuple[int, ...], ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class Form:
    """The assistant's turn with blanks.

    Attributes:
        tokens: token ids up to the end token, which is included. Every blank holds its first option.
        blanks: one per question.
        forks: of all blanks; logits are read for their tokens only.
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
    """One question of a form.

    Attributes:
        asked: token ids of its number and text.
        options: token ids of every option, all of the same length.
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
        pad_id: the token that fills a blank after a shorter option.
    """

    encode: Callable[[str], list[int]]
    end_id: int
    pad_id: int

    def write(self, questions: Iterable[Question], spelled_out: bool = False) -> Form:
        """A form with one line per question.

        The blank follows its question directly: there a model, above all a small one, answers best. An option shorter
        than its blank ends with a line break and padding.

        Args:
            questions: at least one.
            spelled_out: leave out the questions' texts, because the prompt has them.

        Raises:
            ValueError: the tokenizer spells two options alike.
        """
        return self.join([self.line(number, question, spelled_out) for number, question in enumerate(questions, 1)])

    def line(self, number: int, question: Question, spelled_out: bool = False) -> Line:
        """The line of one question, as :meth:`write` writes it.

        Args:
            number: of the question in its form, from 1.
            question: the question.
            spelled_out: leave out its text.

        Raises:
            ValueError: the tokenizer spells two options alike.
        """
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
        """The options' tokens, padded or cut to one length at which all options differ."""
        spelled = [self.encode(f" {one_line(name)}") for name in question.names]
        room = max(map(len, spelled))
        line_break = self.encode("\n")
        filled = [(*ids, *line_break, *[self.pad_id] * room)[:room] for ids in spelled]
        if len(set(filled)) < len(filled):
            raise ValueError(f"options={question.names!r}: this checkpoint's tokenizer spells two of them alike")
        apart = next(n for n in range(1, room + 1) if len({ids[:n] for ids in filled}) == len(filled))
        return tuple(ids[: max(apart, OPTION_TOKENS)] for ids in filled)


def _blank(start: int, options: tuple[tuple[int, ...], ...], forks: list[Fork]) -> Blank:
    """The blank at ``start``; its forks, those of the trie of its options' tokens, are appended to ``forks``."""
    paths: list[list[tuple[int, int]]] = [[] for _ in options]
    for depth in range(len(options[0])):
        for prefix in dict.fromkeys(ids[:depth] for ids in options):
            members = [i for i, ids in enumerate(options) if ids[:depth] == prefix]
            different = tuple(dict.fromkeys(options[i][depth] for i in members))
            if len(different) == 1:
                continue
            for i in members:
                paths[i].append((len(forks), different.index(options[i][depth])))
            forks.append(Fork(start + depth, different))
    return Blank(start, options, tuple(map(tuple, paths)))
