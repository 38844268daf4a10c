"""Names of tools that cannot stand in a call: declared under similar names, and mapped back."""

from __future__ import annotations

from typing import Any

from dgemma_core import Engine, Message, SamplingParams, ToolCall
from dgemma_core.chat.tool_names import ToolNames


def tool(name: str) -> dict[str, Any]:
    count = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    return {"type": "function", "function": {"name": name, "parameters": count}}


def test_proper_names_stay_and_others_become_similar_and_unique() -> None:
    names = ["a.b-c_1", "Page[Item]", "Page_Item", "Page(Item)", "Größe", "天气", "天", "my tool"]
    mapped = ToolNames.of([tool(name) for name in names])
    declared = [t["function"]["name"] for t in mapped.tools(map(tool, names))]
    assert declared == ["a.b-c_1", "Page_Item_2", "Page_Item", "Page_Item_3", "Gro_e", "tool", "tool_2", "my_tool"]
    assert [mapped.own(name) for name in declared] == names


def test_calls_have_the_callers_names(embedded_engine: Engine) -> None:
    tools = [tool("Page[Item]"), tool("seiten zählen"), tool("plain")]
    for choice in ("Page[Item]", "seiten zählen"):
        asked = SamplingParams(seed=0, max_new_tokens=40, max_denoising_steps=4)
        done = embedded_engine.submit([Message("user", "n is 12")], asked, tools=tools, tool_choice=choice).result()
        assert [call.name for call in done.tool_calls] == [choice]
        talk = [
            Message("user", "n is 12"),
            Message("assistant", tool_calls=(ToolCall(choice, {"n": 12}, "c1"),)),
            Message("tool", "done", tool_call_id="c1"),
        ]
        again = embedded_engine.submit(talk, asked, tools=tools, tool_choice="any").result()
        assert {call.name for call in again.tool_calls} <= {"Page[Item]", "seiten zählen", "plain"}
