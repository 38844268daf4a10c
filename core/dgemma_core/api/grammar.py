"""Grammars that an answer must fit: a JSON Schema, a regular expression, a list of choices, or a Lark grammar.

`llguidance <https://github.com/guidance-ai/llguidance>`_ compiles them. Its documentation lists the JSON Schema
keywords, the regex syntax (Rust's, without look-around) and the Lark dialect.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

# Imported here, because an import reads files, and the first grammar may be made on an event loop.
from llguidance import LLMatcher, regex_to_lark

from dgemma_core.api.answer_schemas import contradictions, enforceable
from dgemma_core.api.compiling import checked
from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.json_schemas.declared_keys import with_declared_keys_only
from dgemma_core.api.json_schemas.implied_types import with_implied_types
from dgemma_core.api.json_schemas.widening import widened
from dgemma_core.api.patterns import whole_regex
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.surrogates import without_escaped_surrogates, without_surrogates
from dgemma_core.errors import GrammarError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

logger = logging.getLogger(__name__)

Kind = Literal["json_schema", "regex", "choice", "lark"]

# Compact JSON: every blank would cost a canvas position and multiply the ways to write the same value.
COMPACT: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
# A warning about control tokens. They are looked up later, when the grammar is compiled for a tokenizer.
_NO_TOKENIZER = "no tokenizer"
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
# Sets of characters that Python would read in another way.
_RUST_ONLY = re.compile(r"\[:\^?[a-z]+:\]|&&|~~|\[[^\]]*--")
_ANY_OBJECT = {"type": "object"}
_TOO_DEEP = "the schema is nested too deep"


@dataclass(frozen=True)
class Grammar(JsonForm):
    """A grammar for ``SamplingParams(grammar=...)``. Hashable. The class methods make one.

    Attributes:
        kind: the class method that made it.
        source: its text; a schema and choices are JSON. Halves of surrogate pairs in it become U+FFFD.

    Raises:
        GrammarError: the grammar cannot be used; the message says why.
    """

    kind: Kind
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", _repaired(self.kind, self.source))
        problem = _problem(self)
        if problem:
            raise GrammarError(f"this {self.kind} grammar cannot be used: {problem}", self)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str | type, strict: bool = True) -> Grammar:
        """JSON that fits a schema, without blanks between values, with properties in the schema's order.

        Args:
            schema: a JSON Schema as mapping or text, or a Pydantic model class.
            strict: whether to refuse keywords that cannot be enforced. Otherwise they are left out, and a warning in
                the log names each; then check the answers.

        Raises:
            GrammarError: not a schema, an unsatisfiable one, or a keyword that cannot be enforced. The message names
                it.
        """
        if isinstance(schema, type):
            describe = getattr(schema, "model_json_schema", None) or getattr(schema, "schema", None)
            if describe is None:
                raise GrammarError(f"{schema!r} is not a Pydantic model: give a JSON Schema as dict", None)
            schema = describe()
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except json.JSONDecodeError as error:
                raise GrammarError(f"the schema is not JSON: {error}", None) from error
        if not isinstance(schema, Mapping):
            raise GrammarError(f"schema={schema!r}: must be a JSON Schema object or a Pydantic model class", None)
        try:
            text = json.dumps(schema, ensure_ascii=False, default=_number)
        except TypeError as error:
            raise GrammarError(f"the schema holds a value that JSON has no form for: {error}", None) from error
        except RecursionError as error:
            raise GrammarError(_TOO_DEEP, None) from error
        try:
            return _meant(cls("json_schema", text if strict else _widened(text)))
        except RecursionError as error:
            raise GrammarError(_TOO_DEEP, None) from error

    @classmethod
    def json(cls) -> Grammar:
        """Any JSON object."""
        return cls.json_schema(_ANY_OBJECT)

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        r"""Text that a regular expression matches from beginning to end.

        ``\d``, ``\w`` and ``\s`` stand for ASCII characters, ``\D``, ``\W`` and ``\S`` for what is no digit, letter or
        blank in any script. So Python's ``re.fullmatch`` takes the text, too.

        Raises:
            GrammarError: not a pattern, or one with look-around or back references.
        """
        if not isinstance(pattern, str) or not pattern:
            raise GrammarError(f"pattern={pattern!r}: must be a non-empty regular expression", None)
        return cls("regex", pattern)

    @classmethod
    def choice(cls, options: Sequence[str]) -> Grammar:
        """Exactly one of some texts.

        Raises:
            GrammarError: no options, or an option that is empty or not a string.
        """
        if isinstance(options, str) or not options:
            raise GrammarError(f"options={options!r}: give a list of texts", None)
        for option in options:
            if not isinstance(option, str) or not option:
                raise GrammarError(f"options hold {option!r}: every option must be a non-empty string", None)
        return cls("choice", json.dumps(list(dict.fromkeys(map(without_surrogates, options))), ensure_ascii=False))

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Text that a Lark grammar with the rule ``start`` derives.

        Raises:
            GrammarError: not a grammar.
        """
        if not isinstance(text, str) or not text.strip():
            raise GrammarError(f"text={text!r}: must be a Lark grammar with a rule called start", None)
        return cls("lark", text)

    def compiled(self) -> str:
        """The grammar in llguidance's own form."""
        if self.kind == "json_schema":
            return LLMatcher.grammar_from_json_schema(self.compact_schema(), defaults=COMPACT)
        if self.kind == "regex":
            return LLMatcher.grammar_from_lark(f"start: /{_lark_regex(self.source)}/")
        if self.kind == "choice":
            # One terminal: a rule may have 2,000 alternatives at most, a terminal any number.
            options = " | ".join(json.dumps(option, ensure_ascii=False) for option in json.loads(self.source))
            return LLMatcher.grammar_from_lark(f"start: OPTION\nOPTION: {options}")
        return LLMatcher.grammar_from_lark(self.source)

    def compact_schema(self) -> str:
        """The schema of a ``json_schema`` grammar as llguidance must be given it."""
        return _enforceable(self.source)


