"""The settings of a model object in either framework: the engine's own, and a few that only adapters have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.api.setting_table import Setting, settings_of

# Names that users know from other integrations -> the engine's names.
ALIASES = {"max_tokens": "max_new_tokens"}
# A setting that only adapters have.
TIMEOUT = Setting(
    "Most seconds for a request, without loading the weights; then `RequestTimeoutError`.",
    above=0,
    unit="seconds",
    name="timeout",
    type=float | None,
)
# Settings that some adapters replace: LangChain's models take `on_draft`.
DRAFTS = ("drafts",)


def load_settings_of(spec: type = LoadSpec) -> dict[str, Setting]:
    """Load settings by the names of a model object's fields."""
    return dict(settings_of(spec))


def sampling_settings_of(params: type = SamplingParams) -> dict[str, Setting]:
    """Settings of an answer by the names of a model object's fields, without those that only a call has."""
    engine_names = {name: alias for alias, name in ALIASES.items()}
    own = [replace(s, name=engine_names.get(name, name)) for name, s in settings_of(params).items() if not s.per_call]
    return {setting.name: setting for setting in (*own, TIMEOUT)}


def call_names(params: type = SamplingParams) -> tuple[str, ...]:
    """Keyword arguments that become sampling parameters: the engine's own names and the adapters'."""
    return tuple(sorted({*settings_of(params), *ALIASES}))


LOAD_SETTINGS: Mapping[str, Setting] = load_settings_of()
SAMPLING_SETTINGS: Mapping[str, Setting] = sampling_settings_of()
