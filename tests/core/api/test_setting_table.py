"""One description per setting: validation and docstrings follow from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest

from dgemma_core.api import LoadSpec, SamplingParams
from dgemma_core.api.setting_table import check_settings, setting, settings_of


@dataclass(frozen=True)
class Oven:
    """Settings of every kind there is."""

    racks: int = setting(2, "Racks.", low=1)
    seed: int | None = setting(None, "Seed.", low=0, below=2**64)
    heat: float | None = setting(None, "Heat.", above=0, unit="watts")
    salt: float = setting(0.0, "Salt.", low=0)
    scale: float = setting(2.0, "Scale.", above=1)
    fill: float = setting(0.5, "Fill.", low=0.1, below=1)
    light: bool = setting(True, "Whether the light is on.")
    mode: Literal["air", "grill"] | None = setting(None, "Mode.")
    rack: Literal["low", "high"] = setting("low", "Rack.")
    name: str = setting("", "Any text.")

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize("values", [{}, {"racks": 1, "seed": 0, "heat": 1, "salt": 0}, {"mode": "air", "rack": "high"}])
def test_values_within_the_bounds_are_taken(values: dict[str, Any]) -> None:
    assert all(getattr(Oven(**values), name) == value for name, value in values.items())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("racks", 0, "racks=0: must be an integer of at least 1"),
        ("racks", None, "racks=None: must be an integer of at least 1"),
        ("racks", True, "racks=True: must be an integer of at least 1"),
        ("racks", 2.0, "racks=2.0: must be an integer of at least 1"),
        ("seed", -1, "seed=-1: must be an integer of at least 0, or None for the default"),
        ("seed", 2**64, f"seed={2**64}: must be below 2**64"),
        ("heat", 0, "heat=0: must be a positive number, or None"),
        ("heat", float("inf"), "heat=inf: must be a positive number, or None"),
        ("heat", float("nan"), "heat=nan: must be a positive number, or None"),
        ("heat", "hot", "heat='hot': must be a positive number, or None"),
        ("salt", -0.1, "salt=-0.1: must be a non-negative number"),
        ("scale", 1, "scale=1: must be a number above 1"),
        ("fill", 0, "fill=0: must be a number of at least 0.1"),
        ("fill", 1, "fill=1: must be below 1"),
        ("light", 1, "light=1: must be True or False"),
        ("mode", "steam", "mode='steam': choose None, air or grill"),
        ("name", 5, "name=5: must be a text"),
        ("name", None, "name=None: must be a text"),
        ("rack", None, "rack=None: choose one of low, high"),
        ("rack", [], "rack=[]: choose one of low, high"),
    ],
)
def test_other_values_are_refused_by_name(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        Oven(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize("owner", [LoadSpec, SamplingParams])
def test_every_field_is_described(owner: type) -> None:
    described = settings_of(owner)
    assert list(described) == [field.name for field in fields(owner)]
    for name, one in described.items():
        assert one.text.endswith("."), name
        assert one.default == getattr(owner(), name), name
        assert f"{name}: {one.text}" in (owner.__doc__ or ""), name


def test_units_are_told_once() -> None:
    assert settings_of(Oven)["heat"].sentence == "Heat. Unit: watts."
    assert settings_of(SamplingParams)["max_new_tokens"].sentence == "Exact upper bound on the answer's tokens."
