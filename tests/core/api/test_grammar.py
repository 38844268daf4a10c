"""Grammars: what they accept, what they refuse, and the short way to a complete text."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from dgemma_core import Grammar, SamplingParams
from dgemma_core.errors import GrammarError
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.endings import short_ending
from dgemma_core.structured.hints import sample, string_hints
from dgemma_core.structured.matcher import GrammarCompiler
from tests.checkpoints import make_tokenizer

END = 4
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
    {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 3, "maxItems": 5},
    {"type": "string", "minLength": 7},
    {"type": "string", "pattern": "\\.png$"},
    {"type": "string", "pattern": "^[^@ ]+@[a-z]+\\.(com|org)$"},
    {"type": "string", "format": "date-time"},
    {"type": "number", "minimum": 1000, "maximum": 2000},
    {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}]},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"const": {"k": [1, "two", None]}},
]


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(Alphabet(make_tokenizer(), 512, frozenset({1, END})))


class Person(BaseModel):
    name: str
    age: int


def test_grammars_are_values() -> None:
    assert Grammar.json_schema(Person) == Grammar.json_schema(Person.model_json_schema())
    assert hash(Grammar.choice(["a", "b"])) == hash(Grammar.choice(["a", "b", "a"]))
    assert SamplingParams(grammar=Grammar.json()) == SamplingParams(grammar=Grammar.json())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Grammar.json_schema({"type": "foo"}), "foo"),
        (lambda: Grammar.json_schema({"type": "string", "minLength": 3, "maxLength": 1}), "minLength"),
        (lambda: Grammar.json_schema({"not": {"type": "string"}}), "not"),
        (lambda: Grammar.json_schema("{"), "JSON"),
        (lambda: Grammar.json_schema(int), "int"),
        (lambda: Grammar.json_schema({"enum": {1, 2}}), "JSON has no form"),
        (lambda: Grammar.regex("(?=a)b"), "look-around"),
        (lambda: Grammar.regex(""), "pattern=''"),
        (lambda: Grammar.choice([]), "options"),
        (lambda: Grammar.choice("yes"), "'yes'"),
        (lambda: Grammar.choice(["a", ""]), "''"),
        (lambda: Grammar.lark("start: nowhere"), "nowhere"),
    ],
)
def test_unusable_grammars_are_named(make: Any, named: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(named)):
        make()


def test_a_grammar_and_a_stop_string_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="stop"):
        SamplingParams(grammar=Grammar.json(), stop=("\n",))
    with pytest.raises(ValueError, match="grammar="):
        SamplingParams(grammar={"type": "object"})  # type: ignore[arg-type]


def test_undefined_formats_are_comments(compiler: GrammarCompiler) -> None:
    matcher = compiler.matcher(Grammar.json_schema({"type": "string", "format": "shoe-size"}))
    spelled = compiler.alphabet.spell(b'"44"')
    assert matcher.accepts(spelled) == len(spelled)


def test_values_that_look_like_formats_stay(compiler: GrammarCompiler) -> None:
    named_const = {"properties": {"const": {"type": "string", "format": "shoe-size"}}, "required": ["const"]}
    for schema, text in (({"const": {"format": "pdf"}}, b'{"format":"pdf"}'), (named_const, b'{"const":"44"}')):
        spelled = compiler.alphabet.spell(text)
        assert compiler.matcher(Grammar.json_schema(schema)).accepts(spelled) == len(spelled)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: json.dumps(s)[:40])
def test_short_endings_are_valid(compiler: GrammarCompiler, schema: dict[str, Any]) -> None:
    grammar = Grammar.json_schema(schema)
    way = short_ending(compiler.matcher(grammar), compiler.alphabet, 256, string_hints(grammar.source))
    assert way is not None
    jsonschema.validate(json.loads(compiler.alphabet.bytes_of(way)), schema)


def test_short_endings_from_the_middle(compiler: GrammarCompiler) -> None:
    grammar = Grammar.json_schema(SCHEMAS[0])
    matcher = compiler.matcher(grammar)
    begun = compiler.alphabet.spell(b'{"a":"half a wor')
    matcher.consume(begun)
    way = short_ending(matcher, compiler.alphabet, 64)
    assert way is not None
    text = compiler.alphabet.bytes_of([*begun, *way])
    assert json.loads(text)["a"] == "half a wor"
    assert len(way) <= len(compiler.alphabet.spell(b'","b":0}'))


@pytest.mark.parametrize("pattern", ["(a|b)*c", "[A-Z]{3}-\\d{4}", "yes|no", "x+y?z{2,}"])
def test_short_endings_of_patterns(compiler: GrammarCompiler, pattern: str) -> None:
    way = short_ending(compiler.matcher(Grammar.regex(pattern)), compiler.alphabet, 64)
    assert way is not None
    assert re.fullmatch(pattern, compiler.alphabet.bytes_of(way).decode())


def test_no_ending_within_the_limit(compiler: GrammarCompiler) -> None:
    matcher = compiler.matcher(Grammar.json_schema({"type": "string", "minLength": 100}))
    assert short_ending(matcher, compiler.alphabet, 20) is None


@pytest.mark.parametrize("pattern", ["^mailto:", "\\.(png|jpeg)$", "[^a]b{2}", "^\\d{3}-\\w$", "(?:x|yy)z"])
def test_samples_match(pattern: str) -> None:
    text = sample(pattern)
    assert text is not None
    assert re.search(pattern, text)


def test_control_tokens_are_no_text(compiler: GrammarCompiler) -> None:
    matcher = compiler.matcher(Grammar.json_schema({"type": "string"}))
    matcher.consume(compiler.alphabet.spell(b'"'))
    allowed = matcher.allowed()
    assert not any(allowed[token] for token in range(512) if compiler.alphabet.is_special(token))


@pytest.mark.parametrize("count", [2001, 50_000])
def test_a_choice_of_many_options(compiler: GrammarCompiler, count: int) -> None:
    matcher = compiler.matcher(Grammar.choice([f"option {n}" for n in range(count)]))
    spelled = compiler.alphabet.spell(f"option {count - 1}".encode())
    matcher.consume(spelled)
    assert matcher.accepting
    assert matcher.accepts(compiler.alphabet.spell(b"x")) == 0
