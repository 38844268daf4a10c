"""Helpers with which both adapters' model objects find their engine."""

from __future__ import annotations

from os import PathLike
from pickle import PicklingError
from typing import Annotated, Any, TypeAlias

from pydantic import ConfigDict, Field, GetPydanticSchema, ValidationInfo, field_validator
from pydantic_core import core_schema

from dgemma_core.api.protocol import Engine
from dgemma_core.api.setting_table import is_integer
from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS
from dgemma_integrations.shared.fields import LoadFields

# Pydantic does not check it, because load_settings() does, with a better message.
GivenEngine: TypeAlias = Annotated[Engine | None, GetPydanticSchema(lambda _kind, _handler: core_schema.any_schema())]
"""An engine that a user passed to a model object."""


class NamedLoadFields(LoadFields):
    """Load settings that also take ``pathlib.Path``, ``torch.device`` and ``torch.dtype`` objects, by their names."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    validate_model_on_init: bool = Field(
        default=False,
        description=(
            "Check when the object is made that the model can be loaded: its files, the device and the number format. "
            "Loads no weights."
        ),
    )

    @field_validator(*LOAD_SETTINGS, mode="before")
    @classmethod
    def _named_value(cls, value: Any, info: ValidationInfo) -> Any:
        """The value with ``None`` as the default and objects by their names."""
        setting = LOAD_SETTINGS[str(info.field_name)]
        if value is None:
            return setting.default
        if setting.base_type is not str:
            return value
        # A loaded model may be a class of torch, too.
        named = setting.name != "model" and type(value).__module__.partition(".")[0] == "torch"
        if named or isinstance(value, PathLike):
            value = str(value)
        if isinstance(value, str):
            value = value.removeprefix("torch.")
        elif setting.name == "model" and type(value).__module__ != "builtins":
            raise ValueError(
                f"model={type(value).__name__}(...): must be 'embedded', a Hub id or a folder; give loaded weights as "
                "engine=Engine.from_model(model, tokenizer)"
            )
        if setting.name == "device" and is_integer(value):
            wanted = "cpu" if value < 0 else f"cuda:{value}"
            raise ValueError(f"device={value!r}: must be a text such as 'auto'; write device={wanted!r}")
        return setting.checked(value)


def check_picklable(engine: Engine | None, *, owner: str) -> None:
    """Raise a ``PicklingError`` if a copy in another process could not find this engine again.

    Args:
        engine: the engine that the user passed to a model object, if any.
        owner: class name of the model object.
    """
    if engine is not None and engine.in_memory:
        raise PicklingError(
            f"{owner} with an engine made by Engine.from_model cannot be pickled: its weights exist in this process "
            "only"
        )
