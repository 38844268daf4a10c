"""Keyword arguments of both adapters as ``SamplingParams``: a model object's settings and those of one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgemma_core.api.params import SamplingParams
from dgemma_integrations.shared.adapter_settings import ALIASES, TEMPERATURE, call_names
from dgemma_integrations.shared.keywords import reject_unknown

# Where the published schedule starts; ``temperature`` never asks for a colder one, see sampling_params().
_COLDEST = 0.8
PARAMETER_NAMES: tuple[str, ...] = call_names()


def sampling_params(
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    owner: str,
    kind: type[SamplingParams] = SamplingParams,
) -> SamplingParams:
    """Merges a model object's settings with those of one call.

    A value of the call replaces the model's; ``None`` means "not given". A call's grammar also sets the model's stops
    aside. Two names are not the engine's own:

    - ``max_tokens`` is ``max_new_tokens``.
    - ``temperature`` is what users of other models expect of it, not a step's temperature:

      - 0 makes answers repeatable: the checkpoint's own schedule, with ``seed=0`` where no seed is given.
      - up to 0.8 is the checkpoint's own schedule (the published one falls from 0.8 to 0.4). A colder one does not give
        likelier answers, it makes the model sure of its first guess and stops too early.
      - above, ``t_max=temperature, t_min=temperature / 2``: more variety, more denoising steps.

      It cannot be given together with ``t_min`` or ``t_max``, but either may override the other's value from the model
      object.

    Args:
        defaults: settings of the model object.
        overrides: keyword arguments of the call.
        owner: class name for error messages.
        kind: class of the result.

    Raises:
        ValueError: on an unknown name or a bad value.
    """
    known = PARAMETER_NAMES if kind is SamplingParams else call_names(kind)
    own = _resolve(overrides, known, owner)
    merged = _resolve(defaults, known, owner) | own
    if "grammar" in own and "stop" not in own:
        # The object's stops are for answers in words.
        merged.pop("stop", None)
    if merged.pop("temperature", None) == 0:
        merged.setdefault("seed", 0)
    try:
        return kind(**merged)
    except ValueError as error:
        # Name the setting as the caller spelled it.
        text = str(error)
        for alias, name in ALIASES.items():
            if defaults.get(alias) is not None or overrides.get(alias) is not None:
                text = text.replace(f"{name}=", f"{alias}=")
        if text == str(error):
            raise
        raise ValueError(text) from None


def _resolve(settings: Mapping[str, Any], known: tuple[str, ...], owner: str) -> dict[str, Any]:
    """Settings under the engine's names, without the ones not given."""
    reject_unknown(settings, known, owner=owner)
    given = {name: value for name, value in settings.items() if value is not None}
    for alias, name in ALIASES.items():
        if alias in given:
            if name in given:
                raise ValueError(f"{owner}: {alias} and {name} are the same setting; give one of them")
            given[name] = given.pop(alias)
    if "temperature" in given:
        temperature = given["temperature"]
        if "t_min" in given or "t_max" in given:
            raise ValueError(f"{owner}: give temperature={temperature!r} or t_min and t_max, not both")
        TEMPERATURE.check(temperature)
        # None is the checkpoint's own value, and replaces what the model object may have set.
        hot = temperature > _COLDEST
        given |= {"t_max": float(temperature), "t_min": temperature / 2} if hot else {"t_max": None, "t_min": None}
    return given
