"""Questions of a component as prompt templates, and as the one line that goes into a canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.prompts import PromptTemplate

from dgemma_core.api.questions import one_line


def as_template(name: str, value: Any, needed: Sequence[str] = ()) -> PromptTemplate:
    """A prompt template from a text with ``{variables}``.

    Raises:
        ValueError: not a text or a ``PromptTemplate``, no words in it, or a variable in ``needed`` that it leaves out.
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
    """The template filled in, on one line as every question of a canvas."""
    return one_line(template.format(**values))
