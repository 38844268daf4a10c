"""What happens if only an object is seen of an answer, and the answer was cut for want of room."""

from __future__ import annotations

import logging
from typing import Any, Literal, get_args

from dgemma_core.api.surrogates import without_surrogates
from dgemma_core.errors import AnswerCutError

logger = logging.getLogger(__name__)

OnLength = Literal["warn", "raise"]
DESCRIPTION = (
    "What to do if a structured answer was cut for want of room and only its object is seen: `warn` writes to the log, "
    "`raise` raises `AnswerCutError`."
)


def check_on_length(value: Any) -> OnLength:
    """The setting, if it is one.

    Raises:
        ValueError: it is neither ``"warn"`` nor ``"raise"``.
    """
    if value not in get_args(OnLength):
        raise ValueError(f"on_length={value!r}: must be 'warn' or 'raise'")
    checked: OnLength = value
    return checked


def report_cut(on_length: OnLength, name: str, text: str) -> None:
    """Warn that an object lacks something, or refuse it.

    Args:
        on_length: the caller's choice.
        name: of the object's class.
        text: the object as JSON.

    Raises:
        AnswerCutError: ``on_length`` is ``"raise"``.
    """
    message = (
        f"{without_surrogates(name)}: the answer was cut for want of room, so values are shortened or missing, "
        "although the object is valid; give a larger max_tokens"
    )
    if on_length == "raise":
        raise AnswerCutError(message, text)
    logger.warning("%s (on_length='raise' makes this an error)", message)
