"""Calls that the caller forces, so that any weights will do."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.llms.llm import LLM, ToolSelection

from .base import needs
from .calls import usage_of
from .recording import recorded
from .tool_bench import ASK, METHODS, Bench, ToolBase, each_method


class ForcedCallTests(ToolBase):
    """``tool_required`` and ``tool_choice``."""

    @needs("can_force_tools")
    @each_method
    def test_required_tool_is_called(self, llm: LLM, method: str) -> None:
        """Fails: ``structured_predict``, selectors and extractors get prose instead of a call. They all force a call
        with ``tool_required=True``.
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
        Core does not validate streams, so the LLM itself must make only one call.
        """
        ask = "Add 1 and 2. Add 3 and 4. Switch on every lamp."
        last = self.with_tools(
            llm, method, Bench().tools, user_msg=ask, tool_required=True, allow_parallel_tool_calls=False
        )[-1]
        assert len(self.selections(llm, last)) == 1

    @needs("can_force_tools")
    @each_method
    def test_parallel_calls_are_allowed(self, llm: LLM, method: str) -> None:
        """Fails: agents break. ``FunctionAgent`` asks with ``allow_parallel_tool_calls=True`` at each turn."""
        bench = Bench()
        last = self.with_tools(llm, method, bench.tools, tool_required=True, allow_parallel_tool_calls=True)[-1]
        selections = self.selections(llm, last)
        assert selections
        assert len({selection.tool_id for selection in selections}) == len(selections)
        for selection in selections:
            bench.check(selection)

    @needs("can_force_tools")
    def test_tool_ids_are_unique(self, llm: LLM) -> None:
        """Fails: results are matched with the wrong call, because agents match by ``tool_call_id`` alone."""
        responses = [self.with_tools(llm, METHODS[0], Bench().tools, tool_required=True)[-1] for _ in range(2)]
        ids = [selection.tool_id for response in responses for selection in self.selections(llm, response)]
        assert all(ids)
        assert len(set(ids)) == len(ids)

    @needs("can_force_tools")
    @each_method
    def test_calls_are_where_core_looks(self, llm: LLM, method: str) -> None:
        """Fails: agents lose the call in memory (they keep ``message.blocks``), or all fields of streamed objects are
        None (``process_streaming_objects`` in ``program/utils.py`` reads only ``additional_kwargs["tool_calls"]``).
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
        """Fails: ``FunctionAgent`` dies in mid-stream, because it asks each chunk for its calls. It keeps the last
        chunk as the whole turn, so ids must not change either.
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
        """Fails: the second turn of every agent breaks. It has the LLM's own message, then a tool message per call."""
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
