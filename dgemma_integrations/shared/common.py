"""What both adapters share: which engine serves a spec, how keyword arguments become ``SamplingParams``, checks."""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.events import Generation
from dgemma_core.api.params import SamplingParams
from dgemma_core.api.spec import LoadSpec

if TYPE_CHECKING:
    from dgemma_core import Engine

# One reference per spec, held until release(): frameworks build model objects per request, weights must outlive them.
_engines: dict[LoadSpec, Engine] = {}
_lock = threading.Lock()
_engine_imported = False

# Names users know from other integrations, next to the engine's own.
_ALIASES = {"max_tokens": "max_new_tokens"}
# Where the published schedule starts; ``temperature`` never asks for a colder one, see sampling_params().
_COLDEST = 0.8
LOAD_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(LoadSpec))
PARAMETER_NAMES: tuple[str, ...] = tuple(sorted(SamplingParams.names() | {"max_tokens", "temperature"}))


def engine_for(spec: LoadSpec) -> Engine:
    """The process's engine for this spec; loads nothing by itself.

    The first call for a spec takes one reference that is kept until :func:`release`. An engine that somebody closed is
    replaced by a new one.
    """
    engine_class = _engine_class()
    with _lock:
        engine = _engines.get(spec)
        if engine is None or engine.closed:
            engine = _engines[spec] = engine_class.shared(spec)
        return engine


async def aengine_for(spec: LoadSpec) -> Engine:
    """:func:`engine_for` for a running event loop: the first use in a process imports torch, which takes seconds."""
    if not _engine_imported:
        await asyncio.to_thread(_engine_class)
    return engine_for(spec)


def release(spec: LoadSpec) -> None:
    """Gives the process's reference for this spec back; does nothing where none is held."""
    with _lock:
        engine = _engines.pop(spec, None)
    # Outside the lock: closing the last reference waits for the worker thread.
    if engine is not None:
        engine.close()


def load_spec(
    model: str | PathLike[str] = "embedded",
    revision: str | None = None,
    device: Any = None,
    dtype: Any = None,
    quantization: Any = None,
    max_context: int | None = None,
    max_batch_tokens: int | None = None,
    max_queue: int | None = None,
    prefix_cache_bytes: int | None = None,
) -> LoadSpec:
    """A ``LoadSpec`` from an adapter's keyword arguments; ``None`` means the default.

    ``device`` and ``dtype`` may also be torch's own objects (``torch.device("cuda:1")``, ``torch.bfloat16``).

    Raises:
        ValueError: naming the argument, its value and what is accepted.
    """
    given = {
        "revision": revision,
        "device": None if device is None else str(device),
        "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
        "quantization": quantization,
        "max_context": max_context,
        "max_batch_tokens": max_batch_tokens,
        "max_queue": max_queue,
        "prefix_cache_bytes": prefix_cache_bytes,
    }
    # LoadSpec turns a path object into a string itself.
    return LoadSpec(model=model, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]


def load_settings(engine: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a given engine holds, as load settings.

    Args:
        engine: what the user passed as an engine.
        given: load settings that the user passed beside it; ``None`` means "not given".

    Raises:
        ValueError: not an engine, or a setting that contradicts it.
    """
    spec = getattr(engine, "spec", None)
    if not isinstance(spec, LoadSpec) or not callable(getattr(engine, "submit", None)):
        raise ValueError(f"engine={engine!r}: must be a dgemma_core.Engine")
    held = {name: getattr(spec, name) for name in LOAD_FIELDS}
    wanted = load_spec(**{**held, **{name: value for name, value in given.items() if value is not None}})
    for name in given:
        if getattr(wanted, name) != held[name]:
            raise ValueError(f"{name}={given[name]!r}: the given engine has {held[name]!r}; leave {name} out")
    return held


def sampling_params(defaults: Mapping[str, Any], overrides: Mapping[str, Any], *, owner: str) -> SamplingParams:
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

    Raises:
        ValueError: on an unknown name or a bad value.
    """
    own = _resolve(overrides, owner)
    merged = _resolve(defaults, owner) | own
    if "grammar" in own and "stop" not in own:
        # The object's stops are for answers in words.
        merged.pop("stop", None)
    if merged.pop("temperature", None) == 0:
        merged.setdefault("seed", 0)
    try:
        return SamplingParams(**merged)
    except ValueError as error:
        # Name the setting as the caller spelled it.
        if any(settings.get("max_tokens") is not None for settings in (defaults, overrides)):
            raise ValueError(str(error).replace("max_new_tokens=", "max_tokens=")) from None
        raise


def reject_unknown(names: Iterable[str], accepted: Iterable[str], *, owner: str) -> None:
    """Raises a ``ValueError`` that names each keyword argument ``owner`` does not know and the closest one it does."""
    known = sorted(set(accepted))
    unknown = sorted(set(names) - set(known))
    if not unknown:
        return
    parts = []
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1)
        parts.append(f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name))
    plural = "s" if len(unknown) > 1 else ""
    raise ValueError(f"{owner}: unknown keyword argument{plural} {', '.join(parts)}. Accepted: {', '.join(known)}")


def check_probability(name: str, value: Any) -> None:
    """Raises a ``ValueError`` that names a setting unless its value is a probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r}: must be a probability from 0 to 1")


def check_calibration(calibration: Any) -> None:
    """Raises a ``ValueError`` for anything that is not a calibration."""
    if calibration is not None and not isinstance(calibration, Calibration):
        raise ValueError(f"calibration={calibration!r}: must be what dgemma_core.fit_calibration returns, or None")


def generation_numbers(generation: Generation) -> dict[str, Any]:
    """Why the answer ended and what it cost, as plain JSON values under the names both adapters report."""
    usage = generation.usage
    return {
        "finish_reason": generation.finish_reason,
        "canvases": usage.canvases,
        "denoising_steps": usage.denoising_steps,
        "tokens_per_step": usage.tokens_per_step,
        "tokens_per_s": usage.tokens_per_s,
        "timings": {"queue_s": usage.queue_s, "prefill_s": usage.prefill_s, "denoise_s": usage.denoise_s},
    }


def _engine_class() -> type[Engine]:
    global _engine_imported
    from dgemma_core import Engine

    _engine_imported = True
    return Engine


def _resolve(settings: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Settings under the engine's names, without the ones not given."""
    reject_unknown(settings, PARAMETER_NAMES, owner=owner)
    given = {name: value for name, value in settings.items() if value is not None}
    for alias, name in _ALIASES.items():
        if alias in given:
            if name in given:
                raise ValueError(f"{owner}: {alias} and {name} are the same setting; give one of them")
            given[name] = given.pop(alias)
    if "temperature" in given:
        temperature = given["temperature"]
        if "t_min" in given or "t_max" in given:
            raise ValueError(f"{owner}: give temperature={temperature!r} or t_min and t_max, not both")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not temperature >= 0:
            raise ValueError(f"temperature={temperature!r}: must be a non-negative number, or None")
        # None is the checkpoint's own value, and replaces what the model object may have set.
        hot = temperature > _COLDEST
        given |= {"t_max": float(temperature), "t_min": temperature / 2} if hot else {"t_max": None, "t_min": None}
    return given
