"""A mixin for model classes whose number settings take nothing but numbers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, field_validator
from pydantic_core import PydanticCustomError

from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.setting_table import is_integer
from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS, SAMPLING_SETTINGS

_KINDS = {name: setting.base_type for name, setting in {**LOAD_SETTINGS, **SAMPLING_SETTINGS}.items()}
_INTEGERS = tuple(name for name, kind in _KINDS.items() if kind is int)
_NUMBERS = tuple(name for name, kind in _KINDS.items() if kind is float)


class StrictNumbers(BaseModel):
    """A mixin that refuses ``True`` or a text for a number and ``2.0`` for an integer. Pydantic alone would take both.

    Numbers of numpy and torch become Python's own.
    """

    @field_validator(*_INTEGERS, mode="before", check_fields=False)
    @classmethod
    def _integer(cls, value: Any) -> Any:
        value = plain(value)
        if value is None or is_integer(value):
            return value
        raise PydanticCustomError("int_type", "Input should be a valid integer")

    @field_validator(*_NUMBERS, mode="before", check_fields=False)
    @classmethod
    def _number(cls, value: Any) -> Any:
        value = plain(value)
        if isinstance(value, bool | str | bytes):
            raise PydanticCustomError("float_type", "Input should be a valid number")
        return value
