"""A request is checked when it is made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dgemma_core import Image, Message, Request, SamplingParams, ToolCall

CHAT = [Message("user", "a")]


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("", r"prompt='': an empty prompt has nothing to answer"),
        ([], r"prompt=\[\]: an empty prompt has nothing to answer"),
        ((), r"an empty prompt has nothing to answer"),
        (None, r"prompt=None: must be a string, a list of token ids or a list of Message"),
        ({1: 2}, r"prompt=\{1: 2\}: must be a string"),
        (5, r"prompt=5: must be a string"),
        ([1, -2], r"prompt holds -2: must be a Message or a token id"),
        ([1, True], r"prompt holds True: must be a Message or a token id"),
        ([1.0], r"prompt holds 1.0: must be a Message or a token id"),
        (["a"], r"prompt holds 'a': must be a Message or a token id"),
        ([*CHAT, 1], r"prompt holds Message\(.*: must be a Message or a token id"),
        ([Message("user"), Message("system", " \n")], r"prompt: all messages are empty"),
    ],
)
def test_a_prompt_with_nothing_to_answer(prompt: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Request(prompt)


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan, True, "5", [5]])
def test_a_timeout_is_a_positive_number(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout=.*: must be a positive number of seconds, or None for no limit"):
        Request("a", timeout=timeout)


@pytest.mark.parametrize("params", [None, {"seed": 1}, SamplingParams])
def test_params_are_sampling_params(params: Any) -> None:
    with pytest.raises(ValueError, match=r"params=.*: must be a SamplingParams"):
        Request("a", params)


@pytest.mark.parametrize("prompt", ["a", [1, 2]])
def test_only_the_chat_template_declares_tools_and_asks_for_thinking(prompt: Any) -> None:
    with pytest.raises(ValueError, match="tools are declared by the chat template"):
        Request(prompt, tools=[{"type": "function"}])
    with pytest.raises(ValueError, match="thinking=True is asked for by the chat template"):
        Request(prompt, thinking=True)
    request = Request(CHAT, tools=[{"type": "function"}], thinking=True)
    assert (request.tools, request.thinking) == (({"type": "function"},), True)


@pytest.mark.parametrize(
    ("prompt", "kept"), [("a", "a"), ([1, 0], (1, 0)), ((3,), (3,)), (CHAT, tuple(CHAT)), (" ", " ")]
)
def test_a_prompt_is_kept_as_a_tuple(prompt: Any, kept: Any) -> None:
    assert Request(prompt).prompt == kept


def test_messages_are_empty_for_text_and_token_ids() -> None:
    assert Request("a").messages == ()
    assert Request([1]).messages == ()
    assert Request(CHAT).messages == tuple(CHAT)


@pytest.mark.parametrize(
    "only",
    [Message("user", [Image(1, 1, b"abc")]), Message("assistant", tool_calls=(ToolCall("f"),)), Message("user", "a")],
)
def test_one_message_with_content_is_enough(only: Message) -> None:
    assert Request([Message("system"), only]).messages == (Message("system"), only)


def test_defaults() -> None:
    request = Request("a")
    assert request.params == SamplingParams()
    assert (request.tools, request.tool_choice, request.parallel_tool_calls) == ((), None, True)
    assert (request.thinking, request.timeout) == (False, None)
    assert Request("a", tools=None).tools == ()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["parallel_tool_calls", "thinking"])
def test_a_switch_is_true_or_false(name: str) -> None:
    for value in ("no", 1, None):
        with pytest.raises(ValueError, match=f"{name}={value!r}: must be True or False"):
            Request(CHAT, **{name: value})
    assert getattr(Request(CHAT, **{name: np.bool_(True)}), name) is True  # type: ignore[arg-type]
