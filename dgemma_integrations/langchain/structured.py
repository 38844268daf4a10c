"""``with_structured_output``: a model and the parser of its answers, in LangChain's three methods."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.pydantic import is_basemodel_subclass

from dgemma_core.api.surrogates import without_surrogates
from dgemma_integrations.langchain.cut_answers import cut_reporter
from dgemma_integrations.langchain.schemas import answer_schema, openai_tool
from dgemma_integrations.shared.on_length import OnLength

METHODS = ("json_schema", "function_calling", "json_mode")


def structured(
    model: BaseChatModel,
    schema: dict[str, Any] | type | None,
    method: str,
    include_raw: bool,
    strict: bool | None,
    settings: Mapping[str, Any],
    on_length: OnLength = "warn",
) -> Runnable[Any, Any]:
    """The runnable that ``with_structured_output`` returns.

    Args:
        model: the chat model.
        schema: a class or a JSON schema.
        method: one of :data:`METHODS`.
        include_raw: whether to return the model's message as well.
        strict: for traces.
        settings: of every call.
        on_length: what to do if an answer was cut for want of room.

    Raises:
        ValueError: an unknown method, or a method that needs a schema without one.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: must be one of {', '.join(METHODS)}")
    if schema is None and method != "json_mode":
        raise ValueError(f"schema=None: method={method!r} needs a schema")
    llm, parser = _parts(model, schema, method, strict, settings)
    if not include_raw or on_length == "raise":
        parser = cut_reporter(on_length, _name(schema)) | parser
    if not include_raw:
        return llm | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    # The model is the first step, because a chain gives the settings of a call to its first step only.
    return llm | RunnableMap(raw=RunnablePassthrough()) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _name(schema: dict[str, Any] | type | None) -> str:
    return "JSON" if schema is None else str(answer_schema(schema)["title"])


def _parts(
    model: BaseChatModel,
    schema: dict[str, Any] | type | None,
    method: str,
    strict: bool | None,
    settings: Mapping[str, Any],
) -> tuple[Runnable[Any, Any], Runnable[Any, Any]]:
    """The bound model and the parser."""
    pydantic = isinstance(schema, type) and is_basemodel_subclass(schema)
    # The parser checks an object of a Pydantic class, and no other. So only there a schema may be widened unasked.
    held = not pydantic if strict is None else strict
    told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    if method == "function_calling":
        assert schema is not None
        tool = without_surrogates(openai_tool(schema))
        name = tool["function"]["name"]
        bound = model.bind_tools(
            [tool],
            tool_choice=name,
            parallel_tool_calls=False,
            strict=held,
            **settings,
            ls_structured_output_format={**told, "schema": tool},
        )
        if pydantic:
            return bound, PydanticToolsParser(tools=[schema], first_tool_only=True)  # type: ignore[list-item]
        return bound, JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    response_format: dict[str, Any] = {"type": "json_object"}
    if schema is not None:
        described = answer_schema(schema)
        response_format = {
            "type": "json_schema",
            "json_schema": {"name": described["title"], "schema": described, "strict": held},
        }
        told["schema"] = described
    bound = model.bind(response_format=response_format, **settings, ls_structured_output_format=told)
    return bound, PydanticOutputParser(pydantic_object=schema) if pydantic else JsonOutputParser()  # type: ignore[arg-type]
