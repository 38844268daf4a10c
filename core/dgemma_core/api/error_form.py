"""Reads errors from their JSON form. ``to_dict`` of an error writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from dgemma_core import errors
from dgemma_core.api.grammar import Grammar
from dgemma_core.api.json_form import read_fields
from dgemma_core.api.json_values import read_object
from dgemma_core.errors import DGemmaError, GrammarError

_CLASSES: dict[str, type[DGemmaError] | type[GrammarError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, DGemmaError | GrammarError)
}


def error_from_dict(data: Mapping[str, Any]) -> DGemmaError | GrammarError:
    """The error that ``to_dict`` wrote: the same class, attributes and text.

    An error of a class that ``dgemma_core.errors`` does not have becomes a ``DGemmaError`` with the same text.

    Raises:
        ValueError: an unknown or missing key, or a wrong type. The message names it.
    """
    name = data.get("type") if isinstance(data, Mapping) else None
    kind = _CLASSES.get(name) if isinstance(name, str) else None
    if kind is None:
        known = {key: data[key] for key in ("type", "message") if key in data} if isinstance(data, Mapping) else data
        return DGemmaError(read_object("error", known, {"type": str, "message": str})["message"])
    # An error's constructor takes its attributes.
    hints = {key: hint for key, hint in get_type_hints(kind.__init__).items() if key != "return"}
    hints |= {"grammar": Mapping[str, Any] | None} if "grammar" in hints else {}
    found = read_object(name or "", data, {"type": str, "message": str} | hints)
    message: str = found["message"]
    attributes = {key: found[key] for key in hints}
    if attributes.get("grammar") is not None:
        attributes["grammar"] = _refused_grammar(attributes["grammar"])
    error = kind(**attributes) if attributes else kind(message)
    error.args = (message,)  # The original text: another version may have written it differently.
    return error


def _refused_grammar(data: Mapping[str, Any]) -> Grammar:
    """A refused grammar, made without its constructor, which would refuse it again."""
    grammar = object.__new__(Grammar)
    for name, value in read_fields(Grammar, data).items():
        object.__setattr__(grammar, name, value)
    return grammar
