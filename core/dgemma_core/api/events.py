"""What a request handle yields while its request runs: DraftEvent*, BlockEvent+, FinishedEvent."""

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
        text: the answer without control tokens, reasoning, tool calls and the stop string. A malformed call is text.
        token_ids: its tokens, those of reasoning and tool calls included; the end token and everything from the stop
            string on are not in it.
        finish_reason: ``stop`` (end token or stop string), ``length`` (max_new_tokens), ``cancelled`` (text so far)
            or ``tool_calls`` (there are calls, and all of them are whole).
        usage: what it cost.
        tool_calls: the well-formed calls it made, in order, each with an id of its own.
        reasoning: what it thought before it answered; empty if it did not.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True)
class DraftEvent(JsonForm):
    """The canvas as it reads after one denoising step; it may still change. Only with ``SamplingParams.drafts``.

    Attributes:
        text: the argmax canvas up to its end token.
        step: denoising steps this canvas has had, from 1.
        entropy: nats, one per canvas position (positions no longer computed keep their last value).
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
        token_ids: the tokens of it, those of the reasoning and the calls included.
        index: 0 for the first block.
        reasoning: new reasoning since the last block; all of them joined are the generation's.
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
    """The event that ``to_dict`` wrote; its key ``type`` says which.

    Raises:
        ValueError: no such event, an unknown or missing key, or a wrong type; it is named.
    """
    name = data.get("type") if isinstance(data, Mapping) else data
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"type={name!r}: an event is one of {', '.join(_KINDS)}")
    return _KINDS[name].from_dict(data)
