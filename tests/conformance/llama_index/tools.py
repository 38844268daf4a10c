"""Tool calling: ``FunctionCallingLLM`` as agents and programs use it."""

import inspect
from typing import Any, Literal, cast

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools import FunctionTool

from .base import ConformanceBase, chat, needs, recorded, run, usage_of, usage_or_skip, within

ASK = "Please switch on the lamp in the hall."


class Bench:
    """Two tools that note how they were called."""

    def __init__(self, **options: Any) -> None:
        self.added: list[tuple[Any, Any]] = []
        self.switched: list[tuple[Any, Any]] = []
        self.tools = [
            FunctionTool.from_defaults(fn=self.add, **options),
            FunctionTool.from_defaults(fn=self.set_lamp, **options),
        ]

    def add(self, a: int, b: int) -> int:
        """Adds two whole numbers."""
        self.added.append((a, b))
        return a + b

    def set_lamp(self, room: Literal["hall", "kitchen"], on: bool) -> str:
        """Switches the lamp of a room on or off."""
        self.switched.append((room, on))
        return f"The lamp in the {room} is {'on' if on else 'off'}."

    @property
    def names(self) -> set[str]:
        return {str(tool.metadata.name) for tool in self.tools}

    @property
    def calls(self) -> int:
        return len(self.added) + len(self.switched)

    def check(self, selection: ToolSelection) -> None:
        """Whether the call fits the tool it names."""
        (tool,) = (tool for tool in self.tools if tool.metadata.name == selection.tool_name)
        schema = tool.metadata.fn_schema
        assert schema is not None
        schema.model_validate(selection.tool_kwargs)


METHODS = ("chat_with_tools", "achat_with_tools", "stream_chat_with_tools", "astream_chat_with_tools")
each_method = pytest.mark.parametrize("method", METHODS)


