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
class TokenLogprob(JsonForm):
    """The log-probability of one token of an answer, by the causal mode, at temperature 1 and without filters.

    Attributes:
        token_id: the token.
        text: its own text.
        logprob: nats. 0 for a token that a grammar has put there by itself.
        top: the likeliest tokens at its place, the likeliest first: id, text and nats of each.
        in_text: whether the token belongs to the answer's text, not to reasoning or a call, and is no control token.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()
    in_text: bool = True


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
        logprobs: one entry per token of ``token_ids``; None unless they were asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class DraftEvent(JsonForm):
    """What the canvas reads after a denoising step; it may still change. Only with ``SamplingParams.drafts``.

    It stands after the text of all blocks so far. With ``decoding="verified"`` it is what will be verified next.

    Attributes:
        text: the likeliest tokens up to the end token, as text.
        step: denoising steps this canvas has had, from 1. With ``decoding="verified"`` there is one canvas.
        entropy: nats, one per position of the draft. A position that is no longer computed keeps its last value.
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
        logprobs: one entry per token of ``token_ids``; None unless they were asked for.
    """

    json_type: ClassVar[str] = "block"

    text: str
    token_ids: tuple[int, ...]
    index: int
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None


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
