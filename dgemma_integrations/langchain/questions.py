"""Schema -> typed questions, and their answers -> objects of the schema."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args, get_origin

import typing_extensions
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dgemma_core.api.questions import Answer, Question

_ACCEPTED = "a mapping from names to Question, a Pydantic class or a TypedDict"


@dataclass(frozen=True)
class QuestionSet:
    """Questions by name, and how their answers become a result.

    Attributes:
        questions: the questions for the engine.
        values: the value of each option, per question. A missing option is its own value.
        build: makes the result from the values by name.
    """

    questions: Mapping[str, Question]
    values: Mapping[str, Mapping[str, Any]]
    build: Callable[[dict[str, Any]], Any]

    def result(self, answers: Mapping[str, Answer], thresholds: Mapping[str, float]) -> Any:
        """The result of the answers.

        Args:
            answers: one per question.
            thresholds: probability of yes from which the answer to a ``bool`` question is True, by name.
        """
        return self.build({name: self._value(name, answer, thresholds) for name, answer in answers.items()})

    def _value(self, name: str, answer: Answer, thresholds: Mapping[str, float]) -> Any:
        if name in thresholds:
            return answer.probabilities["yes"] >= thresholds[name]
        return self.values.get(name, {}).get(str(answer.value), answer.value)


def question_set(schema: Any) -> QuestionSet:
    """The questions of a classifier.

    A field's description is its question. A ``bool`` field becomes a question of type ``bool``. A ``Literal`` or
    ``Enum`` of strings becomes a ``choice``; one of integers becomes a ``score``, from the lowest to the highest.

    Raises:
        ValueError: an unknown form, a field without a description, or a type that makes no question.
    """
    if isinstance(schema, Mapping):
        for name, question in schema.items():
            if not isinstance(name, str) or not isinstance(question, Question):
                raise ValueError(f"questions[{name!r}]={question!r}: must be a Question")
        if not schema:
            raise ValueError("questions={}: give at least one Question")
        return QuestionSet(dict(schema), {}, dict)
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        # Resolves types that were defined after the class. Raises if they still are not defined.
        schema.model_rebuild()
        fields = {name: _of_pydantic(schema, name, field) for name, field in schema.model_fields.items()}
        return _of_fields(schema, fields, partial(_object_of, schema))
    # Before Python 3.13, typing knows only its own TypedDict.
    if typing_extensions.is_typeddict(schema):
        hints = typing_extensions.get_type_hints(schema, include_extras=True)
        return _of_fields(schema, {name: _of_hint(hint) for name, hint in hints.items()}, dict)
    raise ValueError(f"questions={schema!r}: must be {_ACCEPTED}")


def _of_fields(
    schema: type, fields: Mapping[str, tuple[Any, str]], build: Callable[[dict[str, Any]], Any]
) -> QuestionSet:
    if not fields:
        raise ValueError(f"questions={schema.__name__}: it has no fields")
    questions, values = {}, {}
    for name, (kind, description) in fields.items():
        where = f"{schema.__name__}.{name}"
        if not description:
            raise ValueError(f"{where}: needs a description, which is the question: Field(description='...?')")
        questions[name], values[name] = _question(where, kind, description)
    return QuestionSet(questions, values, build)


def _question(where: str, kind: Any, text: str) -> tuple[Question, dict[str, Any]]:
    """The question of a field, and the value of each of its options."""
    if kind is bool:
        return Question("bool", text), {}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        values: Sequence[Any] = [member.value for member in kind]
        meant: Sequence[Any] = list(kind)
    elif get_origin(kind) is Literal:
        values = meant = get_args(kind)
    else:
        raise ValueError(
            f"{where} is of type {kind!r}: a question needs bool, a Literal or an Enum; for other types "
            "use ChatDiffusionGemma.with_structured_output"
        )
    if all(isinstance(value, str) for value in values):
        question = Question("choice", text, list(values))
        return question, dict(zip(question.names, meant, strict=True))
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        levels = sorted(zip(values, meant, strict=True), key=lambda level: level[0])
        return Question("score", text, [str(value) for value, _ in levels]), {str(v): m for v, m in levels}
    raise ValueError(f"{where} has the options {list(values)!r}: must be all strings, or all integers")


def _of_pydantic(schema: type[BaseModel], name: str, field: FieldInfo) -> tuple[Any, str]:
    # An alias may hide the type in an Annotated.
    return _of_hint(field.annotation)[0], field.description or ""


def _object_of(schema: type[BaseModel], values: Mapping[str, Any]) -> BaseModel:
    """An object of the class, with values by the names or aliases that it takes."""
    aliases = {name: field.validation_alias for name, field in schema.model_fields.items()}
    return schema.model_validate(
        {alias if isinstance(alias := aliases[name], str) else name: value for name, value in values.items()}
    )


def _of_hint(hint: Any) -> tuple[Any, str]:
    """A type without its annotations, and the description among the annotations."""
    if get_origin(hint) in (typing.Required, typing.NotRequired):
        (hint,) = get_args(hint)
    if get_origin(hint) is not typing.Annotated:
        return hint, ""
    kind, *notes = get_args(hint)
    texts = [note if isinstance(note, str) else note.description for note in notes if _describes(note)]
    return kind, texts[0] if texts else ""


def _describes(note: Any) -> bool:
    return isinstance(note, str) or (isinstance(note, FieldInfo) and bool(note.description))
