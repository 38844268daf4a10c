"""What happens where a tool's schema asks for something that a grammar cannot enforce."""

from __future__ import annotations

import logging

from dgemma_core.errors import GrammarError

logger = logging.getLogger(__name__)


class Problems:
    """Refuses a tool's schema, or widens it, one place after the other.

    Args:
        tool: its name.
        strict: whether to refuse what cannot be enforced. Otherwise the place is widened, and a warning is logged.
    """

    def __init__(self, tool: str, strict: bool) -> None:
        self._tool = tool
        self._strict = strict
        self._told: set[str] = set()

    def error(self, path: str, problem: str) -> GrammarError:
        """The error to raise about a place of the schema."""
        return GrammarError(f"tool {self._tool!r}, {path}: {problem}", None)

    def widen(self, path: str, problem: str) -> None:
        """Say that a place is widened.

        Args:
            path: the place in the schema.
            problem: what cannot be enforced there.

        Raises:
            GrammarError: the schema must be enforced as it is.
        """
        if self._strict:
            raise self.error(path, problem)
        text = f"tool {self._tool!r}, {path}: {problem}; calls are not held to it, so check their arguments"
        if text not in self._told:
            self._told.add(text)
            logger.warning(text)
