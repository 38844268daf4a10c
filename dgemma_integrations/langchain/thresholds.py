"""Thresholds: the probability of yes from which a question is answered True."""

from __future__ import annotations

from collections.abc import Mapping

from dgemma_core.api.questions import Question
from dgemma_integrations.shared.checks import is_probability


def thresholds_by_name(
    given: float | Mapping[str, float] | None, questions: Mapping[str, Question]
) -> dict[str, float]:
    """Thresholds by the names of their questions.

    Args:
        given: one threshold for all questions of type ``bool``, or thresholds by name.
        questions: by name.

    Raises:
        ValueError: a name that is not a ``bool`` question, or a threshold that is no probability.
    """
    if given is None:
        return {}
    asked = [name for name, question in questions.items() if question.type == "bool"]
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(asked, given)
    if not by_name:
        raise ValueError(f"threshold={given!r}: there is no question of type bool")
    for name in by_name:
        if name not in asked:
            raise ValueError(f"threshold for {name!r}: must be for a question of type bool: {', '.join(asked)}")
        if not is_probability(by_name[name]):
            raise ValueError(f"threshold={by_name[name]!r} for {name!r}: must be a probability from 0 to 1")
    return by_name
