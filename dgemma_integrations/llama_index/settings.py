"""Settings of an answer: those of the LLM, and those of one call, which replace them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from dgemma_core.api.request import Prompt, Request
from dgemma_core.api.sampling_params import SamplingParams, check_timeout
from dgemma_integrations.llama_index.loading import EngineSettings
from dgemma_integrations.llama_index.tools import NAMES as TOOL_NAMES
from dgemma_integrations.llama_index.tools import tool_use
from dgemma_integrations.shared.adapter_settings import SAMPLING_SETTINGS
from dgemma_integrations.shared.fields import DraftFields, SamplingFields
from dgemma_integrations.shared.keywords import own_names
from dgemma_integrations.shared.load_settings import LOAD_FIELDS
from dgemma_integrations.shared.on_length import DESCRIPTION, OnLength
from dgemma_integrations.shared.sampling_settings import PARAMETER_NAMES, sampling_params
from dgemma_integrations.shared.tool_use import ToolUse

_SAMPLING_FIELDS = tuple(sorted(set(SAMPLING_SETTINGS) - {"timeout"}))
_SHOWN_FIELDS = (*LOAD_FIELDS, *_SAMPLING_FIELDS, "timeout", "thinking", "show_schema", "on_length")

# LlamaIndex itself adds these to calls: DocumentContextExtractor sends extra_headers, programs pass verbose on. Any
# other unknown name is an error.
_SENT_BY_LLAMA_INDEX = frozenset(("extra_headers", "verbose"))


@dataclass(frozen=True)
class Call:
    """Settings of one call: its own keyword arguments, else the LLM's settings.

    Attributes:
        owner: class name of the LLM, for error messages.
        params: sampling settings.
        own: whether all sampling settings are the LLM's own.
        timeout: seconds.
        tool_use: tools, thinking and the form of the answer.
    """

    owner: str
    params: SamplingParams
    own: bool
    timeout: float | None
    tool_use: ToolUse

    def request(self, prompt: Prompt) -> Request:
        """This call's request for a prompt."""
        return self.tool_use.request(prompt, self.params, self.timeout)


class DiffusionGemmaSettings(EngineSettings, SamplingFields, DraftFields):
    """Keyword arguments of the LLM. ``None`` means the checkpoint's own default."""

    stop: Sequence[str] | None = Field(default=(), description=SAMPLING_SETTINGS["stop"].sentence)
    thinking: bool = Field(default=False, description="Ask the model to think before it answers.")
    show_schema: bool = Field(default=True, description="Show the model the JSON schema that its answer must fit.")
    on_length: OnLength = Field(default="warn", description=DESCRIPTION)
    allow_image_urls: bool = Field(default=False, description="Download images that are named by their address.")

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, Iterable) else () if value is None else value

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        self._call({})
        return self

    def _call(self, overrides: Mapping[str, Any]) -> Call:
        """Merge and check a call's keyword arguments.

        Raises:
            ValueError: an unknown keyword argument or a bad value.
        """
        owner = type(self).__name__
        use = tool_use(overrides, self.thinking, self.show_schema)
        given = {name: value for name, value in overrides.items() if name not in _SENT_BY_LLAMA_INDEX | TOOL_NAMES}
        accepted = {*PARAMETER_NAMES, "timeout", *TOOL_NAMES}
        given = own_names(given, accepted, owner=owner, of_object=type(self).model_fields)
        timeout = given.pop("timeout", None)
        timeout = check_timeout(self.timeout if timeout is None else timeout)
        defaults = {name: getattr(self, name) for name in _SAMPLING_FIELDS}
        own = all(value is None for value in given.values())
        if use.grammar is not None:
            if given.get("grammar") is not None:
                raise ValueError(
                    f"{owner}: response_format and grammar both say what the answer must fit; give one of them"
                )
            given["grammar"] = use.grammar
        return Call(owner, sampling_params(defaults, given, owner=owner), own, timeout, use)

    def _shown_settings(self) -> dict[str, Any]:
        """The settings by name, for events."""
        return {name: getattr(self, name) for name in _SHOWN_FIELDS}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "model", self.model
        for name, value in self._shown_settings().items():
            if name != "model" and value != type(self).model_fields[name].default:
                yield name, value
