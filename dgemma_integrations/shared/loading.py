"""Helpers with which both adapters' model objects find their engine."""

from __future__ import annotations

from os import PathLike
from pickle import PicklingError
from typing import Annotated, Any, TypeAlias

from pydantic import ConfigDict, GetPydanticSchema, field_validator
from pydantic_core import core_schema

from dgemma_core.api.protocol import Engine
from dgemma_integrations.shared.fields import LoadFields

# Pydantic does not check it, because load_settings() does, with a better message.
GivenEngine: TypeAlias = Annotated[Engine | None, GetPydanticSchema(lambda _kind, _handler: core_schema.any_schema())]
"""An engine that a user passed to a model object."""


class NamedLoadFields(LoadFields):
    """Load settings that also take ``pathlib.Path``, ``torch.device`` and ``torch.dtype`` objects, by their names."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @field_validator("device", "dtype", mode="before")
    @classmethod
    def _name_of(cls, value: Any) -> Any:
        return value if value is None else str(value).removeprefix("torch.")

    @field_validator("model", mode="before")
    @classmethod
    def _model_name(cls, value: Any) -> Any:
        if value is None or isinstance(value, str | PathLike):
            return value if value is None else str(value)
        raise ValueError(
            f"model={type(value).__name__}(...): must be 'embedded', a Hub id or a folder; give loaded weights as "
            "engine=Engine.from_model(model, tokenizer)"
        )


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
