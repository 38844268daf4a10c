"""Routing by decisions. The embedded weights' choices are not asserted, only what holds for any weights."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.retrievers import RouterRetriever
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata

from dgemma_core import Calibration, Engine, LoadSpec, Question
from dgemma_core.errors import ContextOverflowError
from dgemma_integrations.llama_index import DiffusionGemma, DiffusionGemmaSelector
from dgemma_integrations.llama_index.choices import named_choices, options_of

QUERY = "When was the Vexal bridge built?"
CHOICES = [
    ToolMetadata(name="bridges", description="questions about bridges"),
    ToolMetadata(name="museums", description="questions about museums"),
    ToolMetadata(name="bakeries", description="questions about bakeries"),
]


def many(count: int, words: int = 1) -> list[ToolMetadata]:
    return [ToolMetadata(name=f"tool{i}", description=f"topic{i} " * words) for i in range(count)]


def stated(reason: str) -> float:
    """The probability a reason states."""
    found = re.search(r"probability (\d\.\d+)", reason)
    assert found, reason
    return float(found.group(1))


async def test_single_is_the_likeliest_option_of_one_question(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    options = {choice.name: choice.description for choice in CHOICES}
    answers = embedded_engine.decide(
        QUERY, {"q": Question("choice", "Which option fits the request?", options)}, seed=llm.seed
    )
    before = embedded_engine.stats()
    result = DiffusionGemmaSelector(llm).select(CHOICES, QUERY)
    after = embedded_engine.stats()
    assert CHOICES[result.ind].name == answers["q"].value
    assert stated(result.reason) == pytest.approx(answers["q"].confidence, abs=1e-3)
    assert after.submitted - before.submitted == 1
    assert await DiffusionGemmaSelector.from_defaults(llm=llm).aselect(CHOICES, QUERY) == result


async def test_multi_reads_every_choice_in_one_step(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    selector = DiffusionGemmaSelector.from_defaults(llm, multi=True, threshold=0.0)
    before = embedded_engine.stats()
    result = selector.select(CHOICES, QUERY)
    assert embedded_engine.stats().forward_passes - before.forward_passes == 1
    assert sorted(result.inds) == [0, 1, 2]
    probabilities = [stated(reason) for reason in result.reasons]
    assert probabilities == sorted(probabilities, reverse=True)
    assert await selector.aselect(CHOICES, QUERY) == result

    middle = (probabilities[0] + probabilities[1]) / 2
    likely = DiffusionGemmaSelector(llm, multi=True, threshold=middle).select(CHOICES, QUERY)
    assert likely.inds == result.inds[:1]
    two = DiffusionGemmaSelector(llm, multi=True, threshold=0.0, max_outputs=2).select(CHOICES, QUERY)
    assert two.inds == result.inds[:2]
    none = DiffusionGemmaSelector(llm, multi=True, threshold=1.0).select(CHOICES, QUERY)
    assert none.inds == result.inds[:1]
    assert "below the threshold 1.0" in none.reason


@pytest.mark.parametrize("count", [26, 27, 60])
def test_more_choices_than_one_question_holds(llm: DiffusionGemma, embedded_engine: Engine, count: int) -> None:
    before = embedded_engine.stats()
    single = DiffusionGemmaSelector(llm).select(many(count), QUERY)
    asked = embedded_engine.stats().submitted - before.submitted
    assert 0 <= single.ind < count
    # Groups, then their winners.
    assert asked == {26: 1, 27: 3, 60: 4}[count]
    multi = DiffusionGemmaSelector(llm, multi=True, threshold=0.0).select(many(count), QUERY)
    assert sorted(multi.inds) == list(range(count))


def test_the_final_question_decides_between_groups(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    choices = [ToolMetadata(name=f"tool{n:02}", description=f"questions about {n}") for n in range(30)]
    options = [{c.name: c.description.strip() for c in group} for group in (choices[:15], choices[15:])]

    def ask(given: dict[str, str]) -> Any:
        question = Question("choice", "Which option fits the request?", given)
        return embedded_engine.decide(QUERY, {"q": question}, seed=llm.seed)["q"]

    winners = [ask(group).value for group in options]
    final = ask({name: (options[0] | options[1])[name] for name in winners})
    result = DiffusionGemmaSelector(llm).select(choices, QUERY)
    assert choices[result.ind].name == final.value


def test_descriptions_longer_than_the_window_go_into_groups() -> None:
    with Engine(LoadSpec(max_context=400)) as engine:
        llm = DiffusionGemma(engine=engine, seed=1)
        choices = many(12, words=20)
        assert 0 <= DiffusionGemmaSelector(llm).select(choices, QUERY).ind < 12
        multi = DiffusionGemmaSelector(llm, multi=True, threshold=0.0).select(choices, QUERY)
        assert sorted(multi.inds) == list(range(12))
        for selector in (DiffusionGemmaSelector(llm), DiffusionGemmaSelector(llm, multi=True)):
            with pytest.raises(ContextOverflowError, match="400") as caught:
                selector.select(many(3, words=200), QUERY)
            assert any("description" in note for note in caught.value.__notes__)


def test_names_that_tell_nothing_apart_become_letters() -> None:
    twins = named_choices([ToolMetadata(name="search", description=text) for text in ("bridges", "museums")])
    assert options_of(twins) == {"A": "search: bridges", "B": "search (2): museums"}
    long = [
        ToolMetadata(name=None, description=text) for text in ("bridges and all else that crosses a river", "mills")
    ]
    assert list(options_of(named_choices(long))) == ["A", "B"]
    assert options_of(named_choices(CHOICES)) == {choice.name: choice.description for choice in CHOICES}


def test_plain_strings_single_choices_and_equal_names(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    selector = DiffusionGemmaSelector(llm)
    assert selector.select(["about bridges", "about\nmuseums"], QUERY).ind in (0, 1)
    twins = [ToolMetadata(name="search", description=text) for text in ("bridges", "museums", "bakeries")]
    assert selector.select(twins, QUERY).ind in (0, 1, 2)
    assert selector.select(["same", "same", "same (2)"], QUERY).ind in (0, 1, 2)
    before = embedded_engine.stats().submitted
    only = selector.select(["one"], QUERY)
    assert (only.ind, only.reason) == (0, "'one' is the only choice")
    assert embedded_engine.stats().submitted == before
    assert DiffusionGemmaSelector(llm, multi=True).select(["one"], QUERY).ind == 0


async def test_bad_input_isnamed_choices(llm: DiffusionGemma) -> None:
    selector = DiffusionGemmaSelector(llm)
    with pytest.raises(ValueError, match=r"choices=\[\]"):
        selector.select([], QUERY)
    with pytest.raises(ValueError, match=r"choices\[1\]"):
        await selector.aselect(["one", " "], QUERY)
    with pytest.raises(ValueError, match="query=' '"):
        selector.select(CHOICES, " ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multi": 1}, "multi=1"),
        ({"max_outputs": 0}, "max_outputs=0"),
        ({"max_outputs": True}, "max_outputs=True"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"draws": 0}, "draws=0"),
        ({"calibration": 2.0}, "calibration=2.0"),
        ({"multi": True, "question": "Is it useful?"}, r"\{choice\}"),
        ({"question": 3}, "question=3"),
    ],
)
def test_bad_settings_arenamed_choices(llm: DiffusionGemma, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionGemmaSelector(llm, **settings)


@pytest.fixture
def no_settings_llm() -> Iterator[None]:
    before = Settings._llm
    Settings._llm = None
    yield
    Settings._llm = before


@pytest.mark.usefixtures("no_settings_llm")
def test_the_llm_of_the_settings(llm: DiffusionGemma) -> None:
    with pytest.raises(ValueError, match=r"set Settings\.llm"):
        DiffusionGemmaSelector()
    with pytest.raises(ValueError, match="llm=MockLLM"):
        DiffusionGemmaSelector(MockLLM())  # type: ignore[arg-type]
    Settings.llm = llm
    assert DiffusionGemmaSelector().select(CHOICES, QUERY).ind in (0, 1, 2)


def test_prompts_can_be_read_and_replaced(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    selector = DiffusionGemmaSelector(llm, multi=True, threshold=0.0)
    assert set(selector.get_prompts()) == {"prompt"}
    selector.update_prompts({"prompt": PromptTemplate("Is this about {choice}, given {query_str}?")})
    result = selector.select(["bridges"], QUERY)
    question = Question("bool", f"Is this about bridges, given {QUERY}?")
    answer = embedded_engine.decide(QUERY, {"q": question}, seed=llm.seed)["q"]
    assert stated(result.reason) == pytest.approx(answer.probabilities["yes"], abs=1e-3)
    with pytest.raises(ValueError, match="choice"):
        selector.update_prompts({"prompt": PromptTemplate("Is it?")})


def test_a_calibration_changes_the_probability_not_the_choice(llm: DiffusionGemma) -> None:
    plain = DiffusionGemmaSelector(llm).select(CHOICES, QUERY)
    soft = DiffusionGemmaSelector(llm, calibration=Calibration(10.0, 0.0, 0.0, 1)).select(CHOICES, QUERY)
    assert soft.ind == plain.ind
    assert 1 / 3 <= stated(soft.reason) < stated(plain.reason)


def test_making_one_loads_nothing_and_it_can_be_pickled(tmp_path: Any) -> None:
    llm = DiffusionGemma(model=str(tmp_path / "nowhere"))
    selector = DiffusionGemmaSelector(llm, multi=True, threshold=0.25, question="About {choice}?")
    copy = pickle.loads(pickle.dumps(selector))
    assert copy._llm.model == llm.model
    assert (copy._threshold, copy._multi) == (0.25, True)
    assert copy.get_prompts() == selector.get_prompts()


@pytest.fixture
def tools(quick_llm: DiffusionGemma, retriever: Callable[..., Any]) -> list[QueryEngineTool]:
    return [
        QueryEngineTool(
            RetrieverQueryEngine.from_args(retriever(f"Passage about {choice.name}."), llm=quick_llm), metadata=choice
        )
        for choice in CHOICES
    ]


async def test_router_query_engine(quick_llm: DiffusionGemma, tools: list[QueryEngineTool]) -> None:
    router = RouterQueryEngine(DiffusionGemmaSelector(quick_llm), tools, llm=quick_llm)
    response = router.query(QUERY)
    selected = response.metadata["selector_result"]
    assert response.source_nodes[0].text == f"Passage about {CHOICES[selected.ind].name}."
    assert str(await router.aquery(QUERY)) == str(response)
    assert "selector:prompt" in router.get_prompts()


async def test_router_query_engine_asks_several(quick_llm: DiffusionGemma, tools: list[QueryEngineTool]) -> None:
    selector = DiffusionGemmaSelector(quick_llm, multi=True, threshold=0.0)
    router = RouterQueryEngine(selector, tools, llm=quick_llm)
    response = router.query(QUERY)
    assert sorted(response.metadata["selector_result"].inds) == [0, 1, 2]
    assert len(response.source_nodes) == 3
    assert str(await router.aquery(QUERY)) == str(response)


@pytest.mark.parametrize("multi", [False, True])
async def test_router_retriever(quick_llm: DiffusionGemma, retriever: Callable[..., Any], multi: bool) -> None:
    tools = [RetrieverTool(retriever(f"Passage about {c.name}."), metadata=c) for c in CHOICES]
    for tool in tools:  # The router keeps one passage of each id.
        tool.retriever._nodes[0].id_ = tool.metadata.name
    selector = DiffusionGemmaSelector(quick_llm, multi=multi, threshold=0.0)
    router = RouterRetriever(selector, tools, llm=quick_llm)
    found = router.retrieve(QUERY)
    assert len(found) == (3 if multi else 1)
    assert found[0].text.startswith("Passage about")
    assert [node.text for node in await router.aretrieve(QUERY)] == [node.text for node in found]


async def test_a_tokenizer_may_split_the_labels(tiny_engine: Engine) -> None:
    selector = DiffusionGemmaSelector(DiffusionGemma(engine=tiny_engine))
    assert (await selector.aselect(CHOICES, QUERY)).ind in range(len(CHOICES))


async def test_a_cancelled_selection_leaves_nothing_behind(
    llm: DiffusionGemma, embedded_engine: Engine, until: Any
) -> None:
    selector = DiffusionGemmaSelector(llm, draws=1000)
    before = embedded_engine.stats()
    task = asyncio.create_task(selector.aselect(many(60), QUERY))
    await until(lambda: embedded_engine.stats().running >= 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: embedded_engine.stats().running == 0)
    assert embedded_engine.stats().cancelled == before.cancelled + 3


async def test_concurrent_selections_share_a_step(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    selector = DiffusionGemmaSelector(llm)
    queries = [f"{QUERY} Number {i}." for i in range(6)]
    together = await asyncio.gather(*(selector.aselect(CHOICES, query) for query in queries))
    assert together == [selector.select(CHOICES, query) for query in queries]
    assert embedded_engine.stats().max_batch > 1
