"""Load settings as keyword arguments -> ``LoadSpec``, and back from an engine that a user passed."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from dgemma_core.api.load_spec import EMBEDDED, LoadSpec
from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS

LOAD_FIELDS: tuple[str, ...] = tuple(LOAD_SETTINGS)


def load_spec(model: str | PathLike[str] = EMBEDDED, *, kind: type[LoadSpec] = LoadSpec, **settings: Any) -> LoadSpec:
    """A ``LoadSpec`` from an adapter's keyword arguments; ``None`` means the default.

    ``device`` and ``dtype`` may also be torch's own objects (``torch.device("cuda:1")``, ``torch.bfloat16``).

    Args:
        model: as in ``LoadSpec``, or a path object.
        kind: the class to make.
        settings: the other fields of ``LoadSpec``.

    Raises:
        ValueError: naming the argument, its value and what is accepted.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name in ("device", "dtype"):
        if name in given:
            given[name] = str(given[name]).removeprefix("torch.")
    # LoadSpec itself turns a path object into a string.
    return kind(model=model, **given)  # type: ignore[arg-type]


def load_settings(engine: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The load settings of an engine that a user passed.

    Args:
        engine: the value that the user passed.
        given: load settings that the user passed as well; ``None`` means "not given".

    Raises:
        ValueError: not an engine, or a given setting that contradicts the engine's.
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
