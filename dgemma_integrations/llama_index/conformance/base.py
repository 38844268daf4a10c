"""The settings by which a subclass describes its LLM, and helpers of all tests."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM

from .calls import ASYNC, STREAMS, chat, run, text_of


class ConformanceBase:
    """Settings of the suite. A subclass overrides what differs, as a property or as a plain class attribute.

    ``known_failures`` names the tests that are known to fail, with the reasons. They become strict expected failures.
    So a subclass stays green while a defect is open, and turns red when it is fixed and the entry is out of date.
    """

    # --- what is tested ---

    @property
    def llm_class(self) -> type[LLM]:
        """The class under test."""
        raise NotImplementedError

    @property
    def llm_params(self) -> dict[str, Any]:
        """Keyword arguments of its constructor; best with a seed, a low temperature and a short answer."""
        return {}

    @property
    def slow_params(self) -> dict[str, Any]:
        """Arguments besides ``llm_params`` for an answer that takes a while: several chunks, half a second or more.

        Tests of cancelling and of the event loop use them.
        """
        return {}

    @property
    def other_params(self) -> dict[str, Any]:
        """A setting that changes answers, with another value than in ``llm_params``; empty if there is none."""
        return {}

    @property
    def known_failures(self) -> Mapping[str, str]:
        """Test name, with or without its ``[parameters]`` -> reason of its failure."""
        return {}

    # --- what the LLM can do ---

    @property
    def has_tools(self) -> bool:
        """Whether the LLM itself calls tools (``metadata.is_function_calling_model``)."""
        return issubclass(self.llm_class, FunctionCallingLLM)

    @property
    def can_force_tools(self) -> bool:
        """Whether ``tool_required=True`` and ``tool_choice="name"`` make it call a tool for every prompt."""
        return self.has_tools

    @property
    def has_structured_output(self) -> bool:
        """Whether ``structured_predict`` always gives a valid object."""
        return self.can_force_tools

    streams_structured_output: bool = True
    """Whether the last object of ``stream_structured_predict`` is as valid as the object of ``structured_predict``."""
    supports_images: bool = False
    """Whether it takes ``ImageBlock``. If not, it must refuse the block by name."""
    reports_usage: bool = True
    """Whether responses carry token counts."""
    streams_tokens: bool = True
    """Whether a stream has more than one chunk."""
    is_deterministic: bool = True
    """Whether equal calls give equal answers."""
    has_native_async: bool = True
    """Whether async methods leave the event loop free."""
    checks_context: bool = True
    """Whether it refuses prompts that do not fit its context window."""
    supports_stop: bool = True
    """Whether it takes stop strings per call."""
    supports_max_tokens: bool = True
    """Whether it takes a limit of the answer's length per call."""
    refuses_unknown_kwargs: bool = False
    """Whether it refuses unknown keyword arguments (instead of sending them to a server)."""
    pickles: bool = True
    """Whether it can be pickled, which ``IngestionPipeline(num_workers=...)`` needs."""
    dumps: bool = True
    """Whether ``from_dict(to_dict())`` returns the same LLM."""

    max_tokens_kwarg: str = "max_tokens"
    stop_kwarg: str = "stop"
    structured_max_tokens: int = 256
    """Tokens that are enough for the objects of the structured tests: three levels, short strings, lists of two."""
    prompt: str = "Say hello to Anna in one short sentence."
    other_prompts: tuple[str, ...] = ("Name a river.", "Name a colour.", "Name a city.")
    formatted_prompt: str | None = None
    """``prompt`` as the chat template writes it; None if there is no template, or it is not known."""
    thinking_params: Mapping[str, Any] | None = None
    """Arguments besides ``llm_params`` that make it show its thoughts before the answer; None if it cannot."""
    thinking_marks: tuple[str, ...] = ("<think>", "</think>", "<|channel>", "<channel|>")
    """Markup of thoughts, which must not be in answers."""
    call_limit: float = 60.0
    """Seconds after which a call counts as hanging."""

    def busy(self, llm: LLM) -> bool | None:
        """Whether the model works right now; None if this cannot be known."""
        return None

    # --- fixtures ---

    @pytest.fixture(autouse=True)
    def _mark_known_failures(self, request: pytest.FixtureRequest) -> None:
        name = request.node.name
        reason = self.known_failures.get(name) or self.known_failures.get(name.split("[")[0])
        if reason:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    def llm(self, _mark_known_failures: None) -> LLM:
        """A new LLM for each test."""
        return self.make()

    # --- helpers ---

    def make(self, **overrides: Any) -> LLM:
        """An LLM with some settings changed."""
        return self.llm_class(**{**self.llm_params, **overrides})

    def make_slow(self) -> LLM:
        """An LLM whose answers take a while."""
        return self.make(**self.slow_params)

    def limit(self, tokens: int) -> dict[str, Any]:
        """The keyword argument that limits one answer; empty if the LLM has none."""
        return {self.max_tokens_kwarg: tokens} if self.supports_max_tokens else {}

    def call(self, llm: LLM, endpoint: str, prompt: Any = None, **kwargs: Any) -> list[Any]:
        """All responses of one call: one, or a stream's chunks. Async endpoints get a new event loop."""
        argument = self.argument(endpoint, prompt)
        if endpoint in ASYNC:
            return run(self.acall(llm, endpoint, prompt, **kwargs))
        result = getattr(llm, endpoint)(argument, **kwargs)
        return list(result) if endpoint in STREAMS else [result]

    async def acall(self, llm: LLM, endpoint: str, prompt: Any = None, **kwargs: Any) -> list[Any]:
        """As :meth:`call`, for async endpoints on the running loop."""
        result = await getattr(llm, endpoint)(self.argument(endpoint, prompt), **kwargs)
        return [chunk async for chunk in result] if endpoint in STREAMS else [result]

    def argument(self, endpoint: str, prompt: Any = None) -> Any:
        """A prompt in the form that an endpoint takes."""
        prompt = self.prompt if prompt is None else prompt
        return chat(prompt) if isinstance(prompt, str) and "chat" in endpoint else prompt

    def answer(self, llm: LLM, endpoint: str, prompt: Any = None, **kwargs: Any) -> str:
        """The text of one call."""
        return text_of(self.call(llm, endpoint, prompt, **kwargs)[-1])

    def wait_until_idle(self, llm: LLM, seconds: float = 10.0) -> None:
        """Fail if the model still works after some seconds. Returns at once if :meth:`busy` does not know."""
        deadline = time.monotonic() + seconds
        while self.busy(llm):
            assert time.monotonic() < deadline, f"still generating {seconds:g} s after nobody wants the answer"
            time.sleep(0.01)


def needs(*flags: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Skip a test, with the reason, if a flag of the subclass is off."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def wrapper(self: ConformanceBase, *args: Any, **kwargs: Any) -> None:
            for flag in flags:
                value = getattr(self, flag)
                if value is None or value is False:
                    pytest.skip(f"{type(self).__name__}.{flag} is {value}")
            test(self, *args, **kwargs)

        return wrapper

    return decorate
