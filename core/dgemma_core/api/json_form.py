"""The JSON form of the API's dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self, get_type_hints

from dgemma_core.api.json_values import read_object, write


class JsonForm:
    """Gives a dataclass a JSON form: an object with a key for every field.

    Its fields may be texts, numbers, booleans, None, literals, other dataclasses with a JSON form, and lists, tuples,
    mappings and unions of these. If a subclass sets ``json_type``, its JSON form has that value as key ``type``.
    """

    json_type: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The value as plain JSON. ``from_dict`` makes an equal value of it.

        Raises:
            ValueError: a field holds a value without a JSON form, like a set or an infinite number. The message names
                the field.
        """
        kind: Any = type(self)
        tag = {"type": self.json_type} if self.json_type else {}
        types, _ = _typed_fields(kind)
        try:
            return tag | {name: write(getattr(self, name), f"{kind.__name__}.{name}") for name in types}
        except RecursionError:
            raise ValueError(f"{kind.__name__} is nested too deeply for JSON") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The value that ``to_dict`` wrote. Fields with a default may be left out.

        Raises:
            ValueError: an unknown or missing key, a wrong type, or a value that the constructor refuses. The message
                names it.
        """
        return cls(**read_fields(cls, data))


def read_fields(kind: Any, data: object) -> dict[str, Any]:
    """The constructor's arguments from a dataclass's JSON form. Keys and types are checked, the constructor is not run.

    Args:
        kind: the dataclass.
        data: parsed JSON.

    Raises:
        ValueError: an unknown or missing key, or a wrong type. The message names it.
    """
    hints, optional = _typed_fields(kind)
    if not kind.json_type:
        return read_object(kind.__name__, data, hints, optional)
    found = read_object(kind.__name__, data, {"type": Literal[kind.json_type]} | hints, optional)
    del found["type"]
    return found


@lru_cache(maxsize=64)
def _typed_fields(cls: type[Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields of a dataclass with their types, and the names of those with a default."""
    types, made = get_type_hints(cls), [field for field in fields(cls) if field.init]
    defaults = (f.name for f in made if f.default is not MISSING or f.default_factory is not MISSING)
    return {field.name: types[field.name] for field in made}, frozenset(defaults)
