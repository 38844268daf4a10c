"""Settings of an answer and token counting, shared by the chat model and the string model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from dgemma_core.api.events import DraftEvent
from dgemma_core.api.messages import Message
from dgemma_core.api.request import Prompt, Request
from dgemma_core.api.sampling_params import SamplingParams, check_timeout
from dgemma_core.api.version import __version__
from dgemma_integrations.langchain.lists import CompletedLists
from dgemma_integrations.langchain.loading import EngineSettings
from dgemma_integrations.shared.adapter_settings import DRAFTS, SAMPLING_SETTINGS
from dgemma_integrations.shared.fields import SamplingFields
from dgemma_integrations.shared.keywords import own_names
from dgemma_integrations.shared.load_settings import LOAD_FIELDS
from dgemma_integrations.shared.sampling_settings import PARAMETER_NAMES, sampling_params, with_drafts
from dgemma_integrations.shared.tool_use import ToolUse
from dgemma_integrations.shared.turns import Turns

if TYPE_CHECKING:
    from langchain_core.language_models import LangSmithParams

PROVIDER = "diffusiongemma"

# Without drafts: here on_draft asks for them.
_SAMPLING_FIELDS = tuple(sorted(set(SAMPLING_SETTINGS) - {*DRAFTS, "timeout"}))
# Keyword arguments of one call.
_CALL_NAMES = (set(PARAMETER_NAMES) - {*DRAFTS}) | {"model", "timeout", "on_draft", "stream", "stop"}
_TOOL_NAMES = ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "response_format")


@dataclass(frozen=True)
class Call:
    """Settings of one call: its own keyword arguments, else the model object's settings.

    ``turns`` are those of the list to which the call belongs, if any.
    """

    model: str
    params: SamplingParams
    timeout: float | None
    on_draft: Callable[[DraftEvent], Any] | None
    tool_use: ToolUse = field(default_factory=ToolUse)
    draft_events: bool = False
    turns: Turns | None = None

    def request(self, prompt: Prompt) -> Request:
        """This call's request for a prompt."""
        return self.tool_use.request(prompt, self.params, self.timeout)


class DiffusionGemmaSettings(CompletedLists, EngineSettings, SamplingFields):
    """Keyword arguments of both model classes. ``None`` means the checkpoint's own default."""

    max_retries: int | None = None
    """Accepted for compatibility. It has no effect, because there is no network between this object and the model."""
    allow_image_urls: bool = False
    """Whether to download images that a message names by an ``http(s)`` address."""
    streaming: bool | None = None
    """``True`` makes ``invoke`` stream to callbacks; ``False`` makes a chat model's ``stream`` yield one chunk."""
    on_draft: Callable[[DraftEvent], Any] | None = Field(default=None, exclude=True, repr=False)
    """Called with a ``DraftEvent`` after every denoising step. Drafts are never part of text chunks."""

    if TYPE_CHECKING:
        # From LangChain's base classes.
        custom_get_token_ids: Callable[[str], list[int]] | None = None

        def _add_version(self, pkg: str, version: str) -> None: ...

    # --- construction ---

    @field_validator("stop", mode="before")
    @classmethod
    def _list_of_stops(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [value]
        return list(value) if isinstance(value, Iterable) else value

    @model_validator(mode="after")
    def _check_diffusiongemma_settings(self) -> Self:
        self._sampling_params({})
        check_timeout(self.timeout)
        self._add_version("dgemma", __version__)
        return self

    # --- settings of one call ---

    def _sampling_params(self, overrides: Mapping[str, Any]) -> SamplingParams:
        settings = {name: getattr(self, name) for name in _SAMPLING_FIELDS}
        return sampling_params(settings, overrides, owner=type(self).__name__)

    def _call(self, stop: list[str] | str | None, kwargs: Mapping[str, Any]) -> Call:
        """Merge and check a call's keyword arguments.

        Raises:
            ValueError: an unknown keyword argument or a bad value.
        """
        owner = type(self).__name__
        for name in _TOOL_NAMES:
            if kwargs.get(name):
                raise ValueError(f"{owner}: {name}= is not supported here: use ChatDiffusionGemma")
        given = {name: value for name, value in kwargs.items() if name not in _TOOL_NAMES}
        given = own_names(given, _CALL_NAMES, owner=owner, of_object=type(self).model_fields)
        if stop is None:
            stop = given.get("stop")
        elif given.get("stop") is not None:
            raise ValueError(f"{owner}: stop={stop!r} was given twice, once under another name; give one of them")
        # LangChain's own switch, which has had its effect already.
        given.pop("stream", None)
        model, timeout, on_draft = (given.pop(name, None) for name in ("model", "timeout", "on_draft"))
        timeout = check_timeout(self.timeout if timeout is None else timeout)
        on_draft = self.on_draft if on_draft is None else on_draft
        if on_draft is not None and not callable(on_draft):
            raise ValueError(f"on_draft={on_draft!r}: must be a function that takes a DraftEvent")
        params = self._sampling_params({**given, "stop": stop})
        if on_draft is not None:
            params = with_drafts(params, "on_draft")
        return Call(self.model if model is None else str(model), params, timeout, on_draft, turns=self._turns)

    # --- what LangChain asks every model ---

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Everything that decides the output. LangChain's caches use it as the key.

        It is grouped, because LangChain overwrites top-level names with a call's ``stop`` and keyword arguments.
        """
        # Another in-memory model may have the same name, and its answers must not be taken for this model's.
        held = {"engine": id(self.engine)} if self.engine is not None and self.engine.in_memory else {}
        return {
            "model_name": self.model,
            "load": {name: getattr(self, name) for name in LOAD_FIELDS} | held,
            "sampling": {name: getattr(self, name) for name in _SAMPLING_FIELDS},
        }

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text alone, without a begin token. A control token typed in it stays text."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self._engine().encode_text(text)

    def get_num_tokens(self, text: str) -> int:
        """Tokens of a text alone."""
        return len(self.get_token_ids(text))

    def _count_messages(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, thinking: bool = False
    ) -> int:
        return self._engine().count_tokens(list(messages), tools, thinking=thinking) if messages else 0

    def _ls_settings(self, stop: list[str] | None, params: LangSmithParams) -> LangSmithParams:
        """LangChain's tracing parameters, with this provider's name and the default stops."""
        params["ls_provider"] = PROVIDER
        if stops := self.stop if stop is None else stop:
            params["ls_stop"] = list(stops)
        return params
