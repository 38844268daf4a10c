"""Structured prediction: answers that are objects of a Pydantic class, with any weights.

In LlamaIndex's default mode the answer is JSON that fits the class's schema, and the prompt shows a short form of the
schema to the model. In function mode it is a forced call of a tool with that schema. In its text modes LlamaIndex only
asks for JSON, and does so itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, TextBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.program.streaming_utils import process_streaming_content_incremental
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.types import Model, PydanticProgramMode

from dgemma_integrations.llama_index.cut_answers import report_cut_response
from dgemma_integrations.llama_index.tools import TOOL_NAMES, selections
from dgemma_integrations.shared.on_length import check_on_length
from dgemma_integrations.shared.shown_schema import place_of_schema, shown
from dgemma_integrations.shared.tool_use import switched

if TYPE_CHECKING:
    from llama_index.core.prompts import BasePromptTemplate

# The modes that this module implements.
MODES = (PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION)


class StructuredPrediction(Generic[Model]):
    """One structured prediction: makes the call, and reads the object from the answer.

    Args:
        llm: the model; its ``pydantic_program_mode`` is one of :data:`MODES`.
        output_cls: Pydantic class of the object.
        prompt: asks for the object.
        llm_kwargs: settings of the call, as for ``chat``; settings of tools are ignored.
        prompt_args: variables of the prompt.

    Raises:
        GrammarError: the class has a schema that cannot be enforced; a ``ValueError``.
    """

    def __init__(
        self,
        llm: FunctionCallingLLM,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: Mapping[str, Any] | None,
        prompt_args: Mapping[str, Any],
    ) -> None:
        self._llm = llm
        self._output_cls = output_cls
        self._by_tool = llm.pydantic_program_mode == PydanticProgramMode.FUNCTION
        options = {name: value for name, value in (llm_kwargs or {}).items() if name not in TOOL_NAMES}
        given = options.pop("on_length", None)
        self._on_length = check_on_length(getattr(llm, "on_length", "warn") if given is None else given)
        messages = llm._extend_messages(prompt.format_messages(llm=llm, **prompt_args))
        schema = output_cls.model_json_schema()
        if self._by_tool:
            tool = get_function_tool(output_cls)
            self._arguments = {
                **llm._prepare_chat_with_tools([tool], chat_history=messages, tool_required=True),
                **options,
            }
        else:
            # Pydantic checks the object, so a schema that cannot be enforced may be widened.
            described = {"name": output_cls.__name__, "schema": schema, "strict": bool(options.pop("strict", False))}
            asked = options.pop("show_schema", None)
            # Shown here, so that LlamaIndex's events have it.
            shows = switched("show_schema", asked, getattr(llm, "show_schema", True))
            self._arguments = {
                "messages": show_schema(messages, schema) if shows else messages,
                "response_format": {"type": "json_schema", "json_schema": described},
                **options,
                "show_schema": False,
            }

    def predict(self) -> Model:
        """The object."""
        return self._read(self._llm.chat(**self._arguments))

    async def apredict(self) -> Model:
        """The object, without blocking the event loop."""
        return self._read(await self._llm.achat(**self._arguments))

    def stream(self) -> Generator[Model | FlexibleModel]:
        """A partial object after each canvas; the last one is whole."""
        reader = self._reader()
        for chunk in self._llm.stream_chat(**self._arguments):
            yield from reader.partial(chunk)
        yield from reader.whole(self._read(reader.last))

    async def astream(self) -> AsyncGenerator[Model | FlexibleModel]:
        """:meth:`stream` without blocking the event loop."""
        reader = self._reader()
        async for chunk in await self._llm.astream_chat(**self._arguments):
            for partial in reader.partial(chunk):
                yield partial
        for whole in reader.whole(self._read(reader.last)):
            yield whole

    def _reader(self) -> _PartialReader[Model]:
        return _PartialReader(self._output_cls, self._by_tool)

    def _read(self, response: ChatResponse) -> Model:
        report_cut_response(response, self._on_length, self._output_cls.__name__)
        # A validator of the class may refuse an object that fits the schema. The caller gets that error.
        if self._by_tool:
            (call,) = selections(response)
            return self._output_cls.model_validate(call.tool_kwargs)
        return self._output_cls.model_validate_json(response.message.content or "")


class _PartialReader(Generic[Model]):
    """Reads unfinished objects from the chunks of a stream and remembers the last chunk."""

    def __init__(self, output_cls: type[Model], by_tool: bool) -> None:
        self._output_cls, self._by_tool = output_cls, by_tool
        self._known: Model | FlexibleModel = create_flexible_model(output_cls)()
        self._text: str | None = None
        self.last: ChatResponse = ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=""))

    def partial(self, chunk: ChatResponse) -> Iterator[Model | FlexibleModel]:
        """The object after a chunk, or nothing if the chunk has no new text. A call comes whole, in the last chunk."""
        self.last = chunk
        text = chunk.message.content
        if self._by_tool or not text or text == self._text:
            return
        self._text = text
        self._known = process_streaming_content_incremental(chunk, self._output_cls, self._known)
        yield self._known

    def whole(self, output: Model) -> Iterator[Model]:
        """The finished object, unless the last partial one was equal to it."""
        if output != self._known:
            yield output


def show_schema(messages: Sequence[ChatMessage], schema: Mapping[str, Any]) -> list[ChatMessage]:
    """:func:`with_schema` of LlamaIndex's messages."""
    index = place_of_schema([message.role.value for message in messages])
    if index is None:
        return [*messages, ChatMessage(role=MessageRole.USER, content=shown(schema))]
    asked = messages[index]
    blocks = list(asked.blocks)
    if blocks and isinstance(blocks[-1], TextBlock):
        blocks[-1] = TextBlock(text=f"{blocks[-1].text}\n\n{shown(schema)}")
    else:
        blocks.append(TextBlock(text=shown(schema)))
    extended = ChatMessage(role=asked.role, blocks=blocks, additional_kwargs=asked.additional_kwargs)
    return [*messages[:index], extended, *messages[index + 1 :]]
