"""Merges the settings of a model object and of one call into ``SamplingParams``, for both adapters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

from dgemma_core.api.sampling_params import SamplingParams
from dgemma_integrations.shared.adapter_settings import ALIASES, TEMPERATURE, call_names
from dgemma_integrations.shared.keywords import reject_unknown

logger = logging.getLogger(__name__)

# t_max of the published schedule. ``temperature`` never sets a lower one, see sampling_params().
_PUBLISHED_T_MAX = 0.8
PARAMETER_NAMES: tuple[str, ...] = call_names()


def sampling_params(
    defaults: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    owner: str,
    kind: type[SamplingParams] = SamplingParams,
) -> SamplingParams:
    """Merge a model object's settings with those of one call.

    A value of the call replaces the model object's; ``None`` means "not given". If the call has a grammar, the model
    object's stops do not apply. Two names are not the engine's own:

    - ``max_tokens`` is ``max_new_tokens``.
    - ``temperature`` does what users of other models expect, and is not a step's temperature:

      - 0 makes answers repeatable: the checkpoint's own schedule, with ``seed=0`` if no seed is given.
      - Values up to 0.8 keep the checkpoint's own schedule (the published one falls from 0.8 to 0.4). A colder schedule
        does not give likelier answers. It makes the model sure of its first guess, and the canvas stops too early.
      - Higher values set ``t_max=temperature, t_min=temperature / 2``: more variety, more denoising steps.

      It cannot be given together with ``t_min`` or ``t_max``. A call's ``temperature`` replaces the model object's
      ``t_min`` and ``t_max``, and the other way round.

    Args:
        defaults: settings of the model object.
        overrides: keyword arguments of the call.
        owner: class name for error messages.
        kind: the class to make.

    Raises:
        ValueError: on an unknown name or a bad value.
    """
    known = PARAMETER_NAMES if kind is SamplingParams else call_names(kind)
    own = _resolve(overrides, known, owner)
    merged = _resolve(defaults, known, owner) | own
    if "grammar" in own and "stop" not in own:
        # The model object's stops are for answers in words.
        merged.pop("stop", None)
    if merged.pop("temperature", None) == 0:
        merged.setdefault("seed", 0)
    try:
        return kind(**merged)
    except ValueError as error:
        # Use the name that the caller used.
        text = str(error)
        for alias, name in ALIASES.items():
            if defaults.get(alias) is not None or overrides.get(alias) is not None:
                text = text.replace(f"{name}=", f"{alias}=")
        if text == str(error):
            raise
        raise ValueError(text) from None


@cache
def _tell_mild(temperature: float) -> None:
    """One line in the log for each value, in a process."""
    logger.warning(
        "temperature=%s: every value above 0 and up to %s keeps the checkpoint's own schedule; write 0 for answers "
        "that repeat, or set t_min and t_max",
        temperature,
        _PUBLISHED_T_MAX,
    )


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
        temperature = given["temperature"] = TEMPERATURE.checked(given["temperature"])
        if "t_min" in given or "t_max" in given:
            raise ValueError(f"{owner}: give temperature={temperature!r} or t_min and t_max, not both")
        if 0 < temperature <= _PUBLISHED_T_MAX:
            _tell_mild(temperature)
        # None means the checkpoint's own value, and replaces a value of the model object.
        hot = temperature > _PUBLISHED_T_MAX
        given |= {"t_max": float(temperature), "t_min": temperature / 2} if hot else {"t_max": None, "t_min": None}
    return given
