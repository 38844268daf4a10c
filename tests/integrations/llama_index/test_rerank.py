"""Reranking by decisions. The embedded weights' taste is not asserted, only what holds for any weights."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from dgemma_core import Calibration, Engine, LoadSpec, Question
from dgemma_core.errors import ContextOverflowError
from dgemma_integrations.llama_index import RELEVANCE_LEVELS, DiffusionGemma, DiffusionGemmaRerank

QUERY = "When was the Vexal bridge built?"


TEXTS = (
    "The Vexal bridge was built in 1931. It crosses the river Toln.",
    "The Mirdo museum opened in 1978. Its director is Hanna Virel.",
    "The Quandel bakery sells rye bread. It is open on Sundays.",
    "The Orvin tower is 212 metres tall. It stands in the city of Kerl.",
    "The Halur bridge was built in 1907. The owner of the Halur bridge is Kira Vonel.",
)


def nodes(*texts: str) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"node-{i}"), score=0.5 - i / 100)
        for i, text in enumerate(texts or TEXTS)
    ]


def ids(ranked: list[NodeWithScore]) -> list[str]:
    return [node.node_id for node in ranked]


async def test_the_score_is_the_probability_of_yes(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    expected = {}
    for i, text in enumerate(TEXTS):
        question = Question("bool", f"Does the text answer this question: {QUERY}")
        expected[f"node-{i}"] = embedded_engine.decide(text, {"q": question}, seed=llm.seed)["q"].probabilities["yes"]
    rerank = DiffusionGemmaRerank(llm=llm, top_n=3)
    ranked = rerank.postprocess_nodes(nodes(), query_str=QUERY)
    assert ids(ranked) == sorted(expected, key=lambda name: -expected[name])[:3]
    assert [node.score for node in ranked] == pytest.approx([expected[name] for name in ids(ranked)], abs=1e-5)
    assert await rerank.apostprocess_nodes(nodes(), QueryBundle(QUERY)) == ranked


def test_levels_score_by_the_expected_level(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    question = Question("score", f"Does the text answer this question: {QUERY}", RELEVANCE_LEVELS)
    expected = embedded_engine.decide(TEXTS[0], {"q": question}, seed=llm.seed)["q"].level / 2
    rerank = DiffusionGemmaRerank(llm=llm, levels=RELEVANCE_LEVELS)
    (node,) = rerank.postprocess_nodes(nodes(TEXTS[0]), query_str=QUERY)
    assert node.score == pytest.approx(expected, abs=1e-5)
    assert 0 <= node.score <= 1
    by_name = DiffusionGemmaRerank(llm=llm, levels=["no", "yes"])  # type: ignore[arg-type]
    assert by_name.levels == {"no": "", "yes": ""}
    assert len(by_name.postprocess_nodes(nodes(), query_str=QUERY)) == 5


async def test_all_nodes_share_steps(llm: DiffusionGemma) -> None:
    many = nodes(*(f"Passage {i} is about subject {i}." for i in range(12)))
    for blocking in (True, False):
        with Engine(LoadSpec()) as engine:
            rerank = DiffusionGemmaRerank(llm=DiffusionGemma(engine=engine, seed=1), top_n=12)
            if blocking:
                rerank.postprocess_nodes(many, query_str=QUERY)
            else:
                await rerank.apostprocess_nodes(many, query_str=QUERY)
            stats = engine.stats()
            assert (stats.submitted, stats.finished) == (12, 12)
            assert stats.max_batch > 1


def test_a_node_judged_again_reuses_its_prefix(llm: DiffusionGemma) -> None:
    with Engine(LoadSpec()) as engine:
        rerank = DiffusionGemmaRerank(llm=DiffusionGemma(engine=engine, seed=1))
        rerank.postprocess_nodes(nodes(), query_str=QUERY)
        before = engine.stats()
        rerank.postprocess_nodes(nodes(), query_str="Who is the director of the Mirdo museum?")
        after = engine.stats()
        cached = after.prefix_tokens - before.prefix_tokens
        texts = sum(len(engine.encode_text(text)) for text in TEXTS)
        assert cached >= texts - 2 * len(TEXTS)


def test_ties_keep_their_order_and_the_threshold_cuts(llm: DiffusionGemma) -> None:
    same = nodes(*["The Vexal bridge was built in 1931."] * 4)
    ranked = DiffusionGemmaRerank(llm=llm, top_n=4).postprocess_nodes(same, query_str=QUERY)
    assert ids(ranked) == ["node-0", "node-1", "node-2", "node-3"]
    assert len({node.score for node in ranked}) == 1
    every = DiffusionGemmaRerank(llm=llm, top_n=5).postprocess_nodes(nodes(), query_str=QUERY)
    middle = (every[1].score + every[2].score) / 2
    cut = DiffusionGemmaRerank(llm=llm, threshold=middle).postprocess_nodes(nodes(), query_str=QUERY)
    assert ids(cut) == ids(every)[:2]
    assert DiffusionGemmaRerank(llm=llm, threshold=1.0).postprocess_nodes(nodes(), query_str=QUERY) == []


@pytest.mark.parametrize("keep", [True, False])
def test_given_nodes_stay_as_they_were(llm: DiffusionGemma, keep: bool) -> None:
    given = nodes()
    before = copy.deepcopy(given)
    ranked = DiffusionGemmaRerank(llm=llm, keep_retrieval_score=keep).postprocess_nodes(given, query_str=QUERY)
    assert given == before
    scores = {node.node_id: node.score for node in before}
    for node in ranked:
        assert node.metadata == ({"retrieval_score": scores[node.node_id]} if keep else {})
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert node.node.get_content(mode) == node.text
    again = DiffusionGemmaRerank(llm=llm, keep_retrieval_score=keep).postprocess_nodes(ranked, query_str=QUERY)
    assert [node.score for node in again] == [node.score for node in ranked]


async def test_what_is_missing_is_named(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    rerank = DiffusionGemmaRerank(llm=llm)
    before = embedded_engine.stats().submitted
    with pytest.raises(ValueError, match="Query bundle must be provided"):
        rerank.postprocess_nodes(nodes())
    with pytest.raises(ValueError, match="Query bundle must be provided"):
        await rerank.apostprocess_nodes([])
    with pytest.raises(ValueError, match="query_str=' '"):
        await rerank.apostprocess_nodes(nodes(), query_str=" ")
    assert rerank.postprocess_nodes([], query_str=QUERY) == []
    assert await rerank.apostprocess_nodes([], query_str=QUERY) == []
    assert embedded_engine.stats().submitted == before
    (empty,) = rerank.postprocess_nodes(nodes(""), query_str=QUERY)
    assert empty.score == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_n": 0}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"threshold": -0.1}, "threshold=-0.1"),
        ({"question": "Is it relevant?"}, r"\{query_str\}"),
        ({"levels": ["one"]}, "one"),
        ({"long_text": "drop"}, "long_text='drop'"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"draws": 1.5}, "draws=1.5"),
        ({"calibration": 1.0}, "calibration=1.0"),
        ({"topn": 3}, "did you mean 'top_n'"),
        ({"llm": MockLLM()}, "llm=MockLLM"),
    ],
)
def test_bad_settings_are_named(llm: DiffusionGemma, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionGemmaRerank(**{"llm": llm, **settings})


async def test_long_nodes(small_engine: Engine) -> None:
    llm = DiffusionGemma(engine=small_engine, seed=1)
    long = "word " * 120 + TEXTS[0] + " word" * 120
    with pytest.raises(ContextOverflowError) as caught:
        DiffusionGemmaRerank(llm=llm, long_text="error").postprocess_nodes(nodes(long), query_str=QUERY)
    assert "long_text='truncate'" in caught.value.__notes__[0]

    before = small_engine.stats().submitted
    (cut,) = DiffusionGemmaRerank(llm=llm).postprocess_nodes(nodes(long), query_str=QUERY)
    assert small_engine.stats().submitted - before == 1
    before = small_engine.stats().submitted
    rerank = DiffusionGemmaRerank(llm=llm, long_text="split")
    (best,) = await rerank.apostprocess_nodes(nodes(long), query_str=QUERY)
    assert small_engine.stats().submitted - before > 1
    # The best part is at least as good as the first one.
    assert best.score >= cut.score
    # A text without a blank can be cut, too, and the node itself stays whole.
    (solid,) = DiffusionGemmaRerank(llm=llm).postprocess_nodes(nodes("abcdefgh" * 300), query_str=QUERY)
    assert solid.text == "abcdefgh" * 300

    with pytest.raises(ContextOverflowError) as caught:
        DiffusionGemmaRerank(llm=llm).postprocess_nodes(nodes(long), query_str="why " * 300)
    assert "shorten them" in caught.value.__notes__[0]


async def test_more_nodes_than_the_queue_holds(small_engine: Engine) -> None:
    llm = DiffusionGemma(engine=small_engine, seed=1)
    many = nodes(*(f"Passage {i} is about subject {i}." for i in range(9)))
    ranked = DiffusionGemmaRerank(llm=llm, top_n=9).postprocess_nodes(many, query_str=QUERY)
    assert len(ranked) == 9
    one_by_one = DiffusionGemmaRerank(llm=llm, top_n=9, max_concurrency=1)
    assert await one_by_one.apostprocess_nodes(many, query_str=QUERY) == ranked


async def test_a_cancelled_reranking_leaves_nothing_behind(
    llm: DiffusionGemma, embedded_engine: Engine, until: Any
) -> None:
    rerank = DiffusionGemmaRerank(llm=llm, draws=1000)
    before = embedded_engine.stats()
    task = asyncio.create_task(rerank.apostprocess_nodes(nodes(), query_str=QUERY))
    await until(lambda: embedded_engine.stats().running >= 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: embedded_engine.stats().running == 0)
    assert embedded_engine.stats().cancelled == before.cancelled + 5


async def test_events(llm: DiffusionGemma, events: Any) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = DiffusionGemmaRerank(llm=llm, top_n=2)
    rerank.callback_manager = CallbackManager([debug])
    rerank.postprocess_nodes(nodes(), query_str=QUERY)
    await rerank.apostprocess_nodes(nodes(), query_str=QUERY)
    rerank.postprocess_nodes([], query_str=QUERY)
    assert [events.count("ReRankStartEvent"), events.count("ReRankEndEvent")] == [2, 2]
    (start, end), _ = debug.get_event_pairs(CBEventType.RERANKING)
    assert (start.payload["top_k"], start.payload["model_name"]) == (2, "embedded")
    assert len(end.payload["nodes"]) == 2


def test_in_a_query_engine(quick_llm: DiffusionGemma, retriever: Callable[..., Any]) -> None:
    rerank = DiffusionGemmaRerank(llm=quick_llm, top_n=1)
    engine = RetrieverQueryEngine.from_args(retriever(*TEXTS, top_k=4), llm=quick_llm, node_postprocessors=[rerank])
    response = engine.query(QUERY)
    assert len(response.source_nodes) == 1
    assert "retrieval_score" in response.source_nodes[0].metadata


def test_metadata_belongs_to_the_text(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    node = TextNode(text=TEXTS[0], metadata={"kind": "bridge", "path": "x"}, excluded_llm_metadata_keys=["path"])
    question = Question("bool", f"Does the text answer this question: {QUERY}")
    for mode, text in ((MetadataMode.LLM, f"kind: bridge\n\n{TEXTS[0]}"), (MetadataMode.NONE, TEXTS[0])):
        rerank = DiffusionGemmaRerank(llm=llm, metadata_mode=mode)
        (ranked,) = rerank.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
        expected = embedded_engine.decide(text, {"q": question}, seed=llm.seed)["q"].probabilities["yes"]
        assert ranked.score == pytest.approx(expected, abs=1e-5)


def test_stored_and_restored(tmp_path: Any) -> None:
    # Nothing of this reads the checkpoint, which is not there.
    llm = DiffusionGemma(model=str(tmp_path / "nowhere"), seed=3)
    rerank = DiffusionGemmaRerank(
        llm=llm,
        top_n=2,
        threshold=0.25,
        levels=RELEVANCE_LEVELS,
        question="Relevant to {query_str}?",
        calibration=Calibration(2.0, 0.3, 0.1, 10),
    )
    assert rerank.class_name() == rerank.to_dict()["class_name"] == "DiffusionGemmaRerank"
    restored = DiffusionGemmaRerank.from_dict(json.loads(rerank.to_json()))
    copies = [restored, pickle.loads(pickle.dumps(rerank)), copy.deepcopy(rerank)]
    for other in copies:
        assert other.to_dict() == rerank.to_dict()
        assert other.calibration == rerank.calibration
        assert (other.llm.model, other.llm.seed) == (llm.model, 3)
    assert rerank.llm is llm


def test_prompts_can_be_read_and_replaced(llm: DiffusionGemma) -> None:
    rerank = DiffusionGemmaRerank(llm=llm)
    # LlamaIndex gives postprocessors these two methods, without the public ones around them.
    assert set(rerank._get_prompts()) == {"question"}
    before = rerank.postprocess_nodes(nodes(TEXTS[0]), query_str=QUERY)
    rerank._update_prompts({"question": PromptTemplate("Is the text relevant to the question: {query_str}")})
    assert rerank.postprocess_nodes(nodes(TEXTS[0]), query_str=QUERY)[0].score != before[0].score
    with pytest.raises(ValueError, match="query_str"):
        rerank._update_prompts({"question": PromptTemplate("Relevant?")})
