"""A mixin for model classes whose integer settings take nothing but integers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, field_validator
from pydantic_core import PydanticCustomError

from dgemma_core.api.setting_table import is_integer
from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS, SAMPLING_SETTINGS

_INTEGERS = tuple(name for name, s in {**LOAD_SETTINGS, **SAMPLING_SETTINGS}.items() if s.base_type is int)


class StrictIntegers(BaseModel):
    """A mixin that refuses ``True`` and ``2.0`` for integers. Pydantic alone would take them for 1 and 2."""

    @field_validator(*_INTEGERS, mode="before", check_fields=False)
    @classmethod
    def _integer(cls, value: Any) -> Any:
        if value is None or is_integer(value):
            return value
        raise PydanticCustomError("int_type", "Input should be a valid integer")
