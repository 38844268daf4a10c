"""The choices of a selection: names that tell them apart, the options of a question, groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_uppercase

from llama_index.core.tools.types import ToolMetadata

from dgemma_core.api.questions import one_line

_LONGEST_NAME = 40  # characters of a name that is answered as it is


@dataclass(frozen=True)
class Choice:
    """One choice.

    Attributes:
        index: its place among the given ones.
        name: no other choice has it.
        description: what it is for; may be empty.
    """

    index: int
    name: str
    description: str

    def __str__(self) -> str:
        return f"{self.name}: {self.description}" if self.description else self.name


def named_choices(choices: Sequence[ToolMetadata]) -> list[Choice]:
    """The choices with names that are all different, on one line each.

    Raises:
        ValueError: there are none, or one without a name and a description.
    """
    if not choices:
        raise ValueError("choices=[]: there is nothing to select")
    named: list[Choice] = []
    taken: set[str] = set()
    for index, choice in enumerate(choices):
        name, description = (one_line(text or "") for text in (choice.name, choice.description))
        if not name:  # A choice given as a plain string.
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
    """The choices as options: names where they tell choices apart, else letters, as names are what is answered."""
    names = [choice.name for choice in choices]
    telling = all(len(name) <= _LONGEST_NAME for name in names)
    if telling and not any(a != b and a.startswith(b) for a in names for b in names):
        return {choice.name: choice.description for choice in choices}
    return {letter: str(choice) for letter, choice in zip(ascii_uppercase, choices, strict=False)}


def groups_of(choices: Sequence[Choice], size: int) -> list[Sequence[Choice]]:
    """As few groups of at most ``size`` as there can be, of about equal size."""
    count = -(-len(choices) // size)
    bounds = [len(choices) * group // count for group in range(count + 1)]
    return [choices[begin:end] for begin, end in pairwise(bounds)]
