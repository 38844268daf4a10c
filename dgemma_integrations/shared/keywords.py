"""Refuses unknown keyword arguments by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from dgemma_core.api.foreign_names import FOREIGN_NAMES
from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS


def reject_unknown(names: Iterable[str], accepted: Iterable[str], *, owner: str) -> None:
    """Raise a ``ValueError`` that names each unknown keyword argument, with what to write instead.

    For another library's name this is our own setting. For any other name it is the closest known one.

    Args:
        names: the given keyword arguments.
        accepted: the known ones.
        owner: class or function that takes them, for the message.
    """
    known = sorted(set(accepted))
    unknown = sorted(set(names) - set(known))
    if not unknown:
        return
    parts = [f"{name!r}{_hint(name, known)}" for name in unknown]
    plural = "s" if len(unknown) > 1 else ""
    raise ValueError(f"{owner}: unknown keyword argument{plural} {', '.join(parts)}. Accepted: {', '.join(known)}")


def _hint(name: str, known: Sequence[str]) -> str:
    row = FOREIGN_NAMES.get(name)
    if row is not None:
        advice = row.advice.replace("`", "")
        if row.setting is None:
            return f" ({advice})"
        if row.setting in known:
            return f" (write {advice})"
        if row.setting in LOAD_SETTINGS:
            return f" (give the model object {advice})"
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
