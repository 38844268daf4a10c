"""Finds the engine of a LangChain object by its load settings. Copies and pickles find it again."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.protocol import Engine
from dgemma_integrations.shared.engines import aengine_for, engine_for
from dgemma_integrations.shared.keywords import own_names
from dgemma_integrations.shared.load_settings import LOAD_FIELDS, load_settings, load_spec
from dgemma_integrations.shared.loading import GivenEngine, NamedLoadFields, check_picklable
from dgemma_integrations.shared.strict_numbers import StrictNumbers


class EngineSettings(StrictNumbers, NamedLoadFields):
    """Keyword arguments of all objects that use an engine. ``None`` means the default."""

    engine: GivenEngine = Field(default=None, exclude=True, repr=False)
    """A ``dgemma_core.Engine`` to use instead of the shared one of these settings. Not serialised."""

    # --- construction ---

    @model_validator(mode="before")
    @classmethod
    def _read_diffusiongemma_keywords(cls, values: Any) -> Any:
        """Take other libraries' names, refuse unknown ones."""
        return own_names(values, cls.model_fields, owner=cls.__name__) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_diffusiongemma_engine(self) -> Self:
        if self.engine is not None:
            self._adopt_engine()
        self._spec()
        if self.validate_model_on_init:
            self._engine().validate()
        return self

    def _adopt_engine(self) -> None:
        """Take the load settings from the given engine."""
        given = {name: getattr(self, name) for name in LOAD_FIELDS if name in self.model_fields_set}
        # Not by __setattr__, which would count the fields as set by the caller.
        self.__dict__.update(load_settings(self.engine, given))

    # --- copies ---

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        if self.engine is not None:
            check_picklable(self.engine, owner=type(self).__name__)
            # The copy finds its engine by the load settings, which are this engine's.
            state = {**state, "__dict__": {**state["__dict__"], "engine": None}}
        return state

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        if self.engine is not None:
            memo[id(self.engine)] = self.engine
        return super().__deepcopy__(memo)

    # --- engine ---

    def _spec(self, model: str | None = None) -> LoadSpec:
        settings = {name: getattr(self, name) for name in LOAD_FIELDS}
        if model is not None and model != self.model:
            # A revision names a commit of the other checkpoint.
            settings |= {"model": model, "revision": None}
        return load_spec(**settings)

    def _engine(self, model: str | None = None) -> Engine:
        """The engine that serves this object. Loads nothing."""
        return engine_for(self._spec(model)) if self.engine is None else self._checked(self.engine, model)

    async def _aengine(self, model: str | None = None) -> Engine:
        """:meth:`_engine` without blocking the event loop."""
        return await aengine_for(self._spec(model)) if self.engine is None else self._checked(self.engine, model)

    def _checked(self, engine: Engine, model: str | None) -> Engine:
        """The given engine.

        Raises:
            ValueError: it has other load settings than are asked for.
        """
        wanted = self._spec(model)
        for name in LOAD_FIELDS:
            # They differ if a call gives `model`, or if a copy has updated load settings.
            if getattr(wanted, name) != getattr(engine.spec, name):
                raise ValueError(
                    f"{name}={getattr(wanted, name)!r}: this object was given an engine that holds "
                    f"{getattr(engine.spec, name)!r}; make one without engine="
                )
        return engine
