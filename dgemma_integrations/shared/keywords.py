"""Takes keyword arguments under other libraries' names where they mean the same, and refuses unknown ones by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from dgemma_core.api.foreign_names import ACCEPTED_NAMES, FOREIGN_NAMES
from dgemma_integrations.shared.adapter_settings import ALIASES, LOAD_SETTINGS, SAMPLING_SETTINGS

# Less similar names are no slips of the pen: `top_p` and `stop` have 0.67, `max_length` and `canvas_length` 0.70.
_SIMILAR = 0.8
_SHORTEST = 4  # letters of an abbreviation
_OF_OBJECT = " (give it when the model object is made)"
_CHECKED = {**LOAD_SETTINGS, **SAMPLING_SETTINGS}


def own_names(
    given: Mapping[str, Any], accepted: Iterable[str], *, owner: str, of_object: Iterable[str] = ()
) -> dict[str, Any]:
    """Keyword arguments under our own names.

    Args:
        given: the keyword arguments.
        accepted: our own names that the owner takes.
        owner: class or function that takes them, for the message.
        of_object: names that only the model object takes, for the message.

    Raises:
        ValueError: two names of one setting, an unknown name, or a number out of bounds under a foreign name.
    """
    known = set(accepted)
    taken: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in given.items():
        own = ACCEPTED_NAMES.get(name)
        if own is None or own not in known:
            own = name
        if value is not None and taken.get(own) is not None:
            raise ValueError(
                f"{owner}: {names[own]}={taken[own]!r} and {name}={value!r} are the same setting; give one of them"
            )
        if own != name and own in _CHECKED:
            _check(name, own, value)
        if own not in taken or value is not None:
            taken[own], names[own] = value, name
    reject_unknown(taken, known, owner=owner, of_object=of_object)
    return taken


def reject_unknown(
    given: Mapping[str, Any], accepted: Iterable[str], *, owner: str, of_object: Iterable[str] = ()
) -> None:
    """Raise a ``ValueError`` that names each unknown keyword argument, with what to write instead.

    For another library's name this is our own setting. For any other name it is a known one that differs in a letter
    or two.

    Args:
        given: the keyword arguments.
        accepted: the known names.
        owner: class or function that takes them, for the message.
        of_object: names that only the model object takes, for the message.
    """
    known = set(accepted)
    fields = set(of_object)
    unknown = sorted(set(given) - known)
    if not unknown:
        return
    parts = [f"{name!r}{_OF_OBJECT if name in fields else _hint(name, given[name], known)}" for name in unknown]
    listed = ", ".join(sorted(known))
    plural = "s" if len(unknown) > 1 else ""
    raise ValueError(f"{owner}: unknown keyword argument{plural} {', '.join(parts)}. Accepted: {listed}")


def _check(name: str, own: str, value: Any) -> None:
    """Check a number under the name that the caller wrote."""
    setting = _CHECKED[own]
    if setting.base_type in (int, float):
        try:
            setting.checked(value)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{own}=", f"{name}=", 1)) from None


def _hint(name: str, value: Any, known: set[str]) -> str:
    row = FOREIGN_NAMES.get(name)
    if row is None:
        others = {other for other, own in ACCEPTED_NAMES.items() if own in known}
        close = difflib.get_close_matches(name, sorted(known | others), n=1, cutoff=_SIMILAR) or _shortened(name, known)
        return f" (did you mean {close[0]!r}?)" if close else ""
    advice = row.advice.replace("`", "")
    if row.holds_options and not value:
        return " (leave it out)"
    if row.holds_options and isinstance(value, Mapping):
        return f" ({advice}: {', '.join(_entry(str(key), item, known) for key, item in value.items())})"
    if row.setting is None:
        return f" ({advice})"
    if row.setting in known:
        return f" (write {advice})"
    return f" (give the model object {advice})" if row.setting in LOAD_SETTINGS else " (no counterpart here)"


def _shortened(name: str, known: set[str]) -> list[str]:
    """The known names that a name abbreviates, like ``temp``: it has their first letter and none that they lack."""
    if len(name) < _SHORTEST:
        return []
    return [one for one in sorted(known, key=len) if one[0] == name[0] and _is_within(name, one)]


def _is_within(letters: str, word: str) -> bool:
    rest = iter(word)
    return all(letter in rest for letter in letters)


def _entry(name: str, value: Any, known: set[str]) -> str:
    """What to write for an entry of a dict of options."""
    own = ACCEPTED_NAMES.get(name, name)
    if own not in known and name not in ALIASES:
        return f"{name!r}{_hint(name, value, known)}"
    problem = _problem(own, value)
    return f"{name}={value!r} ({problem})" if problem else f"{own}={value!r}"


def _problem(own: str, value: Any) -> str:
    """Why our own setting does not take a value; empty if it does."""
    if own not in _CHECKED or not _CHECKED[own].choices or not isinstance(value, str):
        return ""
    try:
        _CHECKED[own].checked(value.removeprefix("torch."))
    except ValueError as error:
        return str(error).partition(": ")[2]
    return ""
