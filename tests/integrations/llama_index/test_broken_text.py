r"""Documents with half of a surrogate pair, as extractors of PDF files leave it."""

from __future__ import annotations

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from dgemma_integrations.llama_index import DiffusionGemma

HALF, MARK = "\ud835", "\ufffd"
FACT = "The Vexal bridge was built in 1931. "


@pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.REFINE, ResponseMode.TREE_SUMMARIZE])
def test_a_broken_document_is_answered_by_a_synthesizer(quick_llm: DiffusionGemma, mode: ResponseMode) -> None:
    """LlamaIndex's synthesizers swallow a TypeError and answer "Empty Response"."""
    synthesizer = get_response_synthesizer(llm=quick_llm, response_mode=mode)
    answers = [str(synthesizer.get_response(f"When? {half}", [f"{FACT}{half}"])) for half in (HALF, MARK)]
    assert answers[0] == answers[1]
    assert "Empty Response" not in answers


def test_every_endpoint_takes_broken_text(quick_llm: DiffusionGemma) -> None:
    def texts(half: str) -> list[str]:
        chat = [ChatMessage(role="system", content=half), ChatMessage(role="user", content=FACT + half)]
        return [
            quick_llm.complete(FACT + half).text,
            quick_llm.complete(f"<|turn>user\n{half}<turn|>\n<|turn>model\n", formatted=True).text,
            "".join(chunk.delta or "" for chunk in quick_llm.stream_complete(FACT + half)),
            str(quick_llm.chat(chat).message.content),
            quick_llm.predict(PromptTemplate("{text}"), text=half),
        ]

    assert texts(HALF) == texts(MARK)


class _Bridge(BaseModel):
    built: str = Field(description=f"the year {HALF}")


def test_broken_descriptions_of_classes_and_tools(llm: DiffusionGemma) -> None:
    assert isinstance(llm.structured_predict(_Bridge, PromptTemplate("{text}"), text=FACT), _Bridge)

    def look_up(name: str) -> str:
        return name

    tool = FunctionTool.from_defaults(look_up, description=f"Looks up. {HALF}")
    response = llm.chat_with_tools([tool], user_msg=f"Look it up. {HALF}", tool_required=True)
    assert llm.get_tool_calls_from_response(response)[0].tool_name == "look_up"
