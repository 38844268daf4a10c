"""Grammars of thousands of rules, keys and choices: what is accepted when it is made also works when it is used."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from dgemma_core import Grammar
from dgemma_core.errors import GrammarError
from dgemma_core.structured.endings import short_ending
from dgemma_core.structured.tool_grammar import tool_grammar
from tests.core.structured.embedded_tokens import ALPHABET, COMPILER, TEMPLATE

# One rule in another, far more of them than the stack of a thread holds.
CHAIN = """
import threading
from dgemma_core.api import Grammar

rules = "\\n".join(f'r{n}: "a" r{n + 1}?' for n in range(5000))
threading.stack_size(1 << 18)
thread = threading.Thread(target=lambda: print(Grammar.lark(f'start: r0\\n{rules}\\nr5000: "b"').kind))
thread.start()
thread.join()
"""


def test_rules_in_thousands_of_rules_do_not_end_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", CHAIN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "lark\n"), done.stderr


def optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"field{n}": {"type": "integer"} for n in range(count)}}


def test_an_answer_of_many_optional_keys() -> None:
    matcher = COMPILER.matcher(Grammar.json_schema(optional(700)))
    matcher.consume(ALPHABET.spell(b'{"field3":1,"field650":'))
    assert ALPHABET.bytes_of(short_ending(matcher, ALPHABET, 8) or []) == b"0}"


def test_a_call_of_many_optional_keys() -> None:
    matcher = COMPILER.matcher(tool_grammar([{"name": "f", "parameters": optional(700)}], "auto"))
    matcher.consume([*TEMPLATE.markup("<|tool_call>"), *ALPHABET.spell(b"call:f{field3:1,field650:")])
    assert short_ending(matcher, ALPHABET, 8) == [*ALPHABET.spell(b"0}"), *TEMPLATE.markup("<tool_call|>")]


def test_fifty_thousand_choices() -> None:
    matcher = COMPILER.matcher(Grammar.choice([f"choice {n}" for n in range(50_000)]))
    spelled = ALPHABET.spell(b"choice 49999")
    assert matcher.accepts(spelled) == len(spelled)


@pytest.mark.parametrize("depth", [150, 2000])
def test_a_schema_nested_too_deep_is_refused(depth: int) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(GrammarError, match="deep"):
        Grammar.json_schema(schema)
