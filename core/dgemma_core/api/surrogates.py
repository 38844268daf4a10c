"""Repairs text that holds halves of surrogate pairs.

Extractors of PDF files and truncated JSON leave them in text. No tokenizer takes them, and UTF-8 cannot hold them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

_REPLACEMENT = "\ufffd"
_PAIR_OR_HALF = re.compile(r"([\ud800-\udbff])([\udc00-\udfff])|[\ud800-\udfff]")

# As regular expressions and Lark spell them. The last branch keeps a backslash with the character after it.
_ESCAPED = re.compile(
    r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\(?:u|U0000|(?P<brace>[ux]\{0*))(?P<half>[dD][89a-fA-F][0-9a-fA-F]{2})(?(brace)\})|\\.",
    re.S,
)

Value = TypeVar("Value")


def without_surrogates(value: Value) -> Value:
    r"""A text, or a JSON value, without halves of surrogate pairs in its texts and keys.

    Two halves that make a pair become their character, ``"\ud835\udc00"`` for one. Any other half becomes U+FFFD, the
    replacement character. A value without halves is returned as it is.

    Raises:
        ValueError: two keys of a mapping differ in nothing but such halves.
    """
    try:
        return cast(Value, _repaired(value)) if _broken(value) else value
    except RecursionError:  # Nested too deeply for JSON. Whoever uses the value says so.
        return value


def without_escaped_surrogates(source: str) -> str:
    r"""The source of a regular expression or a Lark grammar without halves that it spells with escapes.

    ``\ud835\udc00`` becomes its character, any other ``\ud835`` or ``\u{d835}`` becomes U+FFFD.
    """
    return _ESCAPED.sub(_unescaped, source)


def _broken(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and _PAIR_OR_HALF.search(value) is not None
    if isinstance(value, Mapping):
        return any(_broken(key) or _broken(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(map(_broken, value))


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return _PAIR_OR_HALF.sub(_character, value)
    if isinstance(value, Mapping):
        repaired = {_repaired(key): _repaired(item) for key, item in value.items()}
        if len(repaired) < len(value):
            raise ValueError(f"the keys {list(value)!r}: two of them differ only in halves of surrogate pairs")
        return repaired
    if isinstance(value, list | tuple):
        return tuple(map(_repaired, value)) if isinstance(value, tuple) else list(map(_repaired, value))
    return value


def _character(match: re.Match[str]) -> str:
    high, low = match.groups()
    return _joined(ord(high), ord(low)) if high else _REPLACEMENT


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        return _joined(int(match[1], 16), int(match[2], 16))
    return _REPLACEMENT if match["half"] else match[0]


def _joined(high: int, low: int) -> str:
    return chr(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00)
