"""Classes of structured answers. Their fields are bounded, so that a valid object takes few tokens."""

from __future__ import annotations

from enum import Enum
from typing import Generic, Literal, Optional, TypeVar

from llama_index.core.bridge.pydantic import BaseModel, Field

T = TypeVar("T")


class Colour(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Flat(BaseModel):
    """A person."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=150)


class Choices(BaseModel):
    """A vote."""

    colour: Colour
    size: Literal["small", "large"]
    agreed: bool
    weight: Optional[float] = None  # noqa: UP045 (both spellings are in use)


class Lists(BaseModel):
    """A basket."""

    words: list[Literal["apple", "bread"]] = Field(min_length=1, max_length=2)
    numbers: list[bool] = Field(max_length=2)


class Street(BaseModel):
    """A street."""

    town: str = Field(max_length=10)
    number: int | None = Field(default=None, ge=0, le=999)


class Nested(BaseModel):
    """A house and who lives there."""

    street: Street
    people: list[Flat] = Field(min_length=1, max_length=2)


class Boxed(BaseModel, Generic[T]):
    """A box."""

    content: T
    full: bool


MODELS: dict[str, type[BaseModel]] = {
    "flat": Flat,
    "choices": Choices,
    "lists": Lists,
    "nested": Nested,
    "generic": Boxed[Colour],
}
