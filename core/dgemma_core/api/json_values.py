"""Writes values as plain JSON, and reads them back by type hints.

A hint is a text, number or boolean type, None, Any, a literal, a dataclass with ``to_dict`` and ``from_dict``, or a
list, tuple, mapping or union of these.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from dgemma_core.api.plain_numbers import plain

_SHOWN = 200  # characters of a refused value
_WORDS: dict[Any, tuple[str, str]] = {
    Any: ("a JSON value", "JSON values"),
    NoneType: ("null", "nulls"),
    bool: ("true or false", "booleans"),
    float: ("a finite number", "finite numbers"),
    int: ("an integer", "integers"),
    str: ("a string", "strings"),
}


def write(value: Any, name: str) -> Any:
    """A value as plain JSON.

    Args:
        value: the value.
        name: its name in an error.

    Raises:
        ValueError: JSON has no form for the value.
    """
    value = plain(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(name, value, _WORDS[float][0])
        return value
    if _has_json_form(value):
        return value.to_dict()
    if isinstance(value, list | tuple):
        return [write(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{name} has the key {_shown(key)}: JSON has only strings for keys")
        return {key: write(item, f"{name}[{key!r}]") for key, item in value.items()}
    raise _refused(name, value, _WORDS[Any][0])


def read_object(
    name: str, data: object, hints: Mapping[str, Any], optional: Collection[str] = frozenset()
) -> dict[str, Any]:
    """The values of a JSON object by key.

    Args:
        name: the object's name in an error.
        data: parsed JSON.
        hints: the type of each key's value.
        optional: keys that may be missing.

    Raises:
        ValueError: not an object, an unknown or missing key, or a wrong type. The message names it.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{name}: {_shown(data)} is not a JSON object")
    for key in data:
        if key not in hints:
            raise ValueError(f"{name} has no key {key!r}: it has {', '.join(hints)}")
    for key in hints:
        if key not in data and key not in optional:
            raise ValueError(f"{name} lacks the key {key!r}: it has {', '.join(hints)}")
    try:
        return {key: read(hints[key], value, f"{name}.{key}") for key, value in data.items()}
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None


def read(hint: Any, value: object, name: str) -> Any:
    """A parsed JSON value, converted to the type that a hint names.

    Args:
        hint: a type hint, of the kinds in the module's docstring.
        value: parsed JSON.
        name: its name in an error.

    Raises:
        ValueError: the value has another type.
    """
    for form in _alternatives(hint):
        if _fits(form, value):
            return _converted(form, value, name)
    raise _refused(name, value, _words(hint))


def _converted(form: Any, value: Any, name: str) -> Any:
    if form is Any:
        return write(value, name)
    origin, parts = get_origin(form), get_args(form)
    if origin in (list, tuple, Sequence):
        items = [read(parts[0], item, f"{name}[{i}]") for i, item in enumerate(value)]
        return items if origin is list else tuple(items)
    if origin is Mapping:
        return {read(str, key, f"{name}: key"): read(parts[1], item, f"{name}[{key!r}]") for key, item in value.items()}
    return form.from_dict(value) if _has_json_form(form) else value


def _fits(hint: Any, value: object) -> bool:
    """Whether a value may have the type of a hint. A list is judged by its first item."""
    if hint in (bool, str, NoneType):
        return isinstance(value, hint)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if hint is Any:
        return True
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(part, value) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (list, tuple, Sequence):
        return isinstance(value, list) and (not value or _fits(parts[0], value[0]))
    return isinstance(value, Mapping)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _words(hint: Any, many: bool = False) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint][many]
    if origin in (Union, UnionType):
        *others, last = (_words(part, many) for part in parts)
        return f"{', '.join(others)} or {last}"
    if origin is Literal:
        return f"one of {', '.join(parts)}"
    if origin in (list, tuple, Sequence):
        return f"{'lists' if many else 'a list'} of {_words(parts[0], many=True)}"
    kind = f"{hint.__name__} object" if _has_json_form(hint) else "object"
    return f"{kind}s" if many else f"an {kind}" if kind[0] in "AEIOaeio" else f"a {kind}"


def _refused(name: str, value: object, wanted: str) -> ValueError:
    return ValueError(f"{name}={_shown(value)}: must be {wanted}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _has_json_form(kind: object) -> bool:
    return hasattr(kind, "from_dict")


@lru_cache(maxsize=256)
def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
