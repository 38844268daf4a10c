"""Which keys and strings a call can have, and the order of its keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dgemma_core.structured.lark import quoted

# These characters would end a bare key, and a reader strips blanks at its ends.
_KEY_ENDS = re.compile(r"[:,{}\[\]]|^\s|\s$|^$")
# A terminal for keys that can be written bare.
BARE_KEY = r"/[^:,{}\[\]\s](?:[^:,{}\[\]]*[^:,{}\[\]\s])?/"


def key_text(key: str) -> str:
    """Lark for a key: bare, as the chat template writes it, or as a string where a bare one could not be read back."""
    if not key:
        return '<|"|> <|"|>'
    return f'<|"|> {quoted(key)} <|"|>' if _KEY_ENDS.search(key) else quoted(key)


def key_with_colon(key: str) -> str:
    """Lark for a key and the colon after it, one literal if possible."""
    return f'{key_text(key)} ":"' if not key or _KEY_ENDS.search(key) else quoted(f"{key}:")


def dictsorted(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The items in the order of jinja's ``dictsort``, in which the chat template writes them."""
    return sorted(mapping.items(), key=lambda pair: pair[0].lower())
