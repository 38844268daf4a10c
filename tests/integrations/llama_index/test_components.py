"""Every component of LlamaIndex's core that needs no tool calls, on the embedded checkpoint.

The answers are short and of no use; what is tested is what holds for any weights: types, sources, streams that add up
to the text, one event with its usage per request, and how many requests the engine has at a time. LlamaIndex's parsers
may refuse what a small model writes; where that is so a test says which error that is, and no other one passes.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from llama_index.core import DocumentSummaryIndex, KeywordTableIndex, PropertyGraphIndex, Settings, TreeIndex
from llama_index.core.agent.workflow import AgentStream, ReActAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation import (
    AnswerRelevancyEvaluator,
    BatchEvalRunner,
    ContextRelevancyEvaluator,
    CorrectnessEvaluator,
    FaithfulnessEvaluator,
    GuidelineEvaluator,
    PairwiseComparisonEvaluator,
    RelevancyEvaluator,
)
from llama_index.core.extractors import (
    DocumentContextExtractor,
    KeywordExtractor,
    QuestionsAnsweredExtractor,
    SummaryExtractor,
    TitleExtractor,
)
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.indices.property_graph import LLMSynonymRetriever, SimpleLLMPathExtractor
from llama_index.core.indices.query.query_transform import HyDEQueryTransform, StepDecomposeQueryTransform
from llama_index.core.memory import ChatSummaryMemoryBuffer, FactExtractionMemoryBlock
from llama_index.core.objects import ObjectIndex
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.postprocessor.rankGPT_rerank import RankGPTRerank
from llama_index.core.query_engine import (
    CitationQueryEngine,
    FLAREInstructQueryEngine,
    MultiStepQueryEngine,
    RetrieverQueryEngine,
    RetryQueryEngine,
    RetrySourceQueryEngine,
    SubQuestionQueryEngine,
    ToolRetrieverRouterQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import Document, NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata

from dgemma_core import Engine, LoadSpec
from dgemma_core.api.handle import RequestHandle
from dgemma_integrations.llama_index import DiffusionGemma, DiffusionGemmaFaithfulnessEvaluator

QUESTION = "When was the Vexal bridge built?"
RESPONSE = "The Vexal bridge was built in 1931."
PASSAGES = (
    "The Vexal bridge was built in 1931.",
    "The Mirdo museum opened in 1978.",
    "The Quandel bakery sells rye bread.",
    "The Orvin tower is 212 metres tall.",
)

pytestmark = [
    # LlamaIndex's chat memory leaves its in-memory database to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class WatchedEngine(Engine):
    """An engine that remembers its requests and how many of them were open at a time."""

    def __init__(self, spec: LoadSpec) -> None:
        super().__init__(spec)
        self._watch = threading.Lock()
        self.start_over()

    def start_over(self) -> None:
        self.handles: list[RequestHandle] = []
        self.most_open = 0

    def submit(self, *args: Any, **kwargs: Any) -> RequestHandle:
        with self._watch:
            handle = super().submit(*args, **kwargs)
            self.handles.append(handle)
            self.most_open = max(self.most_open, sum(not handle.done() for handle in self.handles))
            return handle


@pytest.fixture(scope="module")
def watched_engine() -> Iterator[WatchedEngine]:
    with WatchedEngine(LoadSpec()) as engine:
        engine.load()
        yield engine


@pytest.fixture
def engine(watched_engine: WatchedEngine, events: Any) -> Iterator[WatchedEngine]:
    """The engine; after each test, every request it had must have been one event that says what it used."""
    watched_engine.start_over()
    yield watched_engine
    ends = [e for e in events._events if type(e).__name__ in ("LLMChatEndEvent", "LLMCompletionEndEvent")]
    used = sorted(handle.result().usage.completion_tokens for handle in watched_engine.handles)
    assert sorted(end.response.raw["usage"]["completion_tokens"] for end in ends) == used
    assert all(end.response.raw["usage"]["prompt_tokens"] > 0 for end in ends)


@pytest.fixture
def llm(engine: WatchedEngine) -> Iterator[DiffusionGemma]:
    """Answers of at most eight tokens in two steps: nobody reads them."""
    llm = DiffusionGemma(engine=engine, seed=7, max_tokens=8, canvas_length=16, max_denoising_steps=2)
    before = Settings._llm, Settings._embed_model
    # Some components take what the settings hold, whatever they are given.
    Settings.llm, Settings.embed_model = llm, MockEmbedding(embed_dim=8)
    yield llm
    Settings._llm, Settings._embed_model = before


@pytest.fixture
def query_engine(llm: DiffusionGemma, retriever: Callable[..., Any]) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(retriever(*PASSAGES, top_k=2), llm=llm)


def passages(count: int = 4) -> list[TextNode]:
    return [TextNode(text=f"{PASSAGES[i % 4]} Part {i}.", id_=f"node-{i}") for i in range(count)]


def scored(count: int = 4) -> list[NodeWithScore]:
    return [NodeWithScore(node=node, score=0.5) for node in passages(count)]


async def collect(stream: AsyncIterator[str]) -> str:
    return "".join([part async for part in stream])


# --- response synthesizers: what test_query_engines.py leaves out ---


async def test_compact_accumulate(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode.COMPACT_ACCUMULATE)
    response = synthesizer.synthesize(QUESTION, scored())
    assert str(await synthesizer.asynthesize(QUESTION, scored())) == str(response)
    assert str(response).startswith("Response 1: ")
    assert len(response.source_nodes) == 4
    assert len(engine.handles) == 2


@pytest.mark.parametrize("mode", ["no_text", "context_only"])
async def test_modes_without_an_answer_ask_nothing(llm: DiffusionGemma, engine: WatchedEngine, mode: str) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode(mode))
    assert len(synthesizer.synthesize(QUESTION, scored()).source_nodes) == 4
    assert len((await synthesizer.asynthesize(QUESTION, scored())).source_nodes) == 4
    assert engine.handles == []


@pytest.mark.parametrize("mode", ["accumulate", "compact_accumulate"])
def test_modes_with_several_answers_refuse_to_stream(llm: DiffusionGemma, mode: str) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode(mode), streaming=True)
    with pytest.raises(ValueError, match="Unable to stream"):
        synthesizer.synthesize(QUESTION, scored())


@pytest.mark.parametrize(
    ("mode", "requests", "at_once"),
    [
        ("accumulate", 4, 4),
        ("tree_summarize", 5, 4),
        ("refine", 4, 1),
        ("simple_summarize", 1, 1),
        ("generation", 1, 1),
    ],
)
async def test_how_many_requests_a_mode_has_at_a_time(
    llm: DiffusionGemma, engine: WatchedEngine, mode: str, requests: int, at_once: int
) -> None:
    def synthesizer(**options: Any) -> Any:
        # Chunks so small that every node is one, and not so small that the answers of four are two.
        # Counted in words: whatever tokenizer LlamaIndex's settings hold.
        helper = PromptHelper(
            context_window=4096, num_output=8, chunk_size_limit=50, chunk_overlap_ratio=0.0, tokenizer=str.split
        )
        return get_response_synthesizer(llm=llm, response_mode=ResponseMode(mode), prompt_helper=helper, **options)

    nodes = [NodeWithScore(node=TextNode(text=f"{text} " * 6), score=0.5) for text in PASSAGES]
    response = str(synthesizer().synthesize(QUESTION, nodes))
    assert (len(engine.handles), engine.most_open) == (requests, 1)
    engine_before = len(engine.handles)
    assert str(await synthesizer().asynthesize(QUESTION, nodes)) == response
    assert (len(engine.handles) - engine_before, engine.most_open) == (requests, at_once)
    if mode in ("accumulate", "tree_summarize"):
        assert str(synthesizer(use_async=True).synthesize(QUESTION, nodes)) == response


# --- routers and sub-questions ---


def parsed(call: Callable[[], Any], *refusals: type[Exception]) -> Any:
    """What a component made of the answer, or None where its own parser refused it with one of these errors."""
    try:
        return call()
    except refusals:
        return None


@pytest.mark.parametrize("kind", [LLMSingleSelector, LLMMultiSelector])
def test_cores_selectors(llm: DiffusionGemma, engine: WatchedEngine, kind: Any) -> None:
    selector = kind.from_defaults(llm=llm)
    # The answer must be a JSON list; the output parser raises ValueError on anything else.
    result = parsed(lambda: selector.select(["about bridges", "about museums"], QUESTION), ValueError)
    assert result is None or result.inds
    assert len(engine.handles) == 1


def tools(query_engine: RetrieverQueryEngine, count: int) -> list[QueryEngineTool]:
    return [
        QueryEngineTool(query_engine, metadata=ToolMetadata(name=f"tool{i}", description=f"about {i}"))
        for i in range(count)
    ]


async def test_tool_retriever_router(
    llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine
) -> None:
    index = ObjectIndex.from_objects(tools(query_engine, 3))
    router = ToolRetrieverRouterQueryEngine(index.as_retriever(similarity_top_k=3), llm=llm)
    response = await router.aquery(QUESTION)
    assert len(response.metadata["retrieved_tools"]) == 3
    assert (len(engine.handles), engine.most_open) == (4, 3)
    assert str(router.query(QUESTION)) == str(response)


class OneForEachTool(BaseQuestionGenerator):
    """Asks every tool the same question; the LLM's part is only to answer."""

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: dict[str, Any]) -> None:
        pass

    def generate(self, tools: Any, query: QueryBundle) -> list[SubQuestion]:
        return [SubQuestion(sub_question=query.query_str, tool_name=tool.name) for tool in tools]

    async def agenerate(self, tools: Any, query: QueryBundle) -> list[SubQuestion]:
        return self.generate(tools, query)


