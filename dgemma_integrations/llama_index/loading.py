"""Finds the engine of an LLM by its load settings. Copies and pickles find it again."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.protocol import Engine
from dgemma_integrations.shared.engines import aengine_for, engine_for
from dgemma_integrations.shared.facts import checkpoint_facts
from dgemma_integrations.shared.keywords import own_names
from dgemma_integrations.shared.load_settings import LOAD_FIELDS, load_settings, load_spec
from dgemma_integrations.shared.loading import GivenEngine, NamedLoadFields, check_picklable
from dgemma_integrations.shared.strict_numbers import StrictNumbers

# Objects of this process, which are not pickled with the LLM.
_PROCESS_FIELDS = frozenset(("callback_manager", "rate_limiter", "given_engine"))


class EngineSettings(StrictNumbers, NamedLoadFields):
    """Keyword arguments that decide which engine answers. ``None`` means the default."""

    # The keyword argument is called engine=. The property of that name also finds the shared engines.
    given_engine: GivenEngine = Field(
        default=None,
        alias="engine",
        exclude=True,
        repr=False,
        description="A dgemma_core.Engine to use instead of the shared one of these settings.",
    )

    # --- construction ---

    @model_validator(mode="before")
    @classmethod
    def _read_keywords(cls, values: Any) -> Any:
        """Take other libraries' names, refuse unknown ones. Take the load settings from a given engine."""
        if not isinstance(values, dict):
            return values
        # A dumped LLM has its class name among its settings.
        values = {name: value for name, value in values.items() if name != "class_name"}
        values = own_names(values, {*cls.model_fields, "engine"} - {"given_engine"}, owner=cls.__name__)
        if values.get("engine") is not None:
            given = {name: value for name, value in values.items() if name in LOAD_FIELDS}
            values |= load_settings(values["engine"], given)
        return values

    @model_validator(mode="after")
    def _check_load_settings(self) -> Self:
        self._spec()
        if self.validate_model_on_init:
            self.engine.validate()
        return self

    # --- copies ---

    def __getstate__(self) -> dict[Any, Any]:
        """The settings, to make an equal object from. LlamaIndex's own method deletes fields of the live object."""
        check_picklable(self.given_engine, owner=type(self).__name__)
        return {"__dict__": {name: getattr(self, name) for name in self.model_fields_set - _PROCESS_FIELDS}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        type(self).__init__(self, **state["__dict__"])

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # A shallow copy is enough: settings are immutable values, and engine and handlers stay the same.
        return self.model_copy()

    # --- engine ---

    @property
    def engine(self) -> Engine:
        """The engine that serves this object. Reading it, or its stats, loads no weights."""
        return self._given_engine() or engine_for(self._spec())

    async def _aengine(self) -> Engine:
        """:attr:`engine` without blocking the event loop."""
        return self._given_engine() or await aengine_for(self._spec())

    def _spec(self) -> LoadSpec:
        return load_spec(**{name: getattr(self, name) for name in LOAD_FIELDS})

    def _given_engine(self) -> Engine | None:
        engine = self.given_engine
        # If load settings were assigned later, they decide, not the engine that was given.
        return engine if engine is not None and engine.spec == self._spec() else None

    def _limits(self) -> tuple[int, int]:
        """Tokens of the context window, and of an answer by default.

        They come from the configuration files if these are on this machine. LlamaIndex asks on event loops, and an
        engine would import torch and read the tokenizer first.
        """
        engine = self._given_engine()
        if engine is None:
            spec = self._spec()
            known = checkpoint_facts(spec)
            if known.window is not None and known.answer_tokens is not None:
                return min(known.window, spec.max_context or known.window), known.answer_tokens
            engine = engine_for(spec)
        facts = engine.facts()
        return facts.context_window, facts.max_new_tokens
