"""``system_prompt``, ``query_wrapper_prompt``, ``completion_to_prompt`` and ``messages_to_prompt`` reach the model."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage, CompletionResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from dgemma_core import Engine
from dgemma_core.errors import DGemmaError
from dgemma_integrations.llama_index import DiffusionGemma

SYSTEM, ASKED = "Answer in one word.", "Which planet is the largest?"
USER = ChatMessage(role="user", content=ASKED)
TOLD = [ChatMessage(role="system", content=SYSTEM), USER]


def completion_markup(completion: str) -> str:
    return f"<|turn>user\n({completion})<turn|>\n<|turn>model\n"


def chat_markup(messages: Sequence[ChatMessage]) -> str:
    return "".join(f"<|turn>{m.role.value}\n[{m.content}]<turn|>\n" for m in messages) + "<|turn>model\n"


@pytest.fixture
def make(embedded_engine: Engine) -> Any:
    def made(**fields: Any) -> DiffusionGemma:
        short = {"max_tokens": 8, "canvas_length": 16, "max_denoising_steps": 2}
        return DiffusionGemma(engine=embedded_engine, seed=7, **short, **fields)

    return made


def cost(response: Any) -> tuple[str, int]:
    text = response.text if isinstance(response, CompletionResponse) else response.message.content
    return text, response.raw["usage"]["prompt_tokens"]


async def everywhere(llm: DiffusionGemma, messages: Sequence[ChatMessage]) -> list[tuple[str, int]]:
    """Every endpoint's answer and tokens of the prompt: completions of the question, and chats."""
    return [
        cost(llm.complete(ASKED)),
        cost(await llm.acomplete(ASKED)),
        cost([*llm.stream_complete(ASKED)][-1]),
        cost([chunk async for chunk in await llm.astream_complete(ASKED)][-1]),
        cost(llm.chat(messages)),
        cost(await llm.achat(messages)),
        cost([*llm.stream_chat(messages)][-1]),
        cost([chunk async for chunk in await llm.astream_chat(messages)][-1]),
    ]


async def test_a_system_prompt_comes_first_everywhere(make: Any) -> None:
    wanted = cost(make().chat(TOLD))
    llm = make(system_prompt=SYSTEM)
    assert await everywhere(llm, [USER]) == 8 * [wanted]
    assert cost(llm.chat(TOLD)) == wanted  # It is there already, as in LlamaIndex's own predict.
    assert (llm.predict(PromptTemplate(ASKED)), await llm.apredict(PromptTemplate(ASKED))) == (wanted[0], wanted[0])
    other = ChatMessage(role="system", content="Be kind.")
    assert cost(llm.chat([other, USER])) == cost(make().chat([TOLD[0], other, USER]))


async def test_a_query_wrapper_wraps_completions_and_templates(make: Any) -> None:
    wrapped = make(query_wrapper_prompt="Q: {query_str}\nA:")
    plain, question = make(), ChatMessage(role="user", content=f"Q: {ASKED}\nA:")
    answers = await everywhere(wrapped, [USER])
    assert answers == 4 * [cost(plain.chat([question]))] + 4 * [cost(plain.chat([USER]))]
    assert wrapped.predict(PromptTemplate(ASKED)) == plain.chat([question]).message.content
    both = make(query_wrapper_prompt=PromptTemplate("Q: {query_str}\nA:"), system_prompt=SYSTEM)
    assert cost(both.complete(ASKED)) == cost(plain.chat([TOLD[0], question]))
    with pytest.raises(ValueError, match=r"query_wrapper_prompt='Q': must contain \{query_str\}"):
        make(query_wrapper_prompt="Q")


async def test_completion_to_prompt_writes_completions(make: Any) -> None:
    """LlamaIndex's local models leave the system prompt to the function."""
    llm = make(completion_to_prompt=completion_markup, system_prompt=SYSTEM)
    plain = make()
    markup = cost(plain.complete(completion_markup(ASKED), formatted=True))
    assert (await everywhere(llm, [USER]))[:4] == 4 * [markup]
    assert cost(llm.complete(ASKED, formatted=True)) == cost(plain.complete(ASKED, formatted=True))
    bare = make(completion_to_prompt=completion_markup)
    assert not bare.metadata.is_chat_model
    assert bare.predict(PromptTemplate(ASKED)) == markup[0]


async def test_messages_to_prompt_writes_chats(make: Any) -> None:
    llm = make(messages_to_prompt=chat_markup, system_prompt=SYSTEM)
    markup = cost(make().complete(chat_markup(TOLD), formatted=True))
    assert (await everywhere(llm, [USER]))[4:] == 4 * [markup]
    assert llm.metadata.is_chat_model
    assert llm.predict(ChatPromptTemplate([USER])) == markup[0]


class _Planet(BaseModel):
    rank: int


def test_objects_and_calls_follow_them_or_say_why_not(make: Any, embedded_engine: Engine) -> None:
    tool = FunctionTool.from_defaults(lambda rank: rank, name="f", description="")
    seen: list[str] = []

    def spy(messages: Sequence[ChatMessage]) -> str:
        seen.append(chat_markup(messages))
        return seen[-1]

    llm = make(messages_to_prompt=spy, system_prompt=SYSTEM).model_copy(update={"max_tokens": 24, "canvas_length": 32})
    assert isinstance(llm.structured_predict(_Planet, PromptTemplate(ASKED)), _Planet)
    assert seen[0].startswith(f"<|turn>system\n[{SYSTEM}]<turn|>\n<|turn>user\n[{ASKED}")
    with pytest.raises(ValueError, match="tools: messages_to_prompt writes the whole prompt"):
        llm.chat_with_tools([tool], user_msg=ASKED)
    with pytest.raises(ValueError, match="thinking: messages_to_prompt writes the whole prompt"):
        llm.chat([USER], thinking=True)
    forced = make(
        system_prompt=SYSTEM, pydantic_program_mode=PydanticProgramMode.FUNCTION, query_wrapper_prompt="{query_str}"
    )
    forced = forced.model_copy(update={"max_tokens": 24, "canvas_length": 32})
    assert isinstance(forced.structured_predict(_Planet, PromptTemplate(ASKED)), _Planet)


def test_copies_keep_them() -> None:
    llm = DiffusionGemma(system_prompt=SYSTEM, messages_to_prompt=chat_markup, completion_to_prompt=completion_markup)
    copy: LLM = pickle.loads(pickle.dumps(llm))
    assert (copy.system_prompt, copy.messages_to_prompt) == (SYSTEM, chat_markup)
    assert copy.completion_to_prompt is completion_markup
    assert "messages_to_prompt" not in llm.to_dict()
    assert llm.to_dict()["system_prompt"] == SYSTEM


def test_a_function_that_writes_no_text_is_named(tiny_engine: Engine) -> None:
    wrong: Any = {"completion_to_prompt": lambda _: None, "messages_to_prompt": lambda messages: messages}
    llm = DiffusionGemma(engine=tiny_engine, max_tokens=4, **wrong)
    with pytest.raises(DGemmaError, match="completion_to_prompt returned None"):
        llm.complete("Hello")
    with pytest.raises(DGemmaError, match="messages_to_prompt returned"):
        llm.chat([ChatMessage(role="user", content="Hello")])
