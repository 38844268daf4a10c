"""What both adapters' model objects need to find the engine that serves them."""

from __future__ import annotations

from pickle import PicklingError
from typing import Annotated, Any, TypeAlias

from pydantic import GetPydanticSchema
from pydantic_core import core_schema

from dgemma_core.api.protocol import Engine

# Pydantic hands it on as it is: load_settings() says what is wrong with it.
GivenEngine: TypeAlias = Annotated[Engine | None, GetPydanticSchema(lambda _kind, _handler: core_schema.any_schema())]
"""An engine that somebody passed to a model object."""


def as_name(value: Any) -> Any:
    """The name of a ``pathlib.Path``, a ``torch.device`` or a ``torch.dtype``."""
    return value if value is None else str(value).removeprefix("torch.")


def check_picklable(engine: Engine | None, *, owner: str) -> None:
    """Raises a ``PicklingError`` where a copy in another process could not find this engine again.

    Args:
        engine: that a model object was given.
        owner: class name of the model object.
    """
    if engine is not None and engine.in_memory:
        raise PicklingError(
            f"{owner} with an engine made by Engine.from_model cannot be pickled: its weights exist in this process "
            "only"
        )
