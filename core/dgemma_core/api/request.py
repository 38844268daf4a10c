"""A request as a value. Adapters, servers and remote clients give it to an engine."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, cast

from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.messages import Message
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.sampling_params import SamplingParams, check_timeout
from dgemma_core.api.setting_table import is_integer
from dgemma_core.api.surrogates import without_surrogates

Prompt = str | Seq[int] | Seq[Message]
Tools = Seq[Mapping[str, Any]]


@dataclass(frozen=True)
class Request(JsonForm):
    """A prompt and everything an engine needs to answer it.

    Args:
        prompt: raw text, token ids, or chat messages, which may hold images. The checkpoint's chat template renders
            messages. A list is kept as a tuple. Control tokens typed in text stay text, and halves of surrogate pairs
            become U+FFFD.
        params: sampling parameters; the checkpoint's defaults if not given.
        tools: OpenAI function dicts that the chat template declares to the model; only with messages. An answer to
            messages without tools holds no calls.
        tool_choice: ``"auto"`` (the default with tools: the model may call some), ``"none"``, ``"any"`` or
            ``"required"`` (it must call one), or the name of the tool it must call.
        parallel_tool_calls: whether one answer may hold several calls.
        thinking: ask the model to think before it answers; only with messages.
        timeout: seconds after which the request is dropped; loading the weights does not count.

    Raises:
        ValueError: naming the field, its value and what is accepted.
    """

    prompt: Prompt
    params: SamplingParams = field(default_factory=SamplingParams)
    tools: Tools = ()
    tool_choice: str | None = None
    parallel_tool_calls: bool = True
    thinking: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.params, SamplingParams):
            raise ValueError(f"params={self.params!r}: must be a SamplingParams")
        object.__setattr__(self, "timeout", check_timeout(self.timeout))
        for name in ("parallel_tool_calls", "thinking"):
            object.__setattr__(self, name, _switch(name, getattr(self, name)))
        object.__setattr__(self, "tools", without_surrogates(_tools(self.tools or ())))
        object.__setattr__(self, "tool_choice", without_surrogates(self.tool_choice))
        object.__setattr__(self, "prompt", without_surrogates(check_prompt(self.prompt)))
        if self.messages:
            return
        if self.tools:
            raise ValueError("tools are declared by the chat template: give the prompt as a list of Message")
        if self.thinking:
            raise ValueError("thinking=True is asked for by the chat template: give the prompt as a list of Message")

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt's messages; empty for raw text and token ids."""
        return tuple(item for item in self.prompt if isinstance(item, Message))


def _switch(name: str, value: object) -> bool:
    switch = plain(value)
    if not isinstance(switch, bool):
        raise ValueError(f"{name}={value!r}: must be True or False")
    return switch


def _tools(tools: Any) -> tuple[Mapping[str, Any], ...]:
    """The tools as a tuple.

    Raises:
        ValueError: no list of dicts.
    """
    if not isinstance(tools, list | tuple):
        raise ValueError(f"tools={tools!r}: must be a list of OpenAI function dicts")
    for tool in tools:
        if not isinstance(tool, Mapping):
            raise ValueError(
                f"tools hold {tool!r}: each must be an OpenAI function dict, such as "
                "{'type': 'function', 'function': {'name': ..., 'parameters': {...}}}"
            )
    return tuple(tools)


def check_prompt(prompt: Prompt) -> str | tuple[int, ...] | tuple[Message, ...]:
    """The prompt, with a list as a tuple.

    Raises:
        ValueError: it is empty, or neither text nor token ids nor messages.
    """
    if isinstance(prompt, str):
        if not prompt:
            raise ValueError("prompt='': an empty prompt has nothing to answer")
        return prompt
    if not isinstance(prompt, list | tuple):
        raise ValueError(f"prompt={prompt!r}: must be a string, a list of token ids or a list of Message")
    if not prompt:
        raise ValueError("prompt=[]: an empty prompt has nothing to answer")
    if all(isinstance(item, Message) for item in prompt):
        if not any(m.text.strip() or m.images or m.tool_calls for m in prompt):
            raise ValueError("prompt: all messages are empty, there is nothing to answer")
        return tuple(prompt)
    ids = tuple(plain(item) for item in prompt)
    for token in ids:
        if not is_integer(token) or token < 0:
            raise ValueError(f"prompt holds {token!r}: must be a Message or a token id")
    return cast(tuple[int, ...], ids)