async def test_sub_questions_are_answered_together(
    llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine
) -> None:
    sub_questions = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=tools(query_engine, 3), llm=llm, question_gen=OneForEachTool(), verbose=False
    )
    response = sub_questions.query(QUESTION)
    assert (len(engine.handles), engine.most_open) == (4, 3)
    assert str(await sub_questions.aquery(QUESTION)) == str(response)
    assert len(response.source_nodes) >= 3


async def test_the_llm_as_question_generator(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    generator = LLMQuestionGenerator.from_defaults(llm=llm)
    metadata = [ToolMetadata(name="bridges", description="about bridges")]
    # The answer must hold a JSON object with "items"; else the output parser raises ValueError.
    questions = parsed(lambda: generator.generate(metadata, QueryBundle(QUESTION)), ValueError)
    assert questions is None or all(isinstance(q, SubQuestion) for q in questions)
    assert len(engine.handles) == 1


# --- query engines around a query engine ---


async def test_citations(llm: DiffusionGemma, engine: WatchedEngine, retriever: Callable[..., Any]) -> None:
    def citing(**options: Any) -> CitationQueryEngine:
        return CitationQueryEngine.from_args(None, llm=llm, retriever=retriever(*PASSAGES), **options)

    response = citing().query(QUESTION)
    assert [node.text.startswith(f"Source {i}:") for i, node in enumerate(response.source_nodes, 1)] == [True, True]
    assert str(await citing().aquery(QUESTION)) == str(response)
    streamed = citing(streaming=True).query(QUESTION)
    assert "".join(streamed.response_gen) == str(response)
    assert len(engine.handles) == 3


@pytest.mark.parametrize(("threshold", "answers"), [(0.0, 1), (1.0, 2)])
def test_retry_source(
    llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine, threshold: float, answers: int
) -> None:
    evaluator = DiffusionGemmaFaithfulnessEvaluator(llm, threshold=threshold)
    response = RetrySourceQueryEngine(query_engine, evaluator, llm=llm, max_retries=1).query(QUESTION)
    assert response.source_nodes
    assert len(engine.handles) == answers


def test_retry_with_cores_evaluator(llm: DiffusionGemma, query_engine: RetrieverQueryEngine) -> None:
    response = RetryQueryEngine(query_engine, RelevancyEvaluator(llm=llm), max_retries=1).query(QUESTION)
    assert response.source_nodes


def test_hyde(llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine) -> None:
    transformed = TransformQueryEngine(query_engine, HyDEQueryTransform(llm=llm, include_original=True))
    assert transformed.query(QUESTION).source_nodes
    assert len(engine.handles) == 2


def test_multi_step(llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine) -> None:
    steps = MultiStepQueryEngine(
        query_engine, StepDecomposeQueryTransform(llm=llm), num_steps=2, early_stopping=False, index_summary="facts"
    )
    response = steps.query(QUESTION)
    assert len(response.metadata["sub_qa"]) == 2
    # A question and an answer for each step, and the final answer.
    assert len(engine.handles) == 5


def test_flare(llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine) -> None:
    flare = FLAREInstructQueryEngine(query_engine, llm=llm, max_iterations=1)
    assert isinstance(flare.query(QUESTION), Response)
    assert engine.handles


async def test_query_fusion(llm: DiffusionGemma, engine: WatchedEngine, retriever: Callable[..., Any]) -> None:
    fusion = QueryFusionRetriever([retriever(*PASSAGES)], llm=llm, num_queries=3, use_async=False)
    found = fusion.retrieve(QUESTION)
    assert found
    assert len(engine.handles) == 1
    assert [node.node_id for node in await fusion.aretrieve(QUESTION)] == [node.node_id for node in found]


# --- chat engines ---


def chat_engine(kind: Any, llm: DiffusionGemma, retriever: Any, query_engine: RetrieverQueryEngine) -> Any:
    if kind is SimpleChatEngine:
        return kind.from_defaults(llm=llm, system_prompt="Be brief.")
    if kind is CondenseQuestionChatEngine:
        return kind.from_defaults(query_engine=query_engine, llm=llm)
    return kind.from_defaults(retriever=retriever, llm=llm)


@pytest.mark.parametrize(
    ("kind", "second_turn"),
    [
        (SimpleChatEngine, 1),
        (ContextChatEngine, 1),
        # These rewrite the question first.
        (CondenseQuestionChatEngine, 2),
        (CondensePlusContextChatEngine, 2),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_chat_engines(
    llm: DiffusionGemma,
    engine: WatchedEngine,
    retriever: Callable[..., Any],
    query_engine: RetrieverQueryEngine,
    kind: Any,
    second_turn: int,
) -> None:
    async def talk(how: str) -> list[str]:
        # Condensing streams only where the engine behind it does.
        behind = query_engine
        if kind is CondenseQuestionChatEngine and "stream" in how:
            behind = RetrieverQueryEngine.from_args(retriever(*PASSAGES), llm=llm, streaming=True)
        talking = chat_engine(kind, llm, retriever(*PASSAGES), behind)
        answers = []
        for message in (QUESTION, "And the museum?"):
            before = len(engine.handles)
            response = getattr(talking, how)(message)
            if how.startswith("a"):
                response = await response
            if how == "stream_chat":
                answers.append("".join(response.response_gen))
            elif how == "astream_chat":
                answers.append(await collect(response.async_response_gen()))
            else:
                answers.append(response.response)
                assert bool(response.source_nodes) == (kind is not SimpleChatEngine)
        assert len(engine.handles) - before == second_turn
        assert [m.role.value for m in talking.chat_history if m.role.value != "system"] == ["user", "assistant"] * 2
        return answers

    first = await talk("chat")
    assert [await talk(how) for how in ("achat", "stream_chat", "astream_chat")] == [first] * 3
    assert engine.most_open == 1


def test_usage_is_counted(llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm.callback_manager = CallbackManager([counter])
    query_engine.query(QUESTION)
    (handle,) = engine.handles
    assert counter.prompt_llm_token_count == handle.result().usage.prompt_tokens
    assert counter.completion_llm_token_count == handle.result().usage.completion_tokens


# --- ingestion ---


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (KeywordExtractor, "excerpt_keywords"),
        (QuestionsAnsweredExtractor, "questions_this_excerpt_can_answer"),
        (SummaryExtractor, "section_summary"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_extractors_work_on_several_nodes_at_a_time(
    llm: DiffusionGemma, engine: WatchedEngine, kind: Any, key: str
) -> None:
    found = kind(llm=llm, show_progress=False).extract(passages(5))
    assert [set(entry) for entry in found] == [{key}] * 5
    assert (len(engine.handles), engine.most_open) == (5, 4)
    assert await kind(llm=llm, show_progress=False, num_workers=5).aextract(passages(5)) == found
    assert (len(engine.handles), engine.most_open) == (10, 5)


def test_titles_come_one_after_the_other(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    found = TitleExtractor(llm=llm, nodes=2, show_progress=False).extract(passages(2))
    assert all(entry["document_title"] for entry in found)
    assert engine.most_open <= 2


async def test_document_context(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    document = Document(text=" ".join(PASSAGES), doc_id="document")
    store = SimpleDocumentStore()
    await store.async_add_documents([document])
    nodes = passages(3)
    for node in nodes:
        node.relationships = {"1": document.as_related_node_info()}  # type: ignore[dict-item]
    extractor = DocumentContextExtractor(docstore=store, llm=llm, max_context_length=2000, show_progress=False)
    found = await extractor.aextract(nodes)
    assert len(found) == 3
    # It sends max_tokens and headers of its own.
    assert (len(engine.handles), engine.most_open) == (3, 3)


# --- indices ---


def test_property_graph(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    index = PropertyGraphIndex(
        passages(5),
        llm=llm,
        embed_model=MockEmbedding(embed_dim=8),
        kg_extractors=[SimpleLLMPathExtractor(llm=llm)],
        show_progress=False,
    )
    assert (len(engine.handles), engine.most_open) == (5, 4)
    synonyms = LLMSynonymRetriever(index.property_graph_store, llm=llm, include_text=False)
    assert isinstance(index.as_retriever(sub_retrievers=[synonyms]).retrieve(QUESTION), list)
    assert len(engine.handles) == 6


@pytest.mark.parametrize(("use_async", "at_once"), [(False, 1), (True, 2)])
def test_tree_index(llm: DiffusionGemma, engine: WatchedEngine, use_async: bool, at_once: int) -> None:
    # Two children each: two summaries over four passages.
    index = TreeIndex(passages(4), llm=llm, num_children=2, use_async=use_async)
    assert (len(engine.handles), engine.most_open) == (2, at_once)
    response = index.as_query_engine(llm=llm, retriever_mode="root").query(QUESTION)
    assert len(response.source_nodes) == 2
    assert index.as_query_engine(llm=llm, retriever_mode="all_leaf").query(QUESTION).source_nodes


@pytest.mark.parametrize("use_async", [False, True])
def test_keyword_table(llm: DiffusionGemma, engine: WatchedEngine, use_async: bool) -> None:
    index = KeywordTableIndex(passages(3), llm=llm, use_async=use_async)
    # Even its async build takes one node after the other.
    assert (len(engine.handles), engine.most_open) == (3, 1)
    assert isinstance(index.as_retriever().retrieve(QUESTION), list)
    assert len(engine.handles) == 4


def test_document_summary_index(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    documents = [Document(text=text, doc_id=f"document-{i}") for i, text in enumerate(PASSAGES[:2])]
    index = DocumentSummaryIndex.from_documents(
        documents, llm=llm, embed_model=MockEmbedding(embed_dim=8), show_progress=False
    )
    assert index.get_document_summary("document-0")
    assert len(engine.handles) == 2
    found = index.as_retriever(retriever_mode="embedding", similarity_top_k=1).retrieve(QUESTION)
    assert len(found) == 1


# --- rerankers ---


async def test_llm_rerank(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    rerank = LLMRerank(llm=llm, choice_batch_size=2, top_n=3)
    # Its parser reads lines "Doc: 1, Relevance: 7"; a line with a comma and no numbers is a ValueError or IndexError.
    ranked = parsed(lambda: rerank.postprocess_nodes(scored(6), query_str=QUESTION), ValueError, IndexError)
    assert ranked is None or len(ranked) <= 3
    assert engine.most_open == 1
    before = len(engine.handles)
    try:
        assert await rerank.apostprocess_nodes(scored(6), query_str=QUESTION) == ranked
    except (ValueError, IndexError):
        assert ranked is None
    assert (len(engine.handles) - before, engine.most_open) == (3, 3)


async def test_rank_gpt(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    rerank = RankGPTRerank(llm=llm, top_n=2)
    ranked = rerank.postprocess_nodes(scored(), query_str=QUESTION)
    assert len(ranked) == 2
    assert await rerank.apostprocess_nodes(scored(), query_str=QUESTION) == ranked
    assert len(engine.handles) == 2


# --- evaluators ---


@pytest.mark.parametrize("kind", [FaithfulnessEvaluator, RelevancyEvaluator])
async def test_evaluators_that_read_any_answer(llm: DiffusionGemma, engine: WatchedEngine, kind: Any) -> None:
    evaluator = kind(llm=llm)
    result = evaluator.evaluate(query=QUESTION, response=RESPONSE, contexts=list(PASSAGES[:2]))
    assert result.score in (0.0, 1.0)
    assert await evaluator.aevaluate(query=QUESTION, response=RESPONSE, contexts=list(PASSAGES[:2])) == result
    assert len(engine.handles) == 2


@pytest.mark.parametrize(
    "kind", [CorrectnessEvaluator, GuidelineEvaluator, AnswerRelevancyEvaluator, ContextRelevancyEvaluator]
)
def test_evaluators_that_need_a_form(llm: DiffusionGemma, engine: WatchedEngine, kind: Any) -> None:
    evaluator = kind(llm=llm)
    # A number in the first line, JSON, "[RESULT] n": where that is missing the result is invalid, or a ValueError.
    result = parsed(
        lambda: evaluator.evaluate(query=QUESTION, response=RESPONSE, contexts=list(PASSAGES[:2])), ValueError
    )
    assert result is None or result.query == QUESTION
    assert engine.handles


def test_pairwise(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    evaluator = PairwiseComparisonEvaluator(llm=llm, enforce_consensus=True)
    result = evaluator.evaluate(query=QUESTION, response=RESPONSE, second_response="In 1932.")
    assert result.invalid_result or result.score is not None
    assert len(engine.handles) in (1, 2)


async def test_batch_runner(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    runner = BatchEvalRunner({"faithful": FaithfulnessEvaluator(llm=llm)}, workers=4)
    results = await runner.aevaluate_response_strs([QUESTION] * 6, [RESPONSE] * 6, [[PASSAGES[0]]] * 6)
    assert len(results["faithful"]) == 6
    assert (len(engine.handles), engine.most_open) == (6, 4)


# --- memory ---


def test_chat_summary_memory(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    history = [
        ChatMessage(role=role, content=f"{PASSAGES[i % 4]} {i}") for i, role in enumerate(["user", "assistant"] * 4)
    ]
    memory = ChatSummaryMemoryBuffer.from_defaults(history, llm=llm, token_limit=40, tokenizer_fn=str.split)
    kept = memory.get()
    assert kept[0].role.value == "system"
    assert len(kept) < 8
    assert len(engine.handles) == 1


async def test_fact_extraction_memory(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    block = FactExtractionMemoryBlock(name="facts", llm=llm, max_facts=5)
    await block.aput([ChatMessage(role="user", content=RESPONSE), ChatMessage(role="assistant", content="I see.")])
    assert len(engine.handles) == 1
    assert isinstance(block.facts, list)


# --- agents that work through the prompt ---


async def test_react_agent(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    def opened(name: str) -> str:
        """When something was opened."""
        return f"{name} was opened in 1978."

    agent = ReActAgent(tools=[FunctionTool.from_defaults(opened)], llm=llm, streaming=True)
    handler = agent.run(QUESTION, max_iterations=1, early_stopping_method="generate")
    deltas = [event.delta async for event in handler.stream_events() if isinstance(event, AgentStream)]
    output = await handler
    assert output.response.role.value == "assistant"
    assert deltas
    assert engine.most_open == 1
