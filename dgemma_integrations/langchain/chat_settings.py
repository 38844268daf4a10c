"""Settings that only the chat model has: tools, thinking, drafts as events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dgemma_integrations.langchain.settings import Call, DiffusionGemmaSettings
from dgemma_integrations.langchain.tools import NAMES as TOOL_NAMES
from dgemma_integrations.langchain.tools import tool_use
from dgemma_integrations.shared.on_length import OnLength
from dgemma_integrations.shared.tool_use import switched


class ChatSettings(DiffusionGemmaSettings):
    """Keyword arguments of the chat model."""

    parallel_tool_calls: bool | None = None
    """Whether one answer may hold several tool calls; `None` means yes. A call's own setting replaces it."""
    thinking: bool = False
    """Whether to ask the model to think before it answers. A call's own setting replaces it."""
    show_schema: bool = True
    """Whether the model sees the JSON schema that its answer must fit. A call's own setting replaces it."""
    draft_events: bool = False
    """Whether `stream_events(version="v3")` also sends the canvas after every denoising step."""
    on_length: OnLength = "warn"
    """What `with_structured_output` does if an answer was cut for want of room and only its object is seen: `"warn"`
    writes to the log, `"raise"` raises `AnswerCutError`."""

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {
            **super()._identifying_params,
            "tool_use": {
                "parallel_tool_calls": self.parallel_tool_calls,
                "thinking": self.thinking,
                "show_schema": self.show_schema,
            },
        }

    def _call(self, stop: list[str] | str | None, kwargs: Mapping[str, Any]) -> Call:
        use = tool_use(kwargs, self.parallel_tool_calls, self.thinking, self.show_schema)
        others = {name: value for name, value in kwargs.items() if name not in TOOL_NAMES}
        draft_events = switched("draft_events", others.pop("draft_events", None), self.draft_events)
        if use.grammar is not None:
            if others.get("grammar") is not None:
                raise ValueError("response_format and grammar both say what the answer must fit; give one of them")
            others["grammar"] = use.grammar
        return replace(super()._call(stop, others), tool_use=use, draft_events=draft_events)
