"""One line in the log for drafts that a call asks for and nobody can see."""

from __future__ import annotations

import logging
from functools import cache

logger = logging.getLogger(__name__)


@cache
def tell_unheard(asked: str, listeners: str) -> None:
    """Warn once in a process.

    Args:
        asked: the keyword argument of the call.
        listeners: the methods that show drafts.
    """
    logger.warning("%s: this method shows no drafts; use %s", asked, listeners)
