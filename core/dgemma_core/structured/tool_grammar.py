"""Grammars for an assistant's turn with tool calls, as Gemma 4 writes them.

A call is ``<|tool_call>call:NAME{key:value}<tool_call|>``. Keys are bare and in the order of jinja's ``dictsort``.
Strings stand between two ``<|"|>`` with nothing escaped. Everything else is as in JSON, without blanks. The arguments
follow the tool's JSON Schema. The grammar allows a subset of what the schema allows: optional keys may be missing,
undeclared ones are not written.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dgemma_core.api.grammar import COMPACT, Grammar
from dgemma_core.errors import GrammarError
from dgemma_core.structured.lark import LarkWriter, quoted
from dgemma_core.structured.tool_schema.arguments import ArgumentsWriter
from dgemma_core.structured.tool_schema.rules import VALUE_RULES

logger = logging.getLogger(__name__)

CHOICES = ("auto", "none", "any", "required")

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_COMMON = {"thought": "<|channel> TEXT <channel|>", **VALUE_RULES}


def tool_grammar(
    tools: Sequence[Mapping[str, Any]], choice: str = "auto", parallel: bool = True, answer: Grammar | None = None
) -> Grammar:
    """The grammar of an assistant's turn that may, must or must not call tools.

    Args:
        tools: OpenAI function dicts, or the values of their ``function`` keys. What cannot be enforced in a tool with
            ``"strict": False`` is widened, with a warning in the log; if no arguments can fit, it is never called.
        choice: ``"auto"``, ``"none"``, ``"any"`` or ``"required"`` (a call of some tool and no text), or a tool's name
            (a call of this tool and no text). Reasoning may always come first.
        parallel: whether a turn may have more than one call.
        answer: JSON that an answer without calls must be; only with ``"auto"``, and with no text beside calls.

    Raises:
        ValueError: a tool without a proper name, two tools of one name, an unknown ``choice``, or a call required
            without tools.
        GrammarError: parameters that are no schema, that no arguments fit, or with a keyword that cannot be enforced;
            tool, place and keyword are named.
    """
    functions = _functions(tools)
    if choice not in CHOICES and choice not in functions:
        known = f"or one of the tools {', '.join(functions)}" if functions else "there are no tools"
        raise ValueError(f"tool_choice={choice!r}: must be one of {', '.join(CHOICES)}; {known}")
    if choice in ("any", "required") and not functions:
        raise ValueError(f"tool_choice={choice!r}: needs at least one tool, and there are none")
    if choice not in CHOICES:
        functions = {choice: functions[choice]}
    writer = LarkWriter(_COMMON)
    calls = ""
    if choice != "none" and functions:
        written = _written(functions, writer)
        writer.rules["call"] = f'<|tool_call> "call:" ({" | ".join(written)}) <tool_call|>'
        calls = "call"
    if answer is not None:
        if answer.kind != "json_schema" or choice != "auto":
            raise ValueError(
                f"an answer of a {answer.kind} grammar does not go together with tools, tool_choice={choice!r} or "
                "thoughts: only JSON does, with tool_choice='auto'"
            )
        writer.rules["answer"] = f"%json {json.dumps(json.loads(answer.compact_schema()) | {'x-guidance': COMPACT})}"
        turn = f"thought? ({calls}{'+' if parallel else ''} | answer)" if calls else "thought? answer"
    elif choice in ("auto", "none"):
        turn = f"thought? TEXT {calls and calls + ('*' if parallel else '?')}"
    else:
        turn = f"thought? {calls}{'+' if parallel else ''}"
    return Grammar.lark(writer.text(turn.strip()))


def _written(functions: Mapping[str, Mapping[str, Any]], writer: LarkWriter) -> list[str]:
    """Lark for the calls of each tool."""
    written = []
    for name, function in functions.items():
        strict = function.get("strict", True) is not False
        try:
            arguments = ArgumentsWriter(name, function.get("parameters"), writer, strict).write()
        except GrammarError as error:
            # One bad tool must not stop an agent with others.
            if strict or len(functions) == 1:
                raise
            logger.warning("%s; the tool is declared, but it cannot be called", error)
        else:
            written.append(f"{quoted(name)} {arguments}")
    return written


def _functions(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Functions by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else tool
        if not isinstance(function, Mapping):
            raise ValueError(f"tools hold {tool!r}: a tool is an OpenAI function dict")
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"name={name!r}: a tool's name consists of letters, digits, '_', '.' and '-'")
        if name in found:
            raise ValueError(f"name={name!r}: two tools have this name; the names are {', '.join(found)}")
        found[name] = function
    return found
