"""Merges the settings of a model object and of one call into ``SamplingParams``, for both adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dgemma_core.api.sampling_params import SamplingParams
from dgemma_integrations.shared.adapter_settings import ALIASES, call_names
from dgemma_integrations.shared.keywords import reject_unknown

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
    object's stops do not apply. A call's ``temperature`` replaces the model object's ``t_min`` and ``t_max``, and the
    other way round. A call's ``logprobs=False`` turns off the model object's ``top_logprobs``. ``max_tokens`` is the
    engine's ``max_new_tokens``.

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
    given = _resolve(defaults, known, owner)
    for name in _replaced(own):
        given.pop(name, None)
    merged = given | own
    if "grammar" in own and "stop" not in own:
        # The model object's stops are for answers in words.
        merged.pop("stop", None)
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


def with_drafts(params: SamplingParams, asked_by: str) -> SamplingParams:
    """The parameters with drafts.

    Args:
        params: of a request.
        asked_by: the setting that asks for them, for the error.

    Raises:
        ValueError: the way of decoding has no drafts.
    """
    try:
        return replace(params, drafts=True)
    except ValueError as error:
        raise ValueError(str(error).replace("drafts=True", asked_by, 1)) from None


def _replaced(own: Mapping[str, Any]) -> list[str]:
    """Settings of the model object that a call's settings stand for, or turn off."""
    names = []
    if "temperature" in own:
        names += ["t_min", "t_max"]
    if "t_min" in own or "t_max" in own:
        names.append("temperature")
    if own.get("logprobs") is False:
        names.append("top_logprobs")
    return names


def _resolve(settings: Mapping[str, Any], known: tuple[str, ...], owner: str) -> dict[str, Any]:
    """Settings under the engine's names, without the ones not given."""
    reject_unknown(settings, known, owner=owner)
    given = {name: value for name, value in settings.items() if value is not None}
    for alias, name in ALIASES.items():
        if alias in given:
            if name in given:
                raise ValueError(f"{owner}: {alias} and {name} are the same setting; give one of them")
            given[name] = given.pop(alias)
    return given
