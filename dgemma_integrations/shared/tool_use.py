"""Tools, tool choice, thinking and the form of an answer: both adapters' keyword arguments in one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dgemma_core.api.grammar import Grammar
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.request import Prompt, Request
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_integrations.shared.shown_schema import with_schema


@dataclass(frozen=True)
class ToolUse:
    """The parts of a request that decide what an answer holds besides plain text.

    Attributes:
        tools: OpenAI function dicts.
        choice: as ``tool_choice`` of ``Request``.
        parallel: whether one answer may hold several calls.
        grammar: grammar of an answer without calls, from ``response_format``.
        thinking: whether to think before answering.
        schema: JSON schema to show to the model; None shows none.
    """

    tools: tuple[dict[str, Any], ...] = ()
    choice: str | None = None
    parallel: bool = True
    grammar: Grammar | None = None
    thinking: bool = False
    schema: Mapping[str, Any] | None = None

    def request(self, prompt: Prompt, params: SamplingParams, timeout: float | None) -> Request:
        """A request with these tools.

        Raises:
            ValueError: the prompt is empty, or has no place for tools or thinking.
        """
        request = Request(prompt, params, self.tools, self.choice, self.parallel, self.thinking, timeout)
        if self.schema is None:
            return request
        return replace(request, prompt=with_schema(request.messages, self.schema))


def tool_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """The frameworks' and OpenAI's forms of a tool choice -> ``auto``, ``none``, ``any`` or a tool's name.

    Raises:
        ValueError: an unknown form, or a name that no tool has.
    """
    if choice is None or choice is False:
        return None
    if choice is True or choice == "required":
        choice = "any"
    if isinstance(choice, Mapping):
        choice = choice.get("function", choice).get("name", choice)
    names = [tool["function"]["name"] for tool in tools]
    known_words = ("auto", "none", "any") if names else ("auto", "none")
    if not isinstance(choice, str) or choice not in (*known_words, *names):
        known = f" or one of the tools {', '.join(names)}" if names else " (there are no tools)"
        raise ValueError(f"tool_choice={choice!r}: must be 'auto', 'none', 'any', 'required'{known}")
    return choice


def with_strictness(tools: Sequence[Mapping[str, Any]], asked: Any) -> tuple[dict[str, Any], ...]:
    """The tools, each with whether to refuse what cannot be enforced of its schema, or to widen it with a warning.

    Args:
        tools: OpenAI function dicts; their own ``strict`` goes first.
        asked: ``strict`` of the call; None means no.

    Raises:
        ValueError: ``strict`` is neither True nor False.
    """
    if not isinstance(asked, bool | None):
        raise ValueError(f"strict={asked!r}: must be True or False")
    marked = []
    for tool in tools:
        own = tool["function"].get("strict")
        strict = own if isinstance(own, bool) else bool(asked)
        marked.append({**tool, "function": {**tool["function"], "strict": strict}})
    return tuple(marked)


def switched(name: str, asked: Any, default: bool) -> bool:
    """A call's switch, or the model object's if the call has none.

    Raises:
        ValueError: neither True nor False.
    """
    if asked is None:
        return default
    asked = plain(asked)
    if not isinstance(asked, bool):
        raise ValueError(f"{name}={asked!r}: must be True or False")
    return asked


def answer_schema(response_format: Any) -> Mapping[str, Any] | None:
    """The JSON schema in OpenAI's ``response_format``; None if there is none."""
    if not isinstance(response_format, Mapping) or response_format.get("type") != "json_schema":
        return None
    described = response_format.get("json_schema")
    schema = described.get("schema") if isinstance(described, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def answer_grammar(response_format: Any) -> Grammar | None:
    """OpenAI's ``response_format`` as a grammar. None for free text.

    Raises:
        ValueError: an unknown form, or a schema that cannot be enforced.
    """
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Grammar.json()
    schema = answer_schema(response_format)
    if schema is None:
        raise ValueError(
            f"response_format={response_format!r}: must be {{'type': 'text'}}, {{'type': 'json_object'}} or "
            "{'type': 'json_schema', 'json_schema': {'name': ..., 'schema': {...}}}"
        )
    return Grammar.json_schema(schema, strict=response_format["json_schema"].get("strict") is not False)