class ToolTests(ConformanceBase):
    """Tools. What needs a call to be made forces it, so that any weights will do."""

    def with_tools(self, llm: LLM, method: str, tools: list[FunctionTool], **kwargs: Any) -> list[ChatResponse]:
        """All responses of one of the four methods."""
        kwargs = {"user_msg": ASK, **kwargs}

        async def work() -> list[ChatResponse]:
            result = getattr(llm, method)(tools, **kwargs)
            if method.startswith("a"):
                result = await result
            if method.startswith("astream"):
                return [chunk async for chunk in result]
            return list(result) if method.startswith("stream") else [result]

        if method.startswith("a"):
            return run(work())
        result = getattr(llm, method)(tools, **kwargs)
        return list(result) if "stream" in method else [result]

    def selections(self, llm: LLM, response: ChatResponse) -> list[ToolSelection]:
        """The calls in a response."""
        return cast(FunctionCallingLLM, llm).get_tool_calls_from_response(response, error_on_no_tool_call=False)

    # --- is it one? ---

    def test_metadata_says_whether_it_calls_tools(self, llm: LLM) -> None:
        """Fails: core chooses the wrong agent, selector and program: all go by ``metadata.is_function_calling_model``;
        ``FunctionAgent`` refuses the LLM, and ``get_program_for_llm`` falls back to JSON by prompt.
        """
        assert llm.metadata.is_function_calling_model == self.has_tools
        if self.has_tools:
            assert isinstance(llm, FunctionCallingLLM)

    @needs("has_tools")
    def test_tool_required_is_in_the_signature(self, llm: LLM) -> None:
        """Fails: ``tool_required`` never arrives: core looks for it in the signature of ``_prepare_chat_with_tools``
        (``llms/function_calling.py``, ``_supports_tool_required``), and leaves it out with a warning.
        """
        method = cast(FunctionCallingLLM, llm)._prepare_chat_with_tools
        assert "tool_required" in inspect.signature(method).parameters

    @needs("has_tools")
    def test_prepared_arguments_fit_chat(self, llm: LLM) -> None:
        """Fails: ``chat_with_tools`` is a TypeError: it calls ``chat(**_prepare_chat_with_tools(...))``."""
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
        """Fails: the model does not know its tools: their names and descriptions are no part of what it reads."""
        bench = Bench()
        tokens = [
            usage_or_skip(cast(FunctionCallingLLM, llm).chat_with_tools(tools, user_msg=ASK, **self.limit(4)))[0]
            for tools in ([], bench.tools[:1], bench.tools)
        ]
        assert tokens[0] < tokens[1] < tokens[2]

    # --- forced calls ---

    @needs("can_force_tools")
    @each_method
    def test_required_tool_is_called(self, llm: LLM, method: str) -> None:
        """Fails: ``structured_predict``, selectors and extractors get prose in place of a call: they all force one with
        ``tool_required=True``.
        """
        bench = Bench()
        last = self.with_tools(llm, method, bench.tools, tool_required=True)[-1]
        selections = self.selections(llm, last)
        assert selections
        assert last.message.role == MessageRole.ASSISTANT
        for selection in selections:
            assert isinstance(selection, ToolSelection)
            assert selection.tool_name in bench.names
            bench.check(selection)

    @needs("can_force_tools")
    @each_method
    @pytest.mark.parametrize("name", ["add", "set_lamp"])
    def test_tool_chosen_by_name(self, llm: LLM, method: str, name: str) -> None:
        """Fails: ``FunctionAgent(initial_tool_choice="search")`` starts with another tool, or with none."""
        bench = Bench()
        last = self.with_tools(llm, method, bench.tools, tool_choice=name)[-1]
        selections = self.selections(llm, last)
        assert {selection.tool_name for selection in selections} == {name}
        for selection in selections:
            bench.check(selection)

    @needs("can_force_tools")
    @each_method
    def test_one_call_unless_parallel(self, llm: LLM, method: str) -> None:
        """Fails: ``predict_and_call`` raises ``ValueError("Invalid")``, and a program returns one object of several.
        Streams have no validation in core, so the LLM must see to it itself.
        """
        ask = "Add 1 and 2. Add 3 and 4. Switch on every lamp."
        last = self.with_tools(
            llm, method, Bench().tools, user_msg=ask, tool_required=True, allow_parallel_tool_calls=False
        )[-1]
        assert len(self.selections(llm, last)) == 1

    @needs("can_force_tools")
    @each_method
    def test_parallel_calls_are_allowed(self, llm: LLM, method: str) -> None:
        """Fails: agents break: ``FunctionAgent`` asks with ``allow_parallel_tool_calls=True`` at each turn."""
        bench = Bench()
        last = self.with_tools(llm, method, bench.tools, tool_required=True, allow_parallel_tool_calls=True)[-1]
        selections = self.selections(llm, last)
        assert selections
        assert len({selection.tool_id for selection in selections}) == len(selections)
        for selection in selections:
            bench.check(selection)

    @needs("can_force_tools")
    def test_tool_ids_are_unique(self, llm: LLM) -> None:
        """Fails: results are matched with the wrong call: agents pair them by ``tool_call_id`` alone."""
        responses = [self.with_tools(llm, METHODS[0], Bench().tools, tool_required=True)[-1] for _ in range(2)]
        ids = [selection.tool_id for response in responses for selection in self.selections(llm, response)]
        assert all(ids)
        assert len(set(ids)) == len(ids)

    @needs("can_force_tools")
    @each_method
    def test_calls_are_where_core_looks(self, llm: LLM, method: str) -> None:
        """Fails: agents lose the call in memory (they keep ``message.blocks``), or streamed objects have every field
        None (``program/utils.py``, ``process_streaming_objects`` reads ``additional_kwargs["tool_calls"]`` only).
        """
        last = self.with_tools(llm, method, Bench().tools, tool_required=True)[-1]
        blocks = [block for block in last.message.blocks if isinstance(block, ToolCallBlock)]
        selections = self.selections(llm, last)
        assert [(block.tool_name, block.tool_call_id) for block in blocks] == [
            (selection.tool_name, selection.tool_id) for selection in selections
        ]
        assert isinstance(last.message.additional_kwargs.get("tool_calls"), list)
        assert len(last.message.additional_kwargs["tool_calls"]) == len(selections)

    @needs("can_force_tools")
    @pytest.mark.parametrize("method", METHODS[2:])
    def test_every_chunk_can_be_asked_for_calls(self, llm: LLM, method: str) -> None:
        """Fails: ``FunctionAgent`` dies in mid-stream: it asks each chunk for its calls. It keeps the last chunk as the
        whole turn, so ids must not change either.
        """
        chunks = self.with_tools(llm, method, Bench().tools, tool_required=True)
        seen: list[str] = []
        for chunk in chunks:
            assert chunk.delta is not None
            for selection in self.selections(llm, chunk):
                assert isinstance(selection.tool_kwargs, dict)
                if selection.tool_id not in seen:
                    seen.append(selection.tool_id)
        assert seen == [selection.tool_id for selection in self.selections(llm, chunks[-1])]

    @needs("can_force_tools", "reports_usage")
    @each_method
    def test_usage_of_tool_calls(self, llm: LLM, method: str) -> None:
        """Fails: agents cost nothing in token counters."""
        with recorded() as events:
            last = self.with_tools(llm, method, Bench().tools, tool_required=True)[-1]
        assert min(usage_of(last)) > 0
        assert [len(events.starts), len(events.ends)] == [1, 1]

    @needs("can_force_tools")
    def test_results_can_be_sent_back(self, llm: LLM) -> None:
        """Fails: the second turn of every agent: the LLM's own message, then one tool message per call."""
        response = self.with_tools(llm, METHODS[0], Bench().tools, tool_required=True)[-1]
        history = [ChatMessage(role="user", content=ASK), response.message]
        history.extend(
            ChatMessage(role="tool", content="done", additional_kwargs={"tool_call_id": selection.tool_id})
            for selection in self.selections(llm, response)
        )
        copies = [ChatMessage.model_validate_json(message.model_dump_json()) for message in history]
        for method in METHODS:
            last = self.with_tools(llm, method, Bench().tools, user_msg=None, chat_history=copies, **self.limit(8))[-1]
            assert last.message.role == MessageRole.ASSISTANT

    # --- no call ---

    @needs("has_tools")
    def test_no_call_is_an_error_by_default(self, llm: LLM) -> None:
        """Fails: callers take an empty list for a call: ``error_on_no_tool_call`` is True unless they say otherwise."""
        answer = ChatResponse(message=ChatMessage(role="assistant", content="Just text."))
        assert self.selections(llm, answer) == []
        with pytest.raises(ValueError):  # noqa: PT011
            cast(FunctionCallingLLM, llm).get_tool_calls_from_response(answer)

    # --- predict_and_call ---

    @needs("can_force_tools")
    @pytest.mark.parametrize("method", ["predict_and_call", "apredict_and_call"])
    @pytest.mark.parametrize("parallel", [False, True])
    def test_predict_and_call(self, llm: LLM, method: str, parallel: bool) -> None:
        """Fails: a tool is not run, or run twice; programs and users lose the one call that does everything."""
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
        """Fails: an answer in words is an exception although the caller asked for none (``error_on_no_tool_call``)."""
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
