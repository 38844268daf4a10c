"""Writes tool calls exactly as Gemma 4's chat template does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dgemma_core.chat.control_tokens import CALL_CLOSE, CALL_OPEN, QUOTE


def format_value(value: Any) -> str:
    """A JSON value as the chat template writes it in a call.

    Args:
        value: str, bool, None, a number, or mappings and sequences of these. Keys are written bare. A key cannot be
            read back if it is empty, begins or ends with a blank, or contains any of ``{}[],:``.
    """
    if isinstance(value, str):
        return f"{QUOTE}{value}{QUOTE}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        # As jinja's dictsort does: ordered by the keys in lower case, ties in their given order.
        keys = sorted(value, key=lambda key: key.lower() if isinstance(key, str) else key)
        return "{" + ",".join(f"{key}:{format_value(value[key])}" for key in keys) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(format_value, value)) + "]"
    return str(value)


def format_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A tool call as the chat template writes it, control tokens spelled out.

    A control token's spelling inside a name or a string is not escaped here; ``ChatTemplate`` does that.

    Args:
        name: the tool's name.
        arguments: JSON values, see :func:`format_value`.
    """
    return f"{CALL_OPEN}call:{name}{format_value(arguments)}{CALL_CLOSE}"
