r"""Documents with half of a surrogate pair, as extractors of PDF files leave it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from dgemma_core import Question
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM

HALF, MARK = "\ud835", "\ufffd"


def _chat(half: str) -> list[Any]:
    call = {"name": "f", "args": {half: half}, "id": "1"}
    blocks: list[str | dict[str, Any]] = [{"type": "text", "text": half}, {"type": "json", "json": {"a": half}}]
    return [
        SystemMessage(half),
        HumanMessage(blocks),
        AIMessage(half, tool_calls=[call]),
        ToolMessage(half, tool_call_id="1"),
        HumanMessage(f"1907. {half}"),
    ]


def test_a_broken_document_is_answered(chat: ChatDiffusionGemma, llm: DiffusionGemmaLLM) -> None:
    assert chat.invoke(_chat(HALF)).content == chat.invoke(_chat(MARK)).content
    assert "".join(c.text for c in chat.stream(_chat(HALF))) == "".join(c.text for c in chat.stream(_chat(MARK)))
    assert llm.invoke(f"1907. {HALF}", stop=[HALF]) == llm.invoke(f"1907. {MARK}", stop=[MARK])
    assert chat.get_token_ids(HALF) == chat.get_token_ids(MARK)


def test_a_broken_schema_is_followed(held_chat: ChatDiffusionGemma) -> None:
    schema = {"title": "T", "type": "object", "properties": {"a": {"enum": [HALF], "description": HALF}}}
    for method in ("json_schema", "function_calling"):
        answer = held_chat.with_structured_output({**schema, "required": ["a"]}, method=method).invoke(HALF)  # type: ignore[arg-type]
        assert answer == {"a": MARK}


def test_a_broken_option_is_answered(settings: dict[str, Any]) -> None:
    questions = {"q": Question("choice", f"which? {HALF}", [f"a{HALF}", f"b{HALF}"])}
    classifier = DiffusionGemmaClassifier(questions=questions, engine=settings["engine"])
    assert classifier.invoke(f"1907. {HALF}")["q"] in (f"a{MARK}", f"b{MARK}")


def test_a_schema_with_a_broken_title_is_followed(
    held_chat: ChatDiffusionGemma, caplog: pytest.LogCaptureFixture
) -> None:
    schema = {"title": f"T{HALF}", "type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}
    assert held_chat.with_structured_output(schema, method="function_calling").invoke("a") == {"a": "x"}
    assert "\ud835" not in caplog.text, "a log that is written as UTF-8 cannot hold it"
