"""The text of a tool call, read and written."""

from __future__ import annotations

from typing import Any

import pytest

from dgemma_core.chat.call_parser import MAX_DEPTH, parse_call
from dgemma_core.chat.control_tokens import CALL_CLOSE, CALL_OPEN, QUOTE
from tests.helpers.call_writer import format_call


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Read a call whose strings stand between single quotes."""
    return parse_call(text.split("'"))


def test_a_call_has_a_name_and_arguments() -> None:
    assert parse("call:get.x-1{}") == ("get.x-1", {})
    expected = {"a": "x", "b": [1, -2.5, True, None, {"c": ""}]}
    assert parse("call:f{a:'x',b:[1,-2.5,true,null,{c:''}]}") == ("f", expected)


def test_structure_inside_strings_is_text() -> None:
    assert parse("call:f{a:'}],:{',b:'call:g{}'}") == ("f", {"a": "}],:{", "b": "call:g{}"})


def test_blanks_around_tokens_do_not_count() -> None:
    assert parse(" call : f { a : 'x' ,\n b : [ 1 , 2 ] } ") == ("f", {"a": "x", "b": [1, 2]})


def test_keys_may_be_quoted_and_may_repeat() -> None:
    assert parse("call:f{'':1,'a:b':2,c d:3}")[1] == {"": 1, "a:b": 2, "c d": 3}
    assert parse("call:f{a:1,a:2}")[1] == {"a": 2}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("call:f{a:'x}", "not closed"),
        ("cell:f{}", "begins with call:"),
        ("call:{}", "names no tool"),
        ("call:f", "expected {"),
        ("call:f{a}", "expected :"),
        ("call:f{a:1", "expected }"),
        ("call:f{a:[1}", "expected ]"),
        ("call:f{:1}", "key is missing"),
        ("call:f{}x", "follows the arguments"),
        ("call:f{}'x'", "follows the arguments"),
        ("call:f{a:yes}", "'yes' is no value"),
        ("call:f{a:01}", "'01' is no value"),
        ("call:f{a:1e999}", "out of range"),
        (f"call:f{{a:{'[' * MAX_DEPTH}{']' * MAX_DEPTH}}}", f"deeper than {MAX_DEPTH}"),
    ],
)
def test_malformed_calls_are_named(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse(text)


def test_what_is_written_reads_back() -> None:
    arguments = {"a": "", "B": [1, 2.5, -1e-07, True, None, [], {}], "c d": {"x": "}{,:[]\n"}}
    written = format_call("f", arguments)
    assert written.startswith(f"{CALL_OPEN}call:f{{a:{QUOTE}{QUOTE},B:[1,2.5,")
    assert parse_call(written.removeprefix(CALL_OPEN).removesuffix(CALL_CLOSE).split(QUOTE)) == ("f", arguments)
