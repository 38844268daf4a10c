"""The choices of a selection: their names, the options of a question, and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_uppercase

from llama_index.core.tools.types import ToolMetadata

from dgemma_core.api.questions import one_line

_LONGEST_NAME = 40  # Most characters of a name that is an option; longer ones are replaced by letters.


@dataclass(frozen=True)
class Choice:
    """One choice.

    Attributes:
        index: its place among the given choices.
        name: unique among the choices.
        description: its purpose; may be empty.
    """

    index: int
    name: str
    description: str

    def __str__(self) -> str:
        return f"{self.name}: {self.description}" if self.description else self.name


def named_choices(choices: Sequence[ToolMetadata]) -> list[Choice]:
    """The choices, with unique names. Names and descriptions are on one line.

    Raises:
        ValueError: there are no choices, or one has neither a name nor a description.
    """
    if not choices:
        raise ValueError("choices=[]: there is nothing to select")
    named: list[Choice] = []
    taken: set[str] = set()
    for index, choice in enumerate(choices):
        name, description = (one_line(text or "") for text in (choice.name, choice.description))
        if not name:  # LlamaIndex puts a plain string into the description.
            name, description = description, ""
        if not name:
            raise ValueError(f"choices[{index}]={choice!r}: needs a name or a description")
        unique = name
        while unique in taken:
            unique = f"{name} ({index + 1})" if unique == name else f"{unique}'"
        taken.add(unique)
        named.append(Choice(index, unique, description))
    return named


def options_of(choices: Sequence[Choice]) -> dict[str, str]:
    """The choices as options of a question: option -> description.

    The options are the choices' names, because the model answers with an option. They are letters if a name is too long
    or begins another name.
    """
    names = [choice.name for choice in choices]
    telling = all(len(name) <= _LONGEST_NAME for name in names)
    if telling and not any(a != b and a.startswith(b) for a in names for b in names):
        return {choice.name: choice.description for choice in choices}
    return {letter: str(choice) for letter, choice in zip(ascii_uppercase, choices, strict=False)}


def groups_of(choices: Sequence[Choice], size: int) -> list[Sequence[Choice]]:
    """The choices in as few groups of at most ``size`` as possible. The groups are of about equal size."""
    count = -(-len(choices) // size)
    bounds = [len(choices) * group // count for group in range(count + 1)]
    return [choices[begin:end] for begin, end in pairwise(bounds)]
