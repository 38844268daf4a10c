"""Settings of an answer and token counting, shared by the chat model and the string model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from dgemma_core import __version__
from dgemma_core.api.events import DraftEvent, Generation
from dgemma_core.api.messages import Message
from dgemma_core.api.params import SamplingParams, check_timeout
from dgemma_integrations.langchain.loading import EngineSettings
from dgemma_integrations.shared.keywords import reject_unknown
from dgemma_integrations.shared.load_settings import LOAD_FIELDS
from dgemma_integrations.shared.numbers import generation_numbers
from dgemma_integrations.shared.sampling_settings import PARAMETER_NAMES, sampling_params
from dgemma_integrations.shared.tool_use import ToolUse

if TYPE_CHECKING:
    from langchain_core.language_models import LangSmithParams

PROVIDER = "diffusiongemma"

_SAMPLING_FIELDS = tuple(sorted(set(PARAMETER_NAMES) - {"max_new_tokens", "drafts", "grammar"}))
# What one call may override. Drafts are asked for with on_draft.
_CALL_NAMES = (set(PARAMETER_NAMES) - {"drafts"}) | {"model", "timeout", "on_draft", "stream", "stop"}
_TOOL_NAMES = ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "response_format")


@dataclass(frozen=True)
class Call:
    """Settings of one call: the model object's, with the call's own keyword arguments on top."""

    model: str
    params: SamplingParams
    timeout: float | None
    on_draft: Callable[[DraftEvent], Any] | None
    tool_use: ToolUse = field(default_factory=ToolUse)
    draft_events: bool = False


class DiffusionGemmaSettings(EngineSettings):
    """Keyword arguments of both model classes. ``None`` means the checkpoint's own default."""

    max_tokens: int | None = None
    """Exact upper bound on the answer's tokens."""
    temperature: float | None = None
    """0 makes answers repeatable, up to 0.8 is the checkpoint's own schedule, above is ``t_max=t, t_min=t / 2``."""
    seed: int | None = None
    """Seed of each request's own random generator; ``None`` draws a fresh one."""
    stop: list[str] | None = None
    """Strings that end the answer and are not part of it. A call's own ``stop`` replaces them."""
    timeout: float | None = None
    """Seconds a request may take, its time in the queue included."""
    max_retries: int | None = None
    """Accepted for compatibility; without effect, as there is no network between this object and the model."""
    max_denoising_steps: int | None = None
    """Cap on denoising steps per canvas."""
    entropy_bound: float | None = None
    """Nats; how unsure positions may be that one step accepts together."""
    t_min: float | None = None
    """Temperature at the last denoising step."""
    t_max: float | None = None
    """Temperature at the first denoising step."""
    stability_threshold: int | None = None
    """Further steps the canvas must stay the same before it is done."""
    confidence_threshold: float | None = None
    """Nats; mean entropy of the canvas below which it may be done."""
    canvas_length: int | None = None
    """Positions denoised together."""
    stop_at_eos: bool = True
    """Positions after the answer's end neither delay it nor are computed again."""
    allow_image_urls: bool = False
    """Whether images that a message only names by an ``http(s)`` address are downloaded."""
    streaming: bool | None = None
    """``True`` makes ``invoke`` stream to callbacks; ``False`` makes a chat model's ``stream`` yield one chunk."""
    on_draft: Callable[[DraftEvent], Any] | None = Field(default=None, exclude=True, repr=False)
    """Called with a ``DraftEvent`` after every denoising step. Drafts are never part of text chunks."""

    if TYPE_CHECKING:
        # From LangChain's base classes.
        custom_get_token_ids: Callable[[str], list[int]] | None

        def _add_version(self, pkg: str, version: str) -> None: ...

    # --- construction ---

    @field_validator("stop", mode="before")
    @classmethod
    def _list_of_stops(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

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
        """Merges and checks a call's keyword arguments.

        Raises:
            ValueError: on a keyword this model does not know, or a bad value.
        """
        owner = type(self).__name__
        for name in _TOOL_NAMES:
            if kwargs.get(name):
                raise ValueError(f"{owner}: {name}= is not supported here: use ChatDiffusionGemma")
        given = {name: value for name, value in kwargs.items() if name not in _TOOL_NAMES}
        reject_unknown(given, _CALL_NAMES, owner=owner)
        # LangChain's own switch, already acted upon.
        given.pop("stream", None)
        model, timeout, on_draft = (given.pop(name, None) for name in ("model", "timeout", "on_draft"))
        timeout = self.timeout if timeout is None else timeout
        on_draft = self.on_draft if on_draft is None else on_draft
        check_timeout(timeout)
        params = self._sampling_params({**given, "stop": stop})
        if on_draft is not None:
            params = replace(params, drafts=True)
        return Call(self.model if model is None else str(model), params, timeout, on_draft)

    # --- what LangChain asks every model ---

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Everything that decides the output: LangChain's caches use it as the key.

        Grouped, because LangChain writes a call's ``stop`` and keyword arguments over equal names of the top level.
        """
        # Another in-memory model may go by the same name; its answers must not be taken for this one's.
        held = {"engine": id(self.engine)} if self.engine is not None and self.engine.in_memory else {}
        return {
            "model_name": self.model,
            "load": {name: getattr(self, name) for name in LOAD_FIELDS} | held,
            "sampling": {name: getattr(self, name) for name in _SAMPLING_FIELDS},
        }

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text alone, without a begin token; control tokens typed in it count as text."""
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
        """Tracing parameters as LangChain derives them, under this provider's name and with the default stops."""
        params["ls_provider"] = PROVIDER
        stop = stop if stop is not None else self.stop
        if stop:
            params["ls_stop"] = stop
        return params


def generation_info(generation: Generation, model: str) -> dict[str, Any]:
    """``response_metadata`` of a chat message, ``generation_info`` of a string generation."""
    return {"model_name": model, "model_provider": PROVIDER, **generation_numbers(generation)}
