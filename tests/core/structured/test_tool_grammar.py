"""Tool grammars: what they accept and refuse, and that their shortest calls fit the schema."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgemma_core import Engine, Message, SamplingParams
from dgemma_core.chat.call_parser import parse_call
from dgemma_core.errors import GrammarError
from dgemma_core.structured.endings import short_ending
from dgemma_core.structured.hints import string_hints
from dgemma_core.structured.tool_grammar import tool_grammar
from tests.core.structured.embedded_tokens import ALPHABET, COMPILER, TEMPLATE

OPEN, CLOSE, QUOTE = TEMPLATE.markup('<|tool_call><tool_call|><|"|>')
STRING = {"type": "string"}
NODE = {
    "$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}}}
}


def tool(name: str = "f", **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **parameters}}}


def one(schema: Any, **root: Any) -> dict[str, Any]:
    """A tool with one required parameter ``x``."""
    return tool(properties={"x": schema}, required=["x"], **root)


def fits(tools: Sequence[Any], turn: str | list[int], choice: str = "any", parallel: bool = True) -> bool:
    tokens = TEMPLATE.markup(turn) if isinstance(turn, str) else turn
    matcher = COMPILER.matcher(tool_grammar(tools, choice, parallel))
    if matcher.accepts(tokens) < len(tokens):
        return False
    matcher.consume(tokens)
    return matcher.accepting


def call(arguments: str, name: str = "f") -> str:
    return f"<|tool_call>call:{name}{arguments}<tool_call|>".replace("'", '<|"|>')


def shortest(tools: Sequence[Any], limit: int = 512) -> tuple[str, dict[str, Any]]:
    grammar = tool_grammar(tools, "any", parallel=False)
    way = short_ending(COMPILER.matcher(grammar), ALPHABET, limit, string_hints(grammar.source))
    assert way is not None, grammar.source
    assert (way[0], way[-1]) == (OPEN, CLOSE)
    parts: list[list[int]] = [[]]
    for token in way[1:-1]:
        if token == QUOTE:
            parts.append([])
        else:
            parts[-1].append(token)
    return parse_call([ALPHABET.bytes_of(part).decode() for part in parts])


# (schema of x, values that fit, values that do not)
VALUES: list[tuple[Any, list[str], list[str]]] = [
    (STRING, ["''", "'a\n\"{b}: \\n ü'", "'<|tool call>'"], ["1", '"a"', "'a", "null"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["'äö'", "'abc'"], ["'a'", "'abcd'", "''"]),
    ({"type": "string", "maxLength": 0}, ["''"], ["'a'"]),
    ({"type": "string", "pattern": "^[a-z]+\\d$"}, ["'ab1'"], ["'ab'", "'1'", "'ab12'"]),
    ({"type": "string", "pattern": "b[\\w.-]c|^d"}, ["'ab-cd'", "'dx'", "'b.c'"], ["'bc'", "'xd'"]),
    ({"type": "string", "pattern": "(^a|,b)(c$|d)"}, ["'ac'", "'x,bdx'", "'adx'"], ["'acx'", "'bd'"]),
    ({"type": "string", "pattern": "^/x\"'?$"}, ["'/x\"'"], ["'/x'"]),
    ({"type": "string", "pattern": "a", "maxLength": 2}, ["'ba'", "'a'"], ["'bba'", "'b'"]),
    ({"type": "string", "format": "date"}, ["'2024-04-30'"], ["'2024-04-31'", "'2024-4-3'"]),
    ({"type": "string", "format": "date-time"}, ["'2024-04-30T10:00:00Z'"], ["'2024-04-30 10:00'"]),
    ({"type": "string", "format": "time"}, ["'10:00:00+01:00'"], ["'24:00:00Z'"]),
    ({"type": "string", "format": "email"}, ["'a.b@c.de'"], ["'a@'", "'a b@c.de'"]),
    ({"type": "string", "format": "ipv4"}, ["'10.0.255.1'"], ["'256.0.0.1'", "'1.2.3'"]),
    ({"type": "string", "format": "ipv6"}, ["'::1'", "'fe80::1'", "'1:2:3:4:5:6:7:8'"], ["'1:2'", "'1::2::3'"]),
    ({"type": "string", "format": "uuid"}, ["'00000000-0000-0000-0000-00000000000F'"], ["'0000'"]),
    ({"type": "string", "format": "uri"}, ["'https://a.b/c?d=%20#e'"], ["'a b'", "'nothing'"]),
    ({"type": "string", "format": "hostname"}, ["'a-b.c'"], ["'-a'", "'a..b'"]),
    ({"type": "string", "format": "of-my-own"}, ["'x'"], []),
    ({"type": "integer"}, ["0", "-12", "123"], ["01", "1.0", "'1'", "true"]),
    ({"type": "number"}, ["0", "-1.5", "1e-05"], [".5", "1.", "+1", "1e999"]),
    ({"type": "integer", "minimum": 3, "exclusiveMaximum": 12}, ["3", "11"], ["2", "12", "-3"]),
    ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, ["4"], ["3"]),
    ({"type": "integer", "multipleOf": 5}, ["0", "15"], ["3"]),
    ({"type": "boolean"}, ["true", "false"], ["null", "'true'", "True"]),
    ({"type": "null"}, ["null"], ["''"]),
    ({"type": ["string", "null"]}, ["null", "'null'"], ["1"]),
    (
        {"enum": ["a b", "", 1, None, True, 2.5, {"B": [1], "a": {}}]},
        ["'a b'", "''", "1", "2.5", "{a:{},B:[1]}"],
        ["2"],
    ),
    ({"enum": ["a", 1, "bcd"], "type": "string", "maxLength": 2}, ["'a'"], ["1", "'bcd'"]),
    ({"type": "array", "items": {"type": "integer"}}, ["[]", "[1]", "[1,2,3]"], ["[1,]", "[ 1]", "['a']", "1"]),
    ({"type": "array", "items": STRING, "minItems": 1, "maxItems": 2}, ["['a']", "['a','b']"], ["[]", "['','','']"]),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    (
        {"type": "array", "prefixItems": [STRING, {"type": "null"}], "items": False},
        ["[]", "['']", "['',null]"],
        ["[1]"],
    ),
    ({"type": "array", "items": [STRING], "additionalItems": {"type": "null"}, "minItems": 2}, ["['',null]"], ["['']"]),
    (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        ["{}", "{a_1:1,b:2}"],
        ["{1:1}", "{a:''}", "{,}"],
    ),
    ({"type": "object"}, ["{}", "{a:'',b:null}"], ["{a}"]),
    ({"type": "object", "properties": {}}, ["{}"], ["{a:1}"]),
    ({"type": "array", "items": {"enum": ["a", "b", 1]}, "uniqueItems": True}, ["[]", "[1,'a']"], ["['a',1,'a']"]),
    ({"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "minItems": 2}, ["['b','a']"], ["['a']"]),
    ({"type": "array", "items": {"type": ["boolean", "null"]}, "uniqueItems": True}, ["[true,null]"], ["[null,null]"]),
    ({"type": "array", "items": STRING, "uniqueItems": True, "maxItems": 1}, ["['a']"], ["['a','a']"]),
    (
        {"type": "array", "items": {"enum": list(range(30))}, "uniqueItems": True, "maxItems": 3, "minItems": 1},
        ["[1]", "[0,7,29]"],
        ["[]", "[1,1]", "[1,2,3,4]"],
    ),
    (
        {"type": "object", "propertyNames": {"enum": ["b", "a", "c d"]}, "additionalProperties": {"type": "integer"}},
        ["{}", "{a:1,b:2,c d:3}"],
        ["{d:1}", "{a:''}"],
    ),
    (
        {"type": "object", "propertyNames": {"pattern": "^x[0-9]$"}, "minProperties": 1},
        ["{x1:true}"],
        ["{y:true}", "{}"],
    ),
    (
        {"type": "object", "properties": {"a": STRING, "bb": STRING}, "propertyNames": {"maxLength": 1}},
        ["{a:''}"],
        ["{a:'',bb:''}"],
    ),
    (
        {"type": "object", "patternProperties": {"^n": {"type": "integer"}, "t$": STRING}},
        ["{}", "{n1:1,a t:'',t:''}"],
        ["{nt:1}", "{nt:''}", "{x:1}", "{n:''}"],
    ),
    (
        {"type": "object", "properties": {"n": {"minimum": 3}}, "patternProperties": {"^n": {"type": "integer"}}},
        ["{n:3}"],
        ["{n:2}", "{n:'x'}", "{n2:3}"],
    ),
    (
        {"type": "object", "properties": {"a:b": STRING, "": STRING, "[x]": STRING, " c": STRING}, "required": [""]},
        ["{'':'','[x]':'','a:b':'y'}"],
        ["{a:b:''}", "{'a:b':''}"],
    ),
    ({"enum": [{"a:b": 1, "c": 2}]}, ["{'a:b':1,c:2}"], ["{a:b:1,c:2}"]),
    ({"type": "object", "properties": dict.fromkeys("abc", STRING), "minProperties": 2}, ["{a:'',c:''}"], ["{a:''}"]),
    (
        {"type": "object", "properties": dict.fromkeys("abc", STRING), "maxProperties": 1, "required": ["b"]},
        ["{b:''}"],
        ["{a:'',b:''}"],
    ),
    (
        {"$ref": "https://a.b/c", "$defs": {"n": {"$id": "https://a.b/c", "type": "integer"}}},
        ["1"],
        ["''"],
    ),
    ({"type": "object", "required": ["a"], "additionalProperties": {"type": "null"}}, ["{a:null}"], ["{}", "{a:1}"]),
    ({}, ["'a'", "[1,{a:[]}]", "null", "{}"], ["a"]),
    (True, ["1"], []),
    ({"anyOf": [{"type": "integer", "minimum": 5}, {"enum": ["low"]}]}, ["5", "'low'"], ["4", "'high'"]),
    ({"oneOf": [STRING, {"type": "null"}]}, ["''", "null"], ["1"]),
    (
        {"allOf": [{"type": ["string", "null"]}, {"minLength": 2}, {"type": "string", "maxLength": 2}]},
        ["'ab'"],
        ["null"],
    ),
    ({"type": "number", "allOf": [{"minimum": 1}, {"type": "integer", "minimum": 3}]}, ["3"], ["2", "3.5"]),
    ({"properties": {"a": {"type": "integer"}}, "items": STRING}, ["{a:1}", "{}"], ["['x']", "1"]),
    ({"items": {"properties": {"a": {"type": "integer"}}}}, ["[{a:1}]", "[]"], ["{}", "[1]", "[{b:1}]"]),
]


@pytest.mark.parametrize(("schema", "good", "bad"), VALUES, ids=lambda value: str(value)[:60])
def test_values(schema: Any, good: list[str], bad: list[str]) -> None:
    tools = [one(schema)]
    for value in good:
        assert fits(tools, call(f"{{x:{value}}}")), value
    for value in bad:
        assert not fits(tools, call(f"{{x:{value}}}")), value
    assert not fits(tools, call("{}"))


@pytest.mark.parametrize("schema", [schema for schema, _, _ in VALUES], ids=lambda value: str(value)[:60])
def test_shortest_calls_fit(schema: Any) -> None:
    tools = [one(schema)]
    name, arguments = shortest(tools)
    assert name == "f"
    validate(arguments, tools)


def validate(arguments: dict[str, Any], tools: list[dict[str, Any]]) -> None:
    """By draft 2020-12, or by draft 4 where the schema is not valid in draft 2020-12."""
    schema = tools[0]["function"]["parameters"]
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        jsonschema.Draft4Validator(schema).validate(arguments)
    else:
        jsonschema.Draft202012Validator(schema).validate(arguments)


def test_look_alikes_stay_text() -> None:
    tools = [one(STRING), tool("g", properties={"s": STRING})]
    start, end = '<|tool_call>call:f{x:<|"|>', '<|"|>}<tool_call|>'
    inside = [*TEMPLATE.markup(start), *TEMPLATE.plain("<|tool_call>"), *TEMPLATE.markup(end)]
    assert fits(tools, inside)
    assert not fits(tools, call("{x:'<|tool_call>'}"))
    assert fits(tools, TEMPLATE.plain('ab <|tool_call>call:f{x:<|"|>'), "auto")
    assert fits(tools, TEMPLATE.plain("<|tool_call>"), "none")
    assert not fits(tools, TEMPLATE.plain(call("{}", "g")))
    assert not fits(tools, call("{s:'<|channel>'}", "g"))


def test_optional_properties_in_dictsort_order() -> None:
    optional = [tool(properties={name: {"type": "null"} for name in ("b", "A", "c")})]
    for good in ("{}", "{A:null}", "{b:null}", "{c:null}", "{A:null,c:null}", "{A:null,b:null,c:null}"):
        assert fits(optional, call(good)), good
    for bad in ("{,A:null}", "{b:null,A:null}", "{A:null,}", "{A:null,A:null}", "{A:null,,c:null}", "{d:null}"):
        assert not fits(optional, call(bad)), bad
    mixed = [tool(properties={name: {"type": "null"} for name in "abcd"}, required=["b", "d"])]
    for good in ("{b:null,d:null}", "{a:null,b:null,c:null,d:null}", "{b:null,c:null,d:null}"):
        assert fits(mixed, call(good)), good
    for bad in ("{}", "{b:null}", "{a:null,d:null}", "{b:null,d:null,c:null}", "{b:null,d:null,}"):
        assert not fits(mixed, call(bad)), bad


def test_numbers_of_properties() -> None:
    some = [tool(properties={"a": {"type": "null"}, "b": {"type": "null"}}, minProperties=1)]
    assert not fits(some, call("{}"))
    assert fits(some, call("{b:null}"))
    both = [tool(properties={"a": {"type": "null"}, "b": {"type": "null"}}, minProperties=2)]
    assert not fits(both, call("{b:null}"))
    assert fits(both, call("{a:null,b:null}"))


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_no_parameters(parameters: Any) -> None:
    tools = [{"name": "f", "parameters": parameters}]
    assert fits(tools, call("{}"))
    assert not fits(tools, call("{a:1}"))
    assert shortest(tools) == ("f", {})


def test_turns() -> None:
    tools = [tool("get"), tool("get_all")]
    a, b, thought = call("{}", "get"), call("{}", "get_all"), "<|channel>thought\nhm<channel|>"
    for turn in ("", "hi", thought, thought + "hi", "hi" + a, a + b, thought + a, "hi" + a + a + b):
        assert fits(tools, turn, "auto"), turn
    for turn in (a + "hi", "hi" + thought, "<|tool_call>", call("{}", "other"), "<tool_call|>", "hi<|turn>"):
        assert not fits(tools, turn, "auto"), turn
    assert fits(tools, "hi" + a, "auto", parallel=False)
    assert not fits(tools, a + b, "auto", parallel=False)
    for turn in ("", "hi", thought + "hi"):
        assert fits(tools, turn, "none")
        assert fits([], turn, "auto")
        assert not fits(tools, turn, "any")
    assert not fits(tools, a, "none")
    for choice in ("any", "required"):
        assert fits(tools, thought + b + a, choice)
        assert not fits(tools, a + "hi", choice)
        assert not fits(tools, "hi" + a, choice)
        assert not fits(tools, a + b, choice, parallel=False)
    assert fits(tools, a, "get")
    assert not fits(tools, b, "get")


def test_references() -> None:
    tools = [tool(properties={"n": {"$ref": "#/$defs/node"}}, required=["n"], **NODE)]
    assert fits(tools, call("{n:{next:{next:{v:2},v:1}}}"))
    assert not fits(tools, call("{n:{next:{next:{v:''}}}}"))
    assert shortest(tools) == ("f", {"n": {}})
    whole = [tool(properties={"again": {"$ref": "#"}, "v": {"type": "null"}}, required=["v"])]
    assert fits(whole, call("{again:{v:null},v:null}"))
    merged = [tool(properties={"again": {"allOf": [{"$ref": "#"}, {"required": ["v"]}]}, "v": {"type": "null"}})]
    assert fits(merged, call("{again:{again:{v:null},v:null}}"))
    assert not fits(merged, call("{again:{again:{},v:null}}"))


def test_told_apart_by_a_constant() -> None:
    def kind(name: str, **rest: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"kind": {"const": name}, **rest}, "required": ["kind"]}

    tools = [one({"oneOf": [kind("a", n={"type": "integer"}), {"$ref": "#/$defs/b"}]}, **{"$defs": {"b": kind("b")}})]
    assert fits(tools, call("{x:{kind:'a',n:1}}"))
    assert fits(tools, call("{x:{kind:'b'}}"))
    assert not fits(tools, call("{x:{kind:'b',n:1}}"))


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": STRING}, "'not'"),
        ({"if": STRING, "then": False}, "'if'"),
        ({"type": "object", "patternProperties": {"(?=a)": STRING}}, "'patternProperties'"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
        ({"type": "object", "propertyNames": {"pattern": "(?=a)"}}, "'pattern'"),
        ({"type": "object", "minProperties": 2}, "'minProperties'"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
        ({"type": "array", "contains": STRING}, "'contains'"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "'oneOf'"),
        ({"type": "string", "pattern": "(?=a)b"}, "'pattern'"),
        ({"type": "string", "pattern": "a\\bc"}, "'pattern'"),
        ({"type": "string", "pattern": "("}, "'pattern'"),
        ({"type": "float"}, "'type'"),
        ({"type": "string", "maxLength": "3"}, "'maxLength'"),
        ({"$ref": "#/$defs/none"}, "no such place"),
        ({"$ref": "http://a.b/c"}, r"\$ref"),
    ],
    ids=str,
)
def test_what_cannot_be_enforced_is_named(schema: Any, named: str) -> None:
    with pytest.raises(GrammarError, match=f"tool 'f', #/properties/x.*{named}"):
        tool_grammar([one(schema)])


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "^abc$", "maxLength": 2},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"allOf": [STRING, {"type": "null"}]},
        {"type": "array", "items": False, "minItems": 1},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"enum": [1], "type": "string"},
        {"$ref": "#/$defs/endless"},
    ],
    ids=str,
)
def test_what_nothing_fits_is_refused(schema: Any) -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#/$defs/endless"}}, "required": ["a"]}
    with pytest.raises(GrammarError, match=r"tool 'f'.*fit this schema"):
        tool_grammar([one(schema, **{"$defs": {"endless": endless}})])


def test_impossible_options_are_left_out() -> None:
    tools = [tool(properties={"a": False, "b": {"anyOf": [{"type": "integer", "minimum": 3, "maximum": 2}, STRING]}})]
    assert fits(tools, call("{b:''}"))
    assert not fits(tools, call("{b:1}"))


@pytest.mark.parametrize(
    ("tools", "choice", "named"),
    [
        ([], "any", "any"),
        ([], "f", "no tools"),
        ([tool()], "g", "'g'.*f"),
        ([tool(), tool()], "auto", "'f'"),
        ([tool("a b")], "auto", "'a b'"),
        ([{"parameters": {}}], "auto", "None"),
        (["f"], "auto", "'f'"),
    ],
)
def test_wrong_arguments(tools: Any, choice: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tool_grammar(tools, choice)


def test_the_same_input_gives_the_same_text() -> None:
    tools = [one({"anyOf": [STRING, {"$ref": "#/$defs/node"}]}, **NODE), tool("g", properties={"a": {}, "b": {}})]
    assert tool_grammar(tools) == tool_grammar(tools)
    assert hash(tool_grammar(tools)) == hash(tool_grammar(tools))


def schemas() -> st.SearchStrategy[Any]:
    small = st.integers(0, 3)
    strings = st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "minLength": small,
            "maxLength": st.integers(3, 6),
            "format": st.sampled_from(["date", "uuid", "email", "x"]),
        },
    ).filter(lambda s: "format" not in s or not s.keys() & {"minLength", "maxLength"})
    numbers = st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={"minimum": st.integers(-20, 20), "exclusiveMaximum": st.integers(25, 99), "multipleOf": st.just(2)},
    )
    patterns = st.sampled_from(["^[a-c]+$", "x", "^(a|b)+-\\d{2}$", "[^a-z]$", "^\\S+\\.png$"])
    leaves = st.one_of(
        strings,
        numbers,
        patterns.map(lambda pattern: {"type": "string", "pattern": pattern}),
        st.sampled_from([{}, {"type": "boolean"}, {"type": ["null", "integer"]}, {"enum": ["a", 2, None]}]),
    )

    def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        arrays = st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={"minItems": small, "maxItems": st.integers(3, 4), "prefixItems": st.lists(inner, max_size=2)},
        )
        return st.one_of(arrays, objects(inner), st.lists(inner, min_size=1, max_size=3).map(lambda s: {"anyOf": s}))

    return objects(st.recursive(leaves, nested, max_leaves=6))


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "B", "b", "c-d", "é", "name"])
    return st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(names, inner, max_size=4)},
        optional={"required": st.lists(names, unique=True, max_size=3), "additionalProperties": inner},
    )


@settings(max_examples=200, derandomize=True, deadline=None)
@given(schemas())
def test_shortest_calls_fit_any_schema(schema: Any) -> None:
    tools = [{"name": "f", "parameters": schema}]
    _, arguments = shortest(tools)
    jsonschema.Draft202012Validator(schema).validate(arguments)


UNENFORCEABLE = [
    ({"not": STRING}, "'not'"),
    ({"type": "array", "items": STRING, "uniqueItems": True}, "'uniqueItems'"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "'oneOf'"),
    ({"type": "string", "pattern": "(?=a)b"}, "'pattern'"),
    ({"type": "float"}, "'type'"),
    ({"type": "string", "maxLength": "3"}, "'maxLength'"),
    ({"$ref": "http://a.b/c"}, r"'\$ref'"),
    ({"type": "object", "minProperties": 2}, "'minProperties'"),
    (7, "a schema is an object or a boolean"),
]


@pytest.mark.parametrize("choice", ["auto", "any", "f"])
@pytest.mark.parametrize(("schema", "named"), UNENFORCEABLE, ids=str)
def test_a_tool_that_is_not_strict_is_widened_with_a_warning(
    schema: Any, named: str, choice: str, caplog: pytest.LogCaptureFixture
) -> None:
    lenient = one(schema)
    lenient["function"]["strict"] = False
    tools = [lenient, tool("g", properties={"n": {"type": "integer"}}, required=["n"])]
    grammar = tool_grammar(tools, choice)
    assert re.search(f"tool 'f', #/properties/x.*{named}", caplog.text)
    way = short_ending(COMPILER.matcher(grammar), ALPHABET, 64, string_hints(grammar.source))
    assert way is not None
    if choice != "f":
        assert fits(tools, call("{n:1}", "g"), choice)
        assert not fits(tools, call("{n:'x'}", "g"), choice)


def test_a_widened_tool_keeps_what_can_be_enforced(caplog: pytest.LogCaptureFixture) -> None:
    tools = [one({"type": "array", "items": {"type": "string", "maxLength": 2}, "uniqueItems": True, "minItems": 1})]
    tools[0]["function"]["strict"] = False
    assert fits(tools, call("{x:['a','a']}"))
    assert not fits(tools, call("{x:[]}"))
    assert not fits(tools, call("{x:['abc']}"))
    assert not fits(tools, call("{}"))
    assert "#/properties/x" in caplog.text


def test_a_tool_that_no_arguments_fit_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    impossible = one(False)
    impossible["function"]["strict"] = False
    tools = [impossible, tool("g")]
    assert fits(tools, call("{}", "g"))
    assert "cannot be called" in caplog.text
    with pytest.raises(GrammarError, match="fit this schema"):
        tool_grammar(tools, "f")


def test_references_by_address_and_anchor() -> None:
    definitions = {
        "a": {"$id": "item", "type": "integer"},
        "b": {"$anchor": "name", "type": "string"},
        "c": {"$id": "urn:c", "$defs": {"d": {"type": "null"}}, "$ref": "#/$defs/d"},
        "d": {"type": "boolean"},
    }
    references = {"a": "item", "b": "#name", "c": "urn:c", "d": "#/$defs/d", "e": "https://a.b/item"}
    properties = {name: {"$ref": reference} for name, reference in references.items()}
    root = {"$id": "https://a.b/root.json", "$defs": definitions}
    tools = [tool(properties=properties, required=list(references), **root)]
    assert fits(tools, call("{a:1,b:'',c:null,d:true,e:2}"))
    for wrong in ("{a:'',b:'',c:null,d:true,e:2}", "{a:1,b:1,c:null,d:true,e:2}", "{a:1,b:'',c:true,d:true,e:2}"):
        assert not fits(tools, call(wrong)), wrong


def test_thousands_of_values() -> None:
    tools = [one({"enum": [*(f"v{n}" for n in range(5000)), *range(5000)]})]
    assert fits(tools, call("{x:'v4999'}"))
    assert fits(tools, call("{x:4998}"))
    assert not fits(tools, call("{x:'v5000'}"))


ODD_TEXTS = ['<|"|>', "<|tool_call>", "<tool_call|>", "<bos>", "a<|think|>b", 'a{"b}', 'a["<|"|>', "\\n[", "a\n:b", '"']


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_keys_and_values_of_any_spelling_are_called(embedded_engine: Engine, text: str, nested: bool) -> None:
    wanted = {text: text} if nested else text
    schema = {"const": wanted}
    parameters = {"type": "object", "properties": {text: schema}, "required": [text]}
    tools = [{"type": "function", "function": {"name": "f", "description": text, "parameters": parameters}}]
    params = SamplingParams(seed=0, max_denoising_steps=2, max_new_tokens=96)
    answer = embedded_engine.submit([Message("user", "Call f.")], params, tools=tools, tool_choice="any").result()
    assert [dict(made.arguments) for made in answer.tool_calls] == [{text: wanted}]


def test_a_number_under_a_key_with_quotes_and_brackets() -> None:
    for key in ('a["b]', '<|"|>{', '"}"'):
        tools = [tool(properties={key: {"type": "integer"}}, required=[key])]
        assert shortest(tools)[1] == {key: 0}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"if": True, "then": {"const": 1}, "else": {"const": 2}}, "1", "2"),
        ({"if": False, "then": {"const": 1}, "else": {"const": 2}}, "2", "1"),
        ({"type": "object", "allOf": [{"properties": {"a": {}}}, {"unevaluatedProperties": False}]}, "{}", "{a:1}"),
        (
            {"type": "object", "properties": {"a": {}}, "anyOf": [{"unevaluatedProperties": False, "required": []}]},
            "{}",
            "{a:1}",
        ),
        (
            {"type": "object", "allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False},
            "{a:1}",
            "{b:1}",
        ),
    ],
)
def test_conditions_that_are_decided_and_properties_that_are_not_evaluated(schema: Any, good: str, bad: str) -> None:
    assert fits([one(schema)], call(f"{{x:{good}}}"))
    assert not fits([one(schema)], call(f"{{x:{bad}}}"))
