"""Keyword arguments that nobody knows are refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def reject_unknown(names: Iterable[str], accepted: Iterable[str], *, owner: str) -> None:
    """Raises a ``ValueError`` that names each keyword argument ``owner`` does not know and the closest one it does."""
    known = sorted(set(accepted))
    unknown = sorted(set(names) - set(known))
    if not unknown:
        return
    parts = []
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1)
        parts.append(f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name))
    plural = "s" if len(unknown) > 1 else ""
    raise ValueError(f"{owner}: unknown keyword argument{plural} {', '.join(parts)}. Accepted: {', '.join(known)}")
