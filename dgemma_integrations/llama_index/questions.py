"""A component's questions: prompt templates, and the one line that each becomes in a canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.prompts import PromptTemplate

from dgemma_core.api.questions import one_line


def as_template(name: str, value: Any, needed: Sequence[str] = ()) -> PromptTemplate:
    """A prompt template from a text with ``{variables}``, or from a ``PromptTemplate``.

    Args:
        name: the argument's name, for the message.
        value: the text or template.
        needed: variables that it must contain.

    Raises:
        ValueError: neither a text nor a ``PromptTemplate``, an empty one, or one without a needed variable.
    """
    template = PromptTemplate(value) if isinstance(value, str) else value
    if not isinstance(template, PromptTemplate):
        raise ValueError(f"{name}={value!r}: must be a string or a PromptTemplate")
    if not template.template.strip():
        raise ValueError(f"{name}={value!r}: a question needs words")
    for variable in needed:
        if f"{{{variable}}}" not in template.template and variable not in (template.template_var_mappings or {}):
            raise ValueError(f"{name}={template.template!r}: must contain {{{variable}}}")
    return template


def as_line(template: PromptTemplate, **values: Any) -> str:
    """The filled template on one line, as every question of a canvas."""
    return one_line(template.format(**values))
