"""What gives the API's dataclasses a JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self, get_type_hints

from dgemma_core.api.json_values import read_object, write


class JsonForm:
    """Gives a dataclass a JSON form: an object with a key for every field.

    Its fields may be texts, numbers, booleans, None, literals, other dataclasses with a JSON form, and lists, tuples,
    mappings and unions of these. A subclass with ``json_type`` also has the key ``type``, which tells it apart.
    """

    json_type: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The value as plain JSON: ``from_dict`` makes an equal one of it.

        Raises:
            ValueError: a field holds what JSON has no form for, such as a set or an infinite number; it is named.
        """
        kind: Any = type(self)
        tag = {"type": self.json_type} if self.json_type else {}
        try:
            return tag | {name: write(getattr(self, name), f"{kind.__name__}.{name}") for name in _plan(kind)[0]}
        except RecursionError:
            raise ValueError(f"{kind.__name__} is nested too deeply for JSON") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The value that ``to_dict`` wrote. Fields with a default may be left out.

        Raises:
            ValueError: an unknown or missing key, a wrong type, or a value that the constructor refuses; it is named.
        """
        return cls(**read_fields(cls, data))


def read_fields(kind: Any, data: object) -> dict[str, Any]:
    """The arguments of a dataclass from its JSON form, not yet seen by its constructor.

    Args:
        kind: the dataclass.
        data: what was read.

    Raises:
        ValueError: an unknown or missing key, or a wrong type; it is named.
    """
    hints, optional = _plan(kind)
    if not kind.json_type:
        return read_object(kind.__name__, data, hints, optional)
    found = read_object(kind.__name__, data, {"type": Literal[kind.json_type]} | hints, optional)
    del found["type"]
    return found


@lru_cache(maxsize=64)
def _plan(cls: type[Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields of a dataclass with their types, and those that have a default."""
    types, made = get_type_hints(cls), [field for field in fields(cls) if field.init]
    defaults = (f.name for f in made if f.default is not MISSING or f.default_factory is not MISSING)
    return {field.name: types[field.name] for field in made}, frozenset(defaults)
