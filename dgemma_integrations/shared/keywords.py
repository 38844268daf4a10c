"""Keyword arguments that nobody knows are refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from dgemma_core.api.foreign_names import FOREIGN_NAMES
from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS


def reject_unknown(names: Iterable[str], accepted: Iterable[str], *, owner: str) -> None:
    """Raises a ``ValueError`` that names each keyword argument ``owner`` does not know, with what to write instead.

    For a name of another library that is the setting here; for any other name the closest one that is known.
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
