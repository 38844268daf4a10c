"""``DiffusionGemmaRerank``: ranks retrieved nodes by the probability that they answer the query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

from llama_index.core import instrumentation
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import NodeWithScore, QueryBundle

from dgemma_core.api.questions import Question
from dgemma_integrations.llama_index.concurrency import together
from dgemma_integrations.llama_index.decisions import Decisions, resolve_llm
from dgemma_integrations.llama_index.llm import DiffusionGemma
from dgemma_integrations.llama_index.questions import as_line, as_template
from dgemma_integrations.llama_index.rerank_settings import DEFAULT_QUESTION, RerankOptions, RerankSettings
from dgemma_integrations.shared.blocking import run_blocking
from dgemma_integrations.shared.keywords import reject_unknown

dispatcher = instrumentation.get_dispatcher(__name__)  # type: ignore[attr-defined]

RELEVANCE_LEVELS: Mapping[str, str] = {
    "none": "another subject",
    "weak": "the same subject, another fact",
    "full": "the answer is there",
}
RETRIEVAL_SCORE = "retrieval_score"


class DiffusionGemmaRerank(RerankSettings):
    """Scores each node by one decision about it, and keeps the best nodes.

    The node's text is the context of the decision, and the query is the question. So if a node is judged again for
    another query, its keys and values may be in the prefix cache. All nodes are submitted together, and the engine
    batches them. Each takes one denoising step. The nodes with the highest scores come first, and nodes of equal score
    keep their order.

    Args:
        llm: the LLM whose engine is asked; ``Settings.llm`` if not given.
        top_n: most nodes to return.
        threshold: nodes with a lower score (0 to 1) are left out. Perhaps no node is left.
        question: the question about each node; must contain ``{query_str}``.
        levels: ``None`` asks a yes/no question, and the score is the probability of yes. Or names of levels, lowest
            first, with descriptions (``RELEVANCE_LEVELS``); the score is the expected level, scaled to 0 to 1.
        long_text: what to do with a node that does not fit the context window: ``"truncate"`` judges its beginning,
            ``"split"`` judges all parts and takes the best score, ``"error"`` raises ``ContextOverflowError``.
        max_concurrency: nodes that are judged at a time; ``None`` means all.
        keep_retrieval_score: keep the score that a node came with as ``retrieval_score`` in its metadata. Neither the
            LLM nor an embedding model sees it there. The given nodes are not changed.
        metadata_mode: how much of a node's metadata belongs to its text.
        draws: noise draws to average over, one denoising step each.
        calibration: from ``dgemma_core.fit_calibration``; without it the probabilities are the model's own.

    Raises:
        ValueError: an unknown keyword argument, a bad value, or an LLM that is not a ``DiffusionGemma``.

    Examples:
        ```python
        from dgemma_integrations.llama_index import DiffusionGemma, DiffusionGemmaRerank

        rerank = DiffusionGemmaRerank(llm=DiffusionGemma(), top_n=3)
        query_engine = index.as_query_engine(similarity_top_k=20, node_postprocessors=[rerank])
        ```
    """

    def __init__(
        self,
        llm: DiffusionGemma | None = None,
        top_n: int = 5,
        question: str | PromptTemplate = DEFAULT_QUESTION,
        **settings: Unpack[RerankOptions],
    ) -> None:
        owner = type(self).__name__
        # A dumped component has its class name among its settings, and so has the LLM in it.
        given = {name: value for name, value in settings.items() if name != "class_name"}
        reject_unknown(given, type(self).model_fields, owner=owner)
        if isinstance(llm, Mapping):
            llm = DiffusionGemma(**llm)
        template = as_template("question", question, ("query_str",))
        # In a dict, because the type of the base class's constructor does not know Pydantic's fields.
        fields: dict[str, Any] = {"llm": resolve_llm(llm, owner), "top_n": top_n, "question": template, **given}
        super().__init__(**fields)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores this component."""
        return "DiffusionGemmaRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        if not nodes:
            return []
        with self._reported(nodes, query) as result:
            result += self._ranked(nodes, run_blocking(self._scores(nodes, query.query_str)))
        return result

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        if not nodes:
            return []
        with self._reported(nodes, query) as result:
            result += self._ranked(nodes, await self._scores(nodes, query.query_str))
        return result

    @contextmanager
    def _reported(self, nodes: list[NodeWithScore], query: QueryBundle) -> Iterator[list[NodeWithScore]]:
        """Fire the events before and after a reranking. The caller puts the result into the list."""
        model = self.llm.model
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: model,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            result: list[NodeWithScore] = []
            yield result
            event.on_end(payload={EventPayload.NODES: result})
        dispatcher.event(ReRankEndEvent(nodes=result))

    async def _scores(self, nodes: Sequence[NodeWithScore], query: str) -> list[float]:
        decisions = await Decisions.open(self.llm, self.draws, self.calibration, self.max_concurrency)
        text = as_line(self.question, query_str=query)
        question = Question("bool", text) if self.levels is None else Question("score", text, self.levels)
        return await together(self._score(decisions, node, question) for node in nodes)

    async def _score(self, decisions: Decisions, node: NodeWithScore, question: Question) -> float:
        content = node.node.get_content(metadata_mode=self.metadata_mode)
        if not content.strip():
            return 0.0  # A node without text answers nothing.
        answers = await decisions.ask_long(content, {"relevant": question}, self.long_text)
        if question.type == "bool":
            return max(answer["relevant"].probabilities["yes"] for answer in answers)
        return max(answer["relevant"].level for answer in answers) / (len(question.names) - 1)

    def _ranked(self, nodes: Sequence[NodeWithScore], scores: Sequence[float]) -> list[NodeWithScore]:
        ranked = sorted(zip(nodes, scores, strict=True), key=lambda pair: -pair[1])
        kept = [pair for pair in ranked if self.threshold is None or pair[1] >= self.threshold]
        return [self._scored(node, score) for node, score in kept[: self.top_n]]

    def _scored(self, node: NodeWithScore, score: float) -> NodeWithScore:
        if not self.keep_retrieval_score:
            return NodeWithScore(node=node.node, score=score)
        inner = node.node
        noted = inner.model_copy(
            update={
                "metadata": {**inner.metadata, RETRIEVAL_SCORE: node.score},
                "excluded_llm_metadata_keys": _with(inner.excluded_llm_metadata_keys, RETRIEVAL_SCORE),
                "excluded_embed_metadata_keys": _with(inner.excluded_embed_metadata_keys, RETRIEVAL_SCORE),
            }
        )
        return NodeWithScore(node=noted, score=score)


def _query(query_bundle: QueryBundle | None) -> QueryBundle:
    if query_bundle is None:
        raise ValueError("Query bundle must be provided: call postprocess_nodes with query_bundle= or query_str=.")
    if not query_bundle.query_str.strip():
        raise ValueError(f"query_str={query_bundle.query_str!r}: there is nothing to rank by")
    return query_bundle


def _with(keys: list[str], key: str) -> list[str]:
    return keys if key in keys else [*keys, key]
