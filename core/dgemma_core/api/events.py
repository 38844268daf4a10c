"""Events of a running request: drafts and blocks, and a ``FinishedEvent`` at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.messages import ToolCall
from dgemma_core.api.usage import Usage

FinishReason = Literal["stop", "length", "cancelled", "tool_calls"]


@dataclass(frozen=True)
class Generation(JsonForm):
    """A finished answer.

    Attributes:
        text: the answer without control tokens, reasoning, tool calls and the stop string. A malformed call stays text.
        token_ids: the answer's tokens, with those of reasoning and tool calls. The end token is left out, and
            everything from the stop string on.
        finish_reason: ``stop`` (end token or stop string), ``length`` (the answer lacks something for want of room),
            ``cancelled`` (text so far) or ``tool_calls`` (there are calls, and nothing is missing). With a grammar or
            tools, an answer or a call that was cut short is whole in form and valid, and the reason is ``length``.
        usage: what the request cost.
        tool_calls: the well-formed calls, in order, each with its own id.
        reasoning: the model's thoughts before the answer; empty if there are none.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True)
class DraftEvent(JsonForm):
    """The canvas as text after a denoising step; it may still change. Only with ``SamplingParams.drafts``.

    Attributes:
        text: the likeliest tokens up to the end token, as text.
        step: denoising steps this canvas has had, from 1.
        entropy: nats, one per canvas position. A position that is no longer computed keeps its last value.
    """

    json_type: ClassVar[str] = "draft"

    text: str
    step: int
    entropy: tuple[float, ...]


@dataclass(frozen=True)
class BlockEvent(JsonForm):
    """Confirmed new text, usually one canvas. The texts of all blocks joined are the generation's text.

    Attributes:
        text: new text since the last block. Text that may turn out to begin a stop string is held back.
        token_ids: new tokens since the last block, with those of reasoning and calls.
        index: 0 for the first block.
        reasoning: new reasoning since the last block. Joined over all blocks it is the generation's reasoning.
        tool_calls: calls that have closed since the last block.
    """

    json_type: ClassVar[str] = "block"

    text: str
    token_ids: tuple[int, ...]
    index: int
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class FinishedEvent(JsonForm):
    """The last event of a request that did not fail."""

    json_type: ClassVar[str] = "finished"

    generation: Generation


Event = DraftEvent | BlockEvent | FinishedEvent
_KINDS: dict[str, type[Event]] = {kind.json_type: kind for kind in (DraftEvent, BlockEvent, FinishedEvent)}


def event_from_dict(data: Mapping[str, Any]) -> Event:
    """The event that ``to_dict`` wrote. The key ``type`` tells which kind it is.

    Raises:
        ValueError: an unknown event, an unknown or missing key, or a wrong type. The message names it.
    """
    name = data.get("type") if isinstance(data, Mapping) else data
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"type={name!r}: an event is one of {', '.join(_KINDS)}")
    return _KINDS[name].from_dict(data)
