"""Hypothesis strategies for the values of ``dgemma_core.api`` and the errors of ``dgemma_core.errors``."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from dgemma_core.api import (
    Answer,
    BlockEvent,
    Calibration,
    DraftEvent,
    EngineFacts,
    EngineStats,
    FinishedEvent,
    Generation,
    Grammar,
    Hole,
    Image,
    Infilled,
    LoadSpec,
    Message,
    Question,
    Request,
    SamplingParams,
    ToolCall,
    Usage,
)
from dgemma_core.errors import (
    AnswerBudgetError,
    AnswerCutError,
    CheckpointError,
    ContextOverflowError,
    DGemmaError,
    EngineClosedError,
    EngineDeadError,
    GrammarError,
    OutOfMemoryError,
    QueueFullError,
    RequestTimeoutError,
)

Strategy = st.SearchStrategy[Any]

TEXTS = st.text(max_size=6)
WORDS = st.text("abc é'\"\\", min_size=1, max_size=4).filter(str.strip)
COUNTS = st.integers(0, 2**40)
POSITIVE = st.integers(1, 2**40)
SECONDS = st.floats(0, 1e6)
NUMBERS = st.floats(1e-3, 1e3) | st.integers(1, 9)
IDS = st.lists(st.integers(0, 300_000), max_size=4).map(tuple)
FLAGS = st.booleans()


def perhaps(strategy: Strategy) -> Strategy:
    return st.none() | strategy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=2)

GRAMMARS = st.sampled_from(
    [
        Grammar.json(),
        Grammar.json_schema({"type": "object", "properties": {"ä": {"type": "integer"}}}),
        Grammar.regex("[a-z]+ \\d"),
        Grammar.choice(["yes", "no", 'a "quote"']),
        Grammar.lark('start: "a" "b"*'),
    ]
)
SETTINGS: dict[str, Strategy] = {
    "max_new_tokens": perhaps(POSITIVE),
    "seed": perhaps(st.integers(0, 2**64 - 1)),
    "max_denoising_steps": perhaps(POSITIVE),
    "entropy_bound": perhaps(NUMBERS),
    "t_min": perhaps(st.floats(0.01, 0.5)),
    "t_max": perhaps(st.floats(0.5, 2)),
    "stability_threshold": perhaps(COUNTS),
    "confidence_threshold": perhaps(NUMBERS),
    "canvas_length": perhaps(POSITIVE),
    "stop_at_eos": FLAGS,
    "drafts": FLAGS,
}
PARAMS = st.builds(SamplingParams, stop=st.lists(WORDS, max_size=2).map(tuple), **SETTINGS) | st.builds(
    SamplingParams, grammar=GRAMMARS, **SETTINGS
)
SPECS = st.builds(
    LoadSpec,
    model=WORDS,
    revision=perhaps(TEXTS),
    device=st.sampled_from(["auto", "cpu", "cuda:1"]),
    dtype=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    quantization=st.sampled_from([None, "int8", "nf4"]),
    max_context=perhaps(POSITIVE),
    max_batch_tokens=perhaps(POSITIVE),
    max_queue=POSITIVE,
    prefix_cache_bytes=COUNTS,
)


@st.composite
def images(draw: st.DrawFn) -> Image:
    width, height = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    size = 3 * width * height
    return Image(width, height, draw(st.binary(min_size=size, max_size=size)))


CALLS = st.builds(ToolCall, name=TEXTS, arguments=OBJECTS, id=TEXTS)
CALL_TUPLES = st.lists(CALLS, max_size=2).map(tuple)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=TEXTS | st.lists(TEXTS | images(), max_size=3),
    tool_calls=CALL_TUPLES,
    tool_call_id=perhaps(TEXTS),
    name=perhaps(TEXTS),
)
COMMON: dict[str, Strategy] = {
    "params": PARAMS,
    "tool_choice": perhaps(TEXTS),
    "parallel_tool_calls": FLAGS,
    "timeout": perhaps(NUMBERS),
}
CHATS = st.lists(MESSAGES, min_size=1, max_size=2).filter(
    lambda chat: any(m.text.strip() or m.images or m.tool_calls for m in chat)
)
REQUESTS = st.builds(
    Request, prompt=st.text(min_size=1, max_size=6) | st.lists(COUNTS, min_size=1, max_size=4), **COMMON
) | st.builds(Request, prompt=CHATS, tools=st.lists(OBJECTS, max_size=2), thinking=FLAGS, **COMMON)

OPTIONS = st.lists(st.sampled_from(["a", "b", "c, d", "é"]), min_size=2, max_size=4, unique=True)
QUESTIONS = st.builds(Question, st.just("bool"), WORDS) | st.builds(
    Question,
    st.sampled_from(["choice", "score"]),
    WORDS,
    OPTIONS | OPTIONS.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, TEXTS))),
)
ANSWERS = st.builds(Answer, value=FLAGS | TEXTS, probabilities=st.dictionaries(TEXTS, st.floats(0, 1), max_size=4))
CALIBRATIONS = st.builds(Calibration, SECONDS, SECONDS, SECONDS, COUNTS)
USAGES = st.builds(Usage, *[COUNTS] * 6, *[SECONDS] * 4, COUNTS)
STATS = st.builds(EngineStats, *[COUNTS] * 18, SECONDS)
FACTS = st.builds(EngineFacts, TEXTS, POSITIVE, POSITIVE, POSITIVE, FLAGS)
HOLES = st.builds(Hole, POSITIVE, perhaps(GRAMMARS))
REASONS = st.sampled_from(["stop", "length", "cancelled", "tool_calls"])
INFILLED = st.builds(Infilled, TEXTS, st.lists(TEXTS, max_size=3), USAGES, st.lists(REASONS, max_size=3))
GENERATIONS = st.builds(
    Generation,
    text=TEXTS,
    token_ids=IDS,
    finish_reason=REASONS,
    usage=USAGES,
    tool_calls=CALL_TUPLES,
    reasoning=TEXTS,
)
EVENTS = (
    st.builds(DraftEvent, TEXTS, POSITIVE, st.lists(SECONDS, max_size=4).map(tuple))
    | st.builds(BlockEvent, TEXTS, IDS, COUNTS, TEXTS, CALL_TUPLES)
    | st.builds(FinishedEvent, GENERATIONS)
)
VALUES: dict[str, Strategy] = {
    "Request": REQUESTS,
    "SamplingParams": PARAMS,
    "LoadSpec": SPECS,
    "Message": MESSAGES,
    "ToolCall": CALLS,
    "Image": images(),
    "Grammar": GRAMMARS,
    "Question": QUESTIONS,
    "Answer": ANSWERS,
    "Hole": HOLES,
    "Infilled": INFILLED,
    "Calibration": CALIBRATIONS,
    "Usage": USAGES,
    "EngineStats": STATS,
    "EngineFacts": FACTS,
    "Generation": GENERATIONS,
    "Event": EVENTS,
}


def refused_grammar() -> GrammarError:
    try:
        Grammar.json_schema({"type": "foo"})
    except GrammarError as error:
        return error
    raise AssertionError("a schema with an unknown type is refused")


PLAIN = [
    DGemmaError,
    QueueFullError,
    RequestTimeoutError,
    OutOfMemoryError,
    EngineClosedError,
    EngineDeadError,
    CheckpointError,
]
ERRORS = (
    st.builds(lambda kind, text: kind(text), st.sampled_from(PLAIN), TEXTS)
    | st.builds(ContextOverflowError, COUNTS, POSITIVE, POSITIVE)
    | st.builds(GrammarError, TEXTS, perhaps(GRAMMARS))
    | st.builds(refused_grammar)
    | st.builds(AnswerBudgetError, perhaps(COUNTS), POSITIVE, perhaps(GRAMMARS))
    | st.builds(AnswerCutError, TEXTS, TEXTS)
)
