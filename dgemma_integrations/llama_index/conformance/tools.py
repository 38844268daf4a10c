"""Tool calling: ``FunctionCallingLLM`` as agents and programs use it."""

from __future__ import annotations

import inspect
from typing import Any, cast

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM

from .base import needs
from .calls import chat, run, usage_or_skip, within
from .forced_calls import ForcedCallTests
from .tool_bench import ASK, Bench, each_method


class ToolTests(ForcedCallTests):
    """Tools."""

    # --- is it one? ---

    def test_metadata_says_whether_it_calls_tools(self, llm: LLM) -> None:
        """Fails: core chooses the wrong agent, selector and program by ``metadata.is_function_calling_model``.
        ``FunctionAgent`` refuses the LLM, and ``get_program_for_llm`` falls back to JSON by prompt.
        """
        assert llm.metadata.is_function_calling_model == self.has_tools
        if self.has_tools:
            assert isinstance(llm, FunctionCallingLLM)

    @needs("has_tools")
    def test_tool_required_is_in_the_signature(self, llm: LLM) -> None:
        """Fails: ``tool_required`` never arrives. Core looks for it in the signature of ``_prepare_chat_with_tools``
        (``llms/function_calling.py``, ``_supports_tool_required``), and else drops it with a warning.
        """
        method = cast(FunctionCallingLLM, llm)._prepare_chat_with_tools
        assert "tool_required" in inspect.signature(method).parameters

    @needs("has_tools")
    def test_prepared_arguments_fit_chat(self, llm: LLM) -> None:
        """Fails: ``chat_with_tools`` raises a TypeError, because it calls ``chat(**_prepare_chat_with_tools(...))``."""
        history = chat("Hello.")
        prepared = cast(FunctionCallingLLM, llm)._prepare_chat_with_tools(
            Bench().tools, user_msg=ChatMessage(role="user", content=ASK), chat_history=history
        )
        assert [message.content for message in prepared["messages"]] == ["Hello.", ASK]
        inspect.signature(llm.chat).bind(**prepared)

    @needs("has_tools")
    @each_method
    def test_history_list_is_not_changed(self, llm: LLM, method: str) -> None:
        """Fails: the user's message is appended to the caller's own list, and sent twice on the next turn."""
        history = chat("Hello.")
        self.with_tools(llm, method, Bench().tools, chat_history=history, **self.limit(8))
        assert [message.content for message in history] == ["Hello."]

    @needs("has_tools")
    @each_method
    def test_no_tools_is_a_plain_chat(self, llm: LLM, method: str) -> None:
        """Fails: a ``FunctionAgent`` without tools (a writer in a team of agents) cannot speak."""
        last = self.with_tools(llm, method, [], user_msg=self.prompt)[-1]
        assert (last.message.content or "").strip()
        assert self.selections(llm, last) == []

    @needs("has_tools", "reports_usage")
    def test_tools_are_in_the_prompt(self, llm: LLM) -> None:
        """Fails: the model does not know its tools, because their names and descriptions are not in the prompt."""
        bench = Bench()
        tokens = [
            usage_or_skip(cast(FunctionCallingLLM, llm).chat_with_tools(tools, user_msg=ASK, **self.limit(4)))[0]
            for tools in ([], bench.tools[:1], bench.tools)
        ]
        assert tokens[0] < tokens[1] < tokens[2]

    # --- no call ---

    @needs("has_tools")
    def test_no_call_is_an_error_by_default(self, llm: LLM) -> None:
        """Fails: callers take an empty list for a call. By default ``error_on_no_tool_call`` is True."""
        answer = ChatResponse(message=ChatMessage(role="assistant", content="Just text."))
        assert self.selections(llm, answer) == []
        with pytest.raises(ValueError):  # noqa: PT011
            cast(FunctionCallingLLM, llm).get_tool_calls_from_response(answer)

    # --- predict_and_call ---

    @needs("can_force_tools")
    @pytest.mark.parametrize("method", ["predict_and_call", "apredict_and_call"])
    @pytest.mark.parametrize("parallel", [False, True])
    def test_predict_and_call(self, llm: LLM, method: str, parallel: bool) -> None:
        """Fails: a tool is not run, or run twice, by the one method that asks and runs the tool."""
        bench = Bench()
        kwargs: dict[str, Any] = {"user_msg": ASK, "tool_required": True, "allow_parallel_tool_calls": parallel}
        result = getattr(llm, method)(bench.tools, **kwargs)
        response = run(result) if method.startswith("a") else result
        assert bench.calls == len(response.sources) >= 1
        assert not any(source.is_error for source in response.sources)
        assert str(response) == "\n\n".join(source.content for source in response.sources)

    @needs("has_tools")
    @pytest.mark.parametrize("method", ["predict_and_call", "apredict_and_call"])
    def test_predict_and_call_without_a_call(self, llm: LLM, method: str) -> None:
        """Fails: an answer in words raises an error, although the caller has switched ``error_on_no_tool_call`` off."""
        kwargs: dict[str, Any] = {"user_msg": self.prompt, "error_on_no_tool_call": False}
        result = getattr(llm, method)([], **kwargs)
        response = run(result) if method.startswith("a") else result
        assert response.sources == []
        assert str(response).strip()

    # --- agents ---

    @needs("can_force_tools")
    @pytest.mark.parametrize("streaming", [False, True])
    def test_function_agent(self, llm: LLM, streaming: bool) -> None:
        """Fails: ``FunctionAgent`` and ``AgentWorkflow`` cannot be used with the LLM."""
        from llama_index.core.agent.workflow import FunctionAgent

        bench = Bench(return_direct=True)

        async def work() -> Any:
            agent = FunctionAgent(
                tools=list(bench.tools), llm=llm, initial_tool_choice="set_lamp", streaming=streaming, timeout=60
            )
            return await agent.run(user_msg=ASK)

        output = within(self.call_limit, lambda: run(work()))
        assert bench.switched
        assert not bench.added
        room, on = bench.switched[0]
        assert str(output) == f"The lamp in the {room} is {'on' if on else 'off'}."
