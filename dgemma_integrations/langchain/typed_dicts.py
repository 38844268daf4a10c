"""TypedDicts with qualifiers (``NotRequired``, ``Required``, ``ReadOnly``) in a form that LangChain's conversion takes.

LangChain reads ``Annotated[type, default, description]``. It knows no qualifiers, and takes every key without a default
for required.
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

import typing_extensions

_OPTIONAL = frozenset({typing.NotRequired, typing_extensions.NotRequired})
_REQUIRED = frozenset({typing.Required, typing_extensions.Required})
_QUALIFIERS = _OPTIONAL | _REQUIRED | {typing_extensions.ReadOnly, getattr(typing, "ReadOnly", None)}


def is_typed_dict(kind: Any) -> bool:
    """Whether a type is a TypedDict, of either module."""
    return typing.is_typeddict(kind) or typing_extensions.is_typeddict(kind)


def without_qualifiers(kind: Any) -> Any:
    """A type with every TypedDict in it replaced by one without qualifiers; the type itself if there are none.

    Keys that may be missing have the default None.

    Raises:
        RecursionError: a TypedDict that contains itself.
    """
    return _Replacement().of(kind)


class _Replacement:
    """Replaces the types in one type; each TypedDict once."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def of(self, kind: Any) -> Any:
        """The type without qualifiers."""
        if is_typed_dict(kind):
            if kind not in self._made:
                self._made[kind] = None
                self._made[kind] = self._typed_dict(kind)
            if self._made[kind] is None:
                raise RecursionError(f"{kind!r} contains itself")
            return self._made[kind]
        arguments = get_args(kind)
        origin = get_origin(kind)
        if origin is None or not arguments or origin is typing.Literal:
            return kind
        changed = tuple(self.of(part) for part in arguments)
        if all(new is old for new, old in zip(changed, arguments, strict=True)):
            return kind
        if origin is Annotated:
            return Annotated[(changed[0], *kind.__metadata__)]
        return functools.reduce(operator.or_, changed) if origin is types.UnionType else origin[changed]

    def _typed_dict(self, kind: Any) -> Any:
        hints = _hints(kind)
        fields = {name: self._field(hint, name in kind.__required_keys__) for name, hint in hints.items()}
        described = kind.__dict__.get("__doc__")
        if described and all(fields[name] is hint for name, hint in hints.items()):
            return kind
        plain = typing_extensions.TypedDict(kind.__name__, fields)  # type: ignore[misc]
        plain.__doc__ = inspect.cleandoc(described or "")  # Without one, LangChain would find that of dict.
        return plain

    def _field(self, hint: Any, required: bool) -> Any:
        qualifiers, notes, inner = _taken_apart(hint)
        plain = self.of(inner)
        if not qualifiers and required:
            return hint if plain is inner else Annotated[(plain, *notes)] if notes else plain
        if qualifiers & (_OPTIONAL | _REQUIRED):
            required = not qualifiers & _OPTIONAL
        if len(notes) > 1 and notes[0] is not ... and not required:
            return Annotated[(plain, *notes)]  # It has a default of its own.
        description = notes[1] if len(notes) > 1 else notes[0] if notes and isinstance(notes[0], str) else None
        default = ... if required else None
        return Annotated[(plain, default) if description is None else (plain, default, description)]


def _hints(kind: Any) -> Mapping[str, Any]:
    try:
        return typing_extensions.get_type_hints(kind, include_extras=True)
    except Exception:  # A name that cannot be resolved. LangChain goes on with what is written, too.
        return dict(kind.__annotations__)


def _taken_apart(hint: Any) -> tuple[set[Any], tuple[Any, ...], Any]:
    """The qualifiers around a type, what ``Annotated`` says of it, and the type."""
    qualifiers: set[Any] = set()
    notes: tuple[Any, ...] = ()
    while True:
        origin = get_origin(hint)
        if origin in _QUALIFIERS and origin is not None:
            qualifiers.add(origin)
            (hint,) = get_args(hint)
        elif origin is Annotated:
            notes = (*notes, *hint.__metadata__)
            hint = get_args(hint)[0]
        else:
            return qualifiers, notes, hint
