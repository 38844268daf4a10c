"""The API's values survive JSON, and what is no value of the API is refused by name."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgemma_core import api, errors
from dgemma_core.api import (
    Answer,
    DraftEvent,
    FinishedEvent,
    Generation,
    Grammar,
    Image,
    LoadSpec,
    Message,
    Question,
    Request,
    SamplingParams,
    ToolCall,
    Usage,
    error_from_dict,
    event_from_dict,
)
from dgemma_core.errors import AnswerBudgetError, ContextOverflowError, DGemmaError, GrammarError
from tests.core.api import strategies

few = settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
more = settings(few, max_examples=50)
PICTURE = Image(2, 1, bytes(range(6)))


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value.to_dict(), allow_nan=False))


@pytest.mark.parametrize("kind", strategies.VALUES)
@few
@given(data=st.data())
def test_values_survive_json(kind: str, data: st.DataObject) -> None:
    value = data.draw(strategies.VALUES[kind])
    written = through_json(value)
    assert type(value).from_dict(written) == value
    assert type(value).from_dict(written).to_dict() == written


@more
@given(strategies.REQUESTS)
def test_requests_survive_json(request_made: Request) -> None:
    read = Request.from_dict(through_json(request_made))
    assert read == request_made
    assert [i.pixels for m in read.messages for i in m.images] == [
        i.pixels for m in request_made.messages for i in m.images
    ]


@few
@given(strategies.EVENTS)
def test_a_type_tells_events_apart(event: Any) -> None:
    read = event_from_dict(through_json(event))
    assert type(read) is type(event)
    assert read == event


@more
@given(strategies.ERRORS)
def test_errors_survive_json(error: DGemmaError | GrammarError) -> None:
    read = error_from_dict(through_json(error))
    assert (type(read), str(read), vars(read)) == (type(error), str(error), vars(error))


def test_every_dataclass_of_the_api_has_a_json_form() -> None:
    kinds = [kind for kind in vars(api).values() if dataclasses.is_dataclass(kind)]
    assert len(kinds) >= 19
    assert [kind for kind in kinds if not hasattr(kind, "from_dict")] == []


def test_every_error_can_be_read() -> None:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, DGemmaError | GrammarError):
            made = kind(1, 2, 3) if kind in (ContextOverflowError, AnswerBudgetError) else kind("text")
            if isinstance(made, GrammarError):
                made.grammar = None
            assert type(error_from_dict(through_json(made))) is kind


def test_sequences_come_back_as_they_were() -> None:
    event = DraftEvent("a", 1, (0.1, 2.0))
    assert event_from_dict(through_json(event)).entropy == (0.1, 2.0)  # type: ignore[union-attr]
    answer = Answer("b", {"c": 0.2, "b": 0.5, "a": 0.3})
    assert list(Answer.from_dict(through_json(answer)).probabilities) == ["c", "b", "a"]
    question = Question("score", "How good?", {"low": "bad", "high": "good"})
    assert Question.from_dict(through_json(question)).names == ("low", "high")


def test_what_has_a_default_may_be_left_out() -> None:
    assert Request.from_dict({"prompt": "a"}) == Request("a")
    assert LoadSpec.from_dict({}) == LoadSpec()


def message(**keys: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": "a", **keys}]}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({}, "Request lacks the key 'prompt': it has prompt, params, "),
        ({"prompt": "a", "promt": 1}, "Request has no key 'promt': it has prompt, params, "),
        ([], r"Request: \[\] is not a JSON object"),
        ({"prompt": ""}, "prompt='': an empty prompt"),
        ({"prompt": []}, r"prompt=\[\]: an empty prompt"),
        ({"prompt": [-1]}, "prompt holds -1: must be"),
        ({"prompt": 5}, "prompt=5: must be a string, a list of integers or a list of Message objects"),
        ({"prompt": [1, "b"]}, r"prompt\[1\]='b': must be an integer"),
        ({"prompt": [True]}, r"prompt=\[True\]: must be"),
        ({"prompt": "a", "thinking": 1}, "thinking=1: must be true or false"),
        ({"prompt": "a", "thinking": True}, "thinking=True is asked for by the chat template"),
        ({"prompt": "a", "tools": [{}]}, "tools are declared by the chat template"),
        ({"prompt": "a", "tools": {}}, "tools={}: must be a list of objects"),
        ({"prompt": "a", "timeout": "5"}, "timeout='5': must be a finite number or null"),
        ({"prompt": "a", "timeout": 0}, "timeout=0: must be a positive number"),
        ({"prompt": "a", "timeout": 10**400}, "timeout=10+...: must be a finite number or null"),
        ({"prompt": "a", "params": {"seed": True}}, "seed=True: must be an integer or null"),
        ({"prompt": "a", "params": {"seed": -1}}, "seed=-1: must be"),
        ({"prompt": "a", "params": {"sed": 1}}, "SamplingParams has no key 'sed'"),
        ({"prompt": "a", "params": {"t_max": math.inf}}, "t_max=inf: must be a finite number"),
        ({"prompt": "a", "params": {"t_max": math.nan}}, "t_max=nan: must be a finite number"),
        ({"prompt": "a", "params": {"stop": "x"}}, "stop='x': must be a list of strings"),
        ({"prompt": "a", "params": {"stop": [""]}}, "every stop must be a non-empty string"),
        (message(role="boss"), "role='boss': must be one of system, user, assistant, tool"),
        (message(content=5), "content=5: must be a string or a list of strings or Image objects"),
        (message(content=["a", 5]), r"content\[1\]=5: must be a string or an Image object"),
        (message(name=5), "name=5: must be a string or null"),
        (message(tool_calls=[{"name": "f", "arguments": []}]), r"arguments=\[\]: must be an object"),
        (message(tool_calls=[{"name": "f", "arguments": {"x": math.nan}}]), "nan: must be a finite number"),
        (message(content="", tool_calls=[]), "all messages are empty"),
    ],
)
def test_a_request_names_what_it_refuses(data: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Request.from_dict(data)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("choice", "no JSON"),
        ("choice", "5"),
        ("choice", "[]"),
        ("choice", '["a", ""]'),
        ("json_schema", "no JSON"),
        ("json_schema", '{"type": "foo"}'),
        ("regex", ""),
        ("regex", "(?=a)b"),
        ("lark", ""),
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused(kind: str, source: str) -> None:
    with pytest.raises(GrammarError, match=f"this {kind} grammar cannot be used: ."):
        Grammar.from_dict({"kind": kind, "source": source})


def test_nesting_has_an_end() -> None:
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        ToolCall.from_dict({"name": "f", "arguments": {"x": deep}})
    with pytest.raises(ValueError, match="nested too deeply"):
        ToolCall("f", {"x": deep}).to_dict()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (ToolCall("f", {"x": {1}}), r"ToolCall.arguments\['x'\]=\{1\}: must be a JSON value"),
        (ToolCall("f", {"x": {1: 2}}), r"ToolCall.arguments\['x'\] has the key 1: JSON has only strings for keys"),
        (DraftEvent("", 1, (0.0, math.nan)), r"DraftEvent.entropy\[1\]=nan: must be a finite number"),
    ],
)
def test_what_json_has_no_form_for_is_named(value: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        value.to_dict()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"digest": "0" * 64}, "digest='0+': the image's pixels have the digest"),
        ({"pixels": "?"}, "not valid base64"),
        ({"pixels": "é"}, "not valid base64"),
        ({"pixels": base64.b64encode(b"abc").decode()}, "cannot be decompressed"),
        ({"pixels": base64.b64encode(zlib.compress(bytes(7))).decode()}, "do not hold the 6 bytes"),
        ({"pixels": base64.b64encode(zlib.compress(bytes(6))[:-1]).decode()}, "do not hold the 6 bytes"),
        ({"pixels": base64.b64encode(zlib.compress(bytes(6)) + b"x").decode()}, "do not hold the 6 bytes"),
        ({"width": 3}, "do not hold the 9 bytes"),
        ({"width": 0}, "nothing to see"),
        ({"width": 10**9}, "more than 40000000"),
        ({"width": 2.0}, "width=2.0: must be an integer"),
        ({"depth": 3}, "Image has no key 'depth': it has width, height, pixels, digest"),
    ],
)
def test_a_damaged_image_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Image.from_dict(PICTURE.to_dict() | change)


def test_a_small_image_does_not_unpack_a_huge_one() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(8_000_000))).decode()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="do not hold the 6 bytes"):
            Image.from_dict(PICTURE.to_dict() | {"pixels": bomb})
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [{}, {"type": "end"}, {"type": ["draft"]}, [], None])
def test_no_event(data: Any) -> None:
    with pytest.raises(ValueError, match="an event is one of draft, block, finished"):
        event_from_dict(data)


def test_an_event_of_another_type_is_refused() -> None:
    event = FinishedEvent(Generation("a", (1,), "stop", Usage()))
    with pytest.raises(ValueError, match="type='finished': must be one of draft"):
        DraftEvent.from_dict({"text": "", "step": 1, "entropy": []} | {"type": event.to_dict()["type"]})


@pytest.mark.parametrize("name", ["ValueError", "os.system", "GuardViolationError", "is_out_of_memory", "Any"])
def test_an_unknown_error_is_the_root_of_all(name: str) -> None:
    read = error_from_dict({"type": name, "message": "what went wrong", "detail": 1})
    assert type(read) is DGemmaError
    assert str(read) == "what went wrong"


def test_a_subclass_with_the_name_of_its_error_is_read_as_that_error() -> None:
    class ContextOverflowError(errors.ContextOverflowError):
        pass

    assert type(error_from_dict(ContextOverflowError(1, 2, 3).to_dict())) is errors.ContextOverflowError


def test_the_text_of_an_error_is_that_of_its_writer() -> None:
    written = ContextOverflowError(1, 2, 3).to_dict() | {"message": "said otherwise"}
    assert str(error_from_dict(written)) == "said otherwise"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([], "not a JSON object"),
        ({"message": "a"}, "lacks the key 'type'"),
        ({"type": "Other"}, "lacks the key 'message'"),
        ({"type": "QueueFullError"}, "QueueFullError lacks the key 'message'"),
        ({"type": "QueueFullError", "message": "", "more": 1}, "QueueFullError has no key 'more'"),
        (ContextOverflowError(1, 2, 3).to_dict() | {"context_window": "3"}, "context_window='3': must be an integer"),
        (GrammarError("").to_dict() | {"grammar": {"kind": "foo", "source": ""}}, "kind='foo': must be one of"),
    ],
)
def test_what_is_no_error_is_refused(data: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        error_from_dict(data)


def test_settings_are_not_changed_by_the_way() -> None:
    params = SamplingParams(t_max=1, seed=2**64 - 1, stop="x")
    read = SamplingParams.from_dict(through_json(params))
    assert (read.seed, read.stop, type(read.t_max)) == (2**64 - 1, ("x",), int)
    texts = Message("user", ["a", PICTURE, "b"])
    assert Message.from_dict(through_json(texts)).parts == ("a", PICTURE, "b")
