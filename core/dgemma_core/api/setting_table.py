"""Descriptions of the settings of ``LoadSpec`` and ``SamplingParams``, one per setting.

A field declared with :func:`setting` carries its bounds, its unit and one sentence. :func:`settings_of` reads them, for
validation, the adapters' fields, the docs' tables and the accepted keyword arguments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from types import MappingProxyType, NoneType
from typing import Any, Literal, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints

from dgemma_core.api.plain_numbers import plain

Default = TypeVar("Default")
_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class Setting:
    """One setting, as declared on its field.

    Attributes:
        text: what the setting does, in one sentence; code stands in backticks.
        default: value if none is given.
        low: smallest value.
        above: every value is greater than this.
        below: every value is less than this.
        unit: unit of a number.
        per_call: whether it belongs to one request, so that model objects have no field for it.
        name: the field's name.
        type: the field's type, resolved.
    """

    text: str
    default: Any = None
    low: float | None = None
    above: float | None = None
    below: float | None = None
    unit: str | None = None
    per_call: bool = False
    name: str = ""
    type: Any = None

    @cached_property
    def optional(self) -> bool:
        """Whether ``None`` is accepted."""
        return NoneType in get_args(self.type)

    @property
    def sentence(self) -> str:
        """The text with the choices, and with the unit if the text does not name it."""
        choices = f" One of {', '.join(quoted(choice) for choice in self.choices)}." if self.choices else ""
        return f"{self.text}{choices}{f' Unit: {self.unit}.' if self.unnamed_unit else ''}"

    @property
    def unnamed_unit(self) -> str | None:
        """The unit if the text does not name it, else None."""
        return None if self.unit is None or self.unit in self.text.lower() else self.unit

    @cached_property
    def base_type(self) -> Any:
        """The type without ``None``, or the type of the choices."""
        if self.choices:
            return type(self.choices[0])
        return self._types()[0]

    @cached_property
    def choices(self) -> tuple[Any, ...]:
        """The accepted values if the type is a ``Literal``, else empty."""
        first = self._types()[0]
        return get_args(first) if get_origin(first) is Literal else ()

    def checked(self, value: Any) -> Any:
        """Check a value's type, bounds and choices. Texts, numbers, bools and choices are checked.

        Returns:
            The value; a number of numpy or torch as Python's own.

        Raises:
            ValueError: naming the setting, its value and what is accepted.
        """
        if value is None and self.optional:
            return value
        if self.base_type in (int, float, bool):
            value = plain(value)
        problem = self._problem(value)
        if problem:
            raise ValueError(f"{self.name}={value!r}: {problem}")
        return value

    def _problem(self, value: object) -> str | None:
        if self.choices:
            return None if value in self.choices else self._expected()
        kind = self.base_type
        if kind is bool:
            return None if isinstance(value, bool) else self._expected()
        if kind is str:
            return None if isinstance(value, str) else self._expected()
        if kind is not int and kind is not float:
            return None
        if not (is_integer(value) if kind is int else is_number(value)):
            return self._expected()
        number = cast(float, value)
        if (self.low is not None and number < self.low) or (self.above is not None and number <= self.above):
            return self._expected()
        return f"must be below {number_text(self.below)}" if self.below is not None and number >= self.below else None

    def _expected(self) -> str:
        """What is accepted, for an error."""
        if self.choices:
            names = [str(choice) for choice in self.choices]
            return f"choose {'None, ' + ' or '.join(names) if self.optional else 'one of ' + ', '.join(names)}"
        if self.base_type is bool:
            return "must be True or False"
        if self.base_type is str:
            example = f" such as {self.default!r}" if self.default else ""
            return f"must be a text{example}{', or None' if self.optional else ''}"
        if self.base_type is int:
            least = "" if self.low is None else f" of at least {self.low}"
            return f"must be an integer{least}{', or None for the default' if self.optional else ''}"
        if self.above is not None:
            number = "positive number" if self.above == 0 else f"number above {self.above}"
        elif self.low is not None:
            number = "non-negative number" if self.low == 0 else f"number of at least {self.low}"
        else:
            number = "number"
        return f"must be a {number}{', or None' if self.optional else ''}"

    def _types(self) -> tuple[Any, ...]:
        if not self.optional:
            return (self.type,)
        return tuple(part for part in get_args(self.type) if part is not NoneType)


def setting(
    default: Default,
    text: str,
    *,
    low: float | None = None,
    above: float | None = None,
    below: float | None = None,
    unit: str | None = None,
    per_call: bool = False,
) -> Default:
    """Declare a dataclass field with its :class:`Setting`. The arguments are the setting's attributes."""
    described = Setting(text, default, low, above, below, unit, per_call)
    # A type checker takes this for the default value, so it knows that the field has one.
    return field(default=default, metadata={"setting": described})


def settings_of(owner: type) -> Mapping[str, Setting]:
    """The settings of a dataclass by name, in the order of its fields."""
    return _settings_of(owner)


@cache
def _settings_of(owner: Any) -> Mapping[str, Setting]:
    hints = get_type_hints(owner)
    return MappingProxyType(
        {
            item.name: replace(item.metadata["setting"], name=item.name, type=hints[item.name])
            for item in fields(owner)
            if "setting" in item.metadata
        }
    )


def check_settings(values: object) -> None:
    """Check every setting of a dataclass object. Numbers of numpy and torch become Python's own.

    Raises:
        ValueError: naming the field, its value and what is accepted.
    """
    for name, described in settings_of(type(values)).items():
        # A frozen dataclass has no other way.
        object.__setattr__(values, name, described.checked(getattr(values, name)))


def documented(owner: _Class) -> _Class:
    """Class decorator: adds one line for every setting to the docstring."""
    lines = [f"    {name}: {described.sentence}" for name, described in settings_of(owner).items()]
    owner.__doc__ = "\n".join([(owner.__doc__ or "").rstrip(), "", "Args:", *lines, ""])
    return owner


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite integer or float and no bool."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def quoted(value: object) -> str:
    """A value as code between backticks."""
    return f'`"{value}"`' if isinstance(value, str) else f"`{value!r}`"


def number_text(number: float) -> str:
    """A bound as text; a large power of two is written ``2**n``."""
    power = number.bit_length() - 1 if isinstance(number, int) else 0
    return f"2**{power}" if power > 20 and number == 2**power else str(number)
