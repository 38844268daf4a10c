"""Which keys and strings a call can have, and the order of its keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A key is bare: these characters would end it, and a reader strips blanks at its ends.
_KEY_ENDS = re.compile(r"[:,{}\[\]]|^\s|\s$|^$")
# A text spelled like a control token: where a grammar forces it, llguidance would force the control token itself.
_CONTROL = re.compile(r"<\|[^<>|\s]*\|?>|<[^<>|\s]+\|>|<(?:pad|eos|bos|unk|mask)>")


def text_problem(text: str) -> str:
    """Why a grammar cannot ask for a text; empty if it can."""
    return f"{text!r} is spelled like a control token and cannot be asked for" if _CONTROL.search(text) else ""


def key_problem(key: str) -> str:
    """Why an object cannot have a key; empty if it can."""
    if problem := text_problem(key):
        return problem
    if _KEY_ENDS.search(key):
        return f"the key {key!r} cannot be written bare: it is empty, has a blank at an end, or holds one of :,{{}}[]"
    return ""


def dictsorted(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The items in the order of jinja's ``dictsort``, in which the chat template writes them."""
    return sorted(mapping.items(), key=lambda pair: pair[0].lower())
