"""JSON schemas of tools and of structured answers, from any form that LangChain takes.

LangChain's own conversion writes every definition where it is used. It cannot do so for a definition that contains
itself, and puts a schema there that anything fits. So schemas that contain themselves keep their definitions here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import PydanticUserError, TypeAdapter

from dgemma_integrations.langchain.typed_dicts import is_typed_dict, without_qualifiers
from dgemma_integrations.shared.shown_schema import with_root

_DEFINITIONS = ("$defs", "definitions")


def openai_tool(tool: Mapping[str, Any] | type | Callable[..., Any] | BaseTool) -> dict[str, Any]:
    """A tool in any form that LangChain knows, as OpenAI function dict.

    Raises:
        ValueError: an unknown form.
    """
    schema = _own_schema(_arguments_of(tool))
    if schema is None or not (_contains_itself(schema) or _holds_models(tool)):
        return _converted(convert_to_openai_tool, tool)
    parameters = _without_titles(with_root(schema))
    description = parameters.pop("description", "")
    if is_typed_dict(tool):  # LangChain's conversion does not end if a TypedDict contains itself.
        function = {"name": tool.__name__, "description": description}  # type: ignore[union-attr]
    else:
        function = _converted(convert_to_openai_tool, tool)["function"]
    return {"type": "function", "function": {**function, "parameters": parameters}}


def answer_schema(schema: Mapping[str, Any] | type) -> dict[str, Any]:
    """The JSON schema of a structured answer, with a title.

    Args:
        schema: a Pydantic class, a TypedDict, a JSON schema, or an OpenAI function or tool dict.

    Raises:
        ValueError: an unknown form.
    """
    described = _own_schema(schema)
    if described is not None and (_contains_itself(described) or _holds_models(schema)):
        described = with_root(described)
    elif isinstance(schema, Mapping) and not schema.keys() & {"name", "function", "toolSpec"}:
        described = dict(schema)
    else:
        described = _converted(convert_to_json_schema, schema)
    return {"title": "answer", **described}


def _converted(convert: Callable[[Any], dict[str, Any]], given: Any) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mixing V1 and V2 models")  # The error that follows says it.
            return convert(without_qualifiers(given) if is_typed_dict(given) else given)
    except RecursionError:
        raise ValueError(
            f"{given!r}: a typing.TypedDict that contains itself needs Python 3.12; give a Pydantic class, or a "
            "typing_extensions.TypedDict"
        ) from None
    except RuntimeError as error:
        raise ValueError(f"{given!r}: {error}; give a Pydantic class, or a typing_extensions.TypedDict") from error


def _holds_models(kind: Any) -> bool:
    """Whether a TypedDict holds Pydantic classes, which LangChain's conversion refuses."""
    if not is_typed_dict(kind):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            convert_to_json_schema(without_qualifiers(kind))
    except RecursionError:
        return False
    except RuntimeError:
        return True
    return False


def _arguments_of(tool: Any) -> Any:
    """A tool's arguments: a class, or a schema."""
    if isinstance(tool, BaseTool):
        return tool.tool_call_schema
    if isinstance(tool, type | Mapping) or is_typed_dict(tool):
        return tool
    return create_schema_from_function(
        tool.__name__,
        tool,
        filter_args=(),
        parse_docstring=True,
        error_on_invalid_docstring=False,
        include_injected=False,
    )


def _own_schema(kind: Any) -> dict[str, Any] | None:
    """The JSON schema that Pydantic or the user has written, with definitions; None if there is none."""
    if isinstance(kind, Mapping):
        return dict(kind)
    if is_typed_dict(kind):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pydantic says that it does not enforce ReadOnly.
                return TypeAdapter(kind).json_schema()
        except PydanticUserError:  # typing.TypedDict before Python 3.12, or a type without a schema
            return None
    if not (isinstance(kind, type) and is_basemodel_subclass(kind)):
        return None
    describe = getattr(kind, "model_json_schema", None) or kind.schema  # type: ignore[attr-defined]
    described: dict[str, Any] = describe()
    return described


def _contains_itself(schema: Mapping[str, Any]) -> bool:
    definitions = {name: value for key in _DEFINITIONS for name, value in schema.get(key, {}).items()}
    try:
        TopologicalSorter({name: set(_references(value)) for name, value in definitions.items()}).prepare()
    except CycleError:
        return True
    return False


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rsplit("/", 1)[-1]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _without_titles(node: Any, named: bool = False) -> Any:
    """The schema without Pydantic's titles, which say nothing new. If ``named``, the keys are names, not keywords."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    return {
        key: _without_titles(value, not named and key in ("properties", *_DEFINITIONS))
        for key, value in node.items()
        if named or key != "title" or not isinstance(value, str)
    }