def _repaired(kind: Kind, source: str) -> str:
    """The source without halves of surrogate pairs, also those that are spelled with escapes."""
    if kind in ("json_schema", "choice") and _ESCAPED_HALF.search(source):
        try:
            return json.dumps(without_surrogates(json.loads(source)), ensure_ascii=False)
        except json.JSONDecodeError:
            pass  # The check that follows says so.
    if kind in ("regex", "lark") and isinstance(source, str):
        source = without_escaped_surrogates(source)
    return without_surrogates(source)


@lru_cache(maxsize=256)  # It is asked for when a grammar is made and when it is compiled.
def _enforceable(source: str) -> str:
    return json.dumps(enforceable(json.loads(source)), ensure_ascii=False)


def _lark_regex(pattern: str) -> str:
    """A user's regular expression for whole texts as llguidance's, within slashes."""
    if not _RUST_ONLY.search(pattern):
        try:
            return whole_regex(pattern, search=False)
        except ValueError:
            pass  # Rust's dialect has forms that Python cannot parse.
    return regex_to_lark(pattern, use_ascii="dws")


def _widened(text: str) -> str:
    """The schema without what cannot be enforced; the log says what that is."""
    schema, notes = _without_unenforceable(text)
    for note in notes:
        logger.warning("answer, %s; answers are not held to it, so check them", note)
    return schema


@lru_cache(maxsize=256)
def _without_unenforceable(text: str) -> tuple[str, list[str]]:
    schema, notes = widened(json.loads(text), _problem_with)
    return json.dumps(schema, ensure_ascii=False), notes


def _problem_with(schema: Any) -> str:
    try:
        Grammar("json_schema", json.dumps(schema, ensure_ascii=False))
    except GrammarError as error:
        return str(error)
    return ""


@lru_cache(maxsize=256)
def _meant(given: Grammar) -> Grammar:
    """The grammar of what a schema means: types that its keywords imply, and objects of declared keys.

    The schema itself was accepted before: only then it is certain that the branches of a ``oneOf`` do not overlap.
    """
    meant = with_declared_keys_only(with_implied_types(json.loads(given.source)))
    try:
        return Grammar("json_schema", json.dumps(meant, ensure_ascii=False))
    except GrammarError as error:
        logger.warning("objects of this schema may hold undeclared keys: %s", error)
        return given


def _number(value: object) -> object:
    """A number of numpy or torch for JSON."""
    number = plain(value)
    if number is value:
        raise TypeError(f"{value!r} of type {type(value).__name__}")
    return number


def _are_options(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)


@lru_cache(maxsize=256)  # Agents make the same grammar at every call, often on an event loop.
def _problem(grammar: Grammar) -> str:
    """Why llguidance refuses a grammar, or an empty string.

    A warning counts as a refusal, because llguidance does not enforce what it warns of.
    """
    if grammar.kind == "regex" and not grammar.source:
        return "its source is empty"
    try:
        if grammar.kind == "choice" and not _are_options(json.loads(grammar.source)):
            return "its source must be a JSON list of non-empty strings"
        compiled = grammar.compiled()
    except ValueError as error:
        return _TOO_DEEP if "recursion limit" in str(error) else str(error)
    failed, messages = checked(compiled)
    problem = "; ".join(m for m in messages if failed or _NO_TOKENIZER not in m)
    if grammar.kind == "json_schema" and "nsatisfiable" in problem:
        return next(contradictions(json.loads(grammar.source)), problem)
    if "symbols.len()" in problem:
        return "it has too many rules"
    if "oneOf constraints" in problem:
        return "'oneOf' cannot be enforced: its branches may overlap; use 'anyOf', or branches told apart by a 'const'"
    return problem
