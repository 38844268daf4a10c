"""Decisions as a LangChain runnable. Random weights decide anything; what holds for any weights is tested."""

from __future__ import annotations

import asyncio
import enum
import pickle
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

import pytest
import typing_extensions
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel, Field

from dgemma_core import Calibration, Engine, LoadSpec, Question
from dgemma_core.api.questions import Answer
from dgemma_core.errors import ContextOverflowError
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier

CONTEXT = "The Halur bridge was built in 1907. The owner of the Halur bridge is Kira Vonel."


class Owner(enum.Enum):
    MIRA = "Mira Tanu"
    KIRA = "Kira Vonel"


class Quality(enum.IntEnum):
    FINE = 3
    BAD = 1
    FAIR = 2


class Review(BaseModel):
    old: bool = Field(description="Was it built before 1950?")
    kind: Literal["bridge", "tower"] = Field(description="What is it?", alias="sort")
    owner: Owner = Field(description="Who owns it?")
    quality: Quality = Field(description="How good is the text?")


class Short(TypedDict):
    old: Annotated[bool, ..., "Was it built before 1950?"]
    kind: Annotated[Literal["bridge", "tower"], "What is it?"]


BY_NAME = {
    "old": Question("bool", "Was it built before 1950?"),
    "kind": Question("choice", "What is it?", ["bridge", "tower"]),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(LoadSpec(device="cpu")) as engine:
        yield engine


@pytest.fixture
def review(engine: Engine) -> DiffusionGemmaClassifier:
    return DiffusionGemmaClassifier(questions=Review, engine=engine)


@pytest.fixture
def short(engine: Engine) -> DiffusionGemmaClassifier:
    return DiffusionGemmaClassifier(questions=Short, engine=engine)


async def test_objects_of_the_schema(engine: Engine, review: DiffusionGemmaClassifier) -> None:
    answer = review.invoke(CONTEXT)
    assert isinstance(answer, Review)
    assert (type(answer.old), type(answer.owner), type(answer.quality)) == (bool, Owner, Quality)
    assert await review.ainvoke(CONTEXT) == answer
    asked = engine.decide(
        CONTEXT,
        {
            "old": Question("bool", "Was it built before 1950?"),
            "kind": Question("choice", "What is it?", ["bridge", "tower"]),
            "owner": Question("choice", "Who owns it?", ["Mira Tanu", "Kira Vonel"]),
            "quality": Question("score", "How good is the text?", ["1", "2", "3"]),
        },
    )
    assert (answer.old, answer.kind) == (asked["old"].value, asked["kind"].value)
    assert (answer.owner.value, str(answer.quality.value)) == (asked["owner"].value, asked["quality"].value)


def test_dicts_for_typed_dicts_and_questions(engine: Engine, short: DiffusionGemmaClassifier) -> None:
    answer = short.invoke(CONTEXT)
    assert isinstance(answer["old"], bool)
    assert answer["kind"] in ("bridge", "tower")
    assert DiffusionGemmaClassifier(questions=BY_NAME, engine=engine).invoke(CONTEXT) == answer


async def test_probabilities(engine: Engine, short: DiffusionGemmaClassifier) -> None:
    both = short.invoke(CONTEXT, include_probabilities=True)
    assert both["value"] == short.invoke(CONTEXT)
    answers = short.decide(CONTEXT)
    assert both["answers"] == answers == await short.adecide(CONTEXT) == engine.decide(CONTEXT, BY_NAME)
    for answer in answers.values():
        assert isinstance(answer, Answer)
        assert sum(answer.probabilities.values()) == pytest.approx(1)
    flat = Calibration(temperature=20.0, error_before=0.1, error_after=0.0, examples=1)
    softened = short.bind(calibration=flat, include_probabilities=True).invoke(CONTEXT)["answers"]
    assert all(softened[name].confidence < answer.confidence for name, answer in answers.items())
    several = DiffusionGemmaClassifier(questions=BY_NAME, engine=engine, draws=3)
    assert several.decide(CONTEXT) == engine.decide(CONTEXT, BY_NAME, draws=3) != answers


def test_thresholds(short: DiffusionGemmaClassifier) -> None:
    yes = short.decide(CONTEXT)["old"].probabilities["yes"]
    assert short.invoke(CONTEXT, threshold=yes)["old"] is True
    assert short.invoke(CONTEXT, threshold=min(1.0, yes + 1e-6))["old"] is False
    assert short.invoke(CONTEXT, threshold={"old": 0.0})["old"] is True


async def test_every_form_of_input(short: DiffusionGemmaClassifier) -> None:
    as_text = short.decide(CONTEXT)
    for given in (
        HumanMessage(CONTEXT),
        AIMessage(CONTEXT),
        PromptTemplate.from_template("{c}").invoke({"c": CONTEXT}),
    ):
        assert short.decide(given) == as_text
    as_messages = short.decide([HumanMessage(CONTEXT)])
    assert short.decide([("human", CONTEXT)]) == as_messages == as_text
    assert short.decide(ChatPromptTemplate([("human", "{c}")]).invoke({"c": CONTEXT})) == as_messages
    assert set(short.decide([SystemMessage("Be strict."), HumanMessage("Hello"), AIMessage(CONTEXT)])) == {
        "old",
        "kind",
    }
    with pytest.raises(ValueError, match="type int"):
        short.invoke(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to decide"):
        await short.ainvoke(" ")


async def test_chains_and_batches(engine: Engine, short: DiffusionGemmaClassifier) -> None:
    chain = PromptTemplate.from_template("{place} was built in 1907.") | short
    places = [{"place": f"Tower {number}"} for number in range(8)]
    answers = chain.batch(places, {"max_concurrency": 8})
    steps, passes = engine.stats().denoising_steps, engine.stats().forward_passes
    assert await chain.abatch(places) == answers == [chain.invoke(place) for place in places]
    assert engine.stats().max_batch > 1
    assert engine.stats().denoising_steps - steps == 2 * len(places)
    assert engine.stats().forward_passes - passes < 2 * len(places)
    chat = ChatDiffusionGemma(engine=engine, max_tokens=16, temperature=0)
    assert set((chat | short).invoke(f"{CONTEXT}\n\nWhen was the Halur bridge built?")) == {"old", "kind"}


class Runs(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, name: str | None = None, **kwargs: Any) -> None:
        self.seen.append((name, inputs, kwargs["tags"]))

    def on_chain_end(self, outputs: Any, **_: Any) -> None:
        self.seen.append(outputs)

    def on_chain_error(self, error: BaseException, **_: Any) -> None:
        self.seen.append(type(error))


async def test_names_tags_and_callbacks(short: DiffusionGemmaClassifier) -> None:
    runs = Runs()
    answer = await short.ainvoke(CONTEXT, {"callbacks": [runs], "run_name": "look", "tags": ["a"]})
    assert runs.seen == [("look", CONTEXT, ["a"]), answer]
    runs = Runs()
    short.invoke(CONTEXT, {"callbacks": [runs]})
    assert runs.seen[0][0] == "DiffusionGemmaClassifier"
    runs = Runs()
    with pytest.raises(ContextOverflowError):
        short.invoke("fox " * 20_000, {"callbacks": [runs]})
    assert issubclass(runs.seen[1], ContextOverflowError)
    kinds = [event["event"] async for event in short.astream_events(CONTEXT, version="v2")]
    assert (kinds[0], kinds[-1]) == ("on_chain_start", "on_chain_end")


def test_fallbacks_retries_and_configurable_fields(engine: Engine, short: DiffusionGemmaClassifier) -> None:
    answer = short.invoke(CONTEXT)
    missing = DiffusionGemmaClassifier(questions=Short, model="no/such-model")
    assert missing.with_fallbacks([short]).invoke(CONTEXT) == answer
    assert short.with_retry(stop_after_attempt=2).invoke(CONTEXT) == answer
    configurable = short.configurable_fields(threshold=ConfigurableField(id="threshold"))
    sure = configurable.invoke(CONTEXT, {"configurable": {"threshold": 0.0}})
    assert sure["old"] is True


def test_copies(engine: Engine, review: DiffusionGemmaClassifier) -> None:
    loaded = pickle.loads(pickle.dumps(review))
    assert loaded.engine is None
    assert loaded.questions is Review
    assert "questions" in repr(review)
    assert "Engine(" not in repr(review)
    assert review.model_copy(update={"draws": 2}).draws == 2


async def test_a_cancelled_task_leaves_nothing_behind(short: DiffusionGemmaClassifier, engine: Engine) -> None:
    task = asyncio.create_task(short.abatch([f"{CONTEXT} {number}" for number in range(20)]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    short.invoke(CONTEXT)
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)


class NoWords(BaseModel):
    old: bool


class Text(BaseModel):
    name: str = Field(description="What is its name?")


class Mixed(BaseModel):
    kind: Literal["a", 1] = Field(description="What?")


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"questions": NoWords}, r"NoWords\.old: needs a description"),
        ({"questions": Text}, r"Text\.name is of type <class 'str'>.*with_structured_output"),
        ({"questions": Mixed}, r"Mixed\.kind has the options \['a', 1\]"),
        ({"questions": {}}, "at least one"),
        ({"questions": {"a": "b"}}, r"questions\['a'\]='b'"),
        ({"questions": 3}, "questions=3"),
        ({"questions": BY_NAME, "threshold": 2}, "threshold=2.0 for 'old'"),
        ({"questions": BY_NAME, "threshold": {"kind": 0.5}}, "threshold for 'kind'"),
        ({"questions": {"kind": BY_NAME["kind"]}, "threshold": 0.5}, "no question of type bool"),
        ({"questions": BY_NAME, "draws": 0}, "draws=0"),
        ({"questions": BY_NAME, "timeout": 0}, "timeout=0"),
        ({"questions": BY_NAME, "calibration": 1}, "calibration=1"),
        ({"questions": BY_NAME, "drws": 2}, r"'drws' \(did you mean 'draws'\?\)"),
        ({"questions": BY_NAME, "device": 3.5, "dtype": "int8"}, "dtype='int8'"),
    ],
)
def test_bad_settings_are_refused_by_name(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffusionGemmaClassifier(**keywords)


def test_bad_call_settings(short: DiffusionGemmaClassifier) -> None:
    with pytest.raises(ValueError, match=r"'treshold' \(did you mean 'threshold'\?\)"):
        short.invoke(CONTEXT, treshold=0.5)
    with pytest.raises(ValueError, match="draws=0"):
        short.bind(draws=0).invoke(CONTEXT)


def test_typed_dicts_of_typing_extensions(engine: Engine) -> None:
    class Short(typing_extensions.TypedDict):
        fox: typing_extensions.Required[Annotated[bool, "Is this about a fox?"]]

    assert set(DiffusionGemmaClassifier(engine=engine, questions=Short).invoke("A dog.")) == {"fox"}
