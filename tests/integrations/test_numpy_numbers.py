"""Numbers of numpy and torch as settings of both frameworks' classes, at construction and at a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core.schema import NodeWithScore, TextNode

from dgemma_core import Engine, Question
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM
from dgemma_integrations.llama_index import (
    DiffusionGemma,
    DiffusionGemmaEvaluator,
    DiffusionGemmaRerank,
    DiffusionGemmaSelector,
)

MODELS = pytest.mark.parametrize("model_class", [ChatDiffusionGemma, DiffusionGemmaLLM, DiffusionGemma])
NUMPY: dict[str, Any] = {
    "max_tokens": np.int32(5),
    "seed": np.int64(3),
    "temperature": np.float32(0.5),
    "timeout": np.float64(60),
    "entropy_bound": torch.tensor(0.25),
    "canvas_length": torch.tensor(8),
    "max_denoising_steps": np.uint8(2),
    "stop_at_eos": np.bool_(True),
}
PYTHON: dict[str, Any] = {
    "max_tokens": 5,
    "seed": 3,
    "temperature": 0.5,
    "timeout": 60.0,
    "entropy_bound": 0.25,
    "canvas_length": 8,
    "max_denoising_steps": 2,
    "stop_at_eos": True,
}
TEXT = "The Vexal bridge was built in 1931."


def _call(model: Any, **settings: Any) -> str:
    if isinstance(model, DiffusionGemma):
        return str(model.complete(TEXT, **settings))
    answer = model.invoke(TEXT, **settings)
    return answer if isinstance(answer, str) else str(answer.content)


@MODELS
def test_a_model_object_takes_numbers_of_numpy(model_class: Any, tiny_engine: Engine) -> None:
    one, other = (model_class(engine=tiny_engine, **settings) for settings in (NUMPY, PYTHON))
    for name in NUMPY:
        assert type(getattr(one, name)) is type(getattr(other, name)), name
    assert repr(one) == repr(other)
    assert _call(one) == _call(other)


@MODELS
def test_a_call_takes_numbers_of_numpy(model_class: Any, tiny_engine: Engine) -> None:
    model = model_class(engine=tiny_engine)
    assert _call(model, **NUMPY) == _call(model, **PYTHON)


@MODELS
@pytest.mark.parametrize("value", [True, np.bool_(True), 2.0, "3"], ids=repr)
def test_a_bool_a_fraction_or_a_text_is_no_integer(model_class: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="seed"):
        model_class(seed=value)
    with pytest.raises(ValueError, match="max_queue"):
        model_class(max_queue=value)


@MODELS
def test_a_bool_is_no_temperature(model_class: Any) -> None:
    with pytest.raises(ValueError, match="temperature"):
        model_class(temperature=True)


def test_decisions_take_numbers_of_numpy(tiny_engine: Engine) -> None:
    asked = {"q": Question("bool", "Is there a bridge?")}
    given: Any = {"draws": np.int64(2), "seed": np.int32(1), "timeout": np.float32(60)}
    assert tiny_engine.decide(TEXT, asked, **given) == tiny_engine.decide(TEXT, asked, draws=2, seed=1)
    classifier = DiffusionGemmaClassifier(questions=asked, engine=tiny_engine, threshold=np.float32(0.5), **given)
    assert classifier.invoke(TEXT) == classifier.invoke(TEXT, threshold={"q": np.float64(0.5)}, draws=torch.tensor(2))
    with pytest.raises(ValueError, match="draws=True"):
        DiffusionGemmaClassifier(questions=asked, draws=True)


def test_llama_index_components_take_numbers_of_numpy(tiny_engine: Engine) -> None:
    llm = DiffusionGemma(engine=tiny_engine)
    half: Any = np.float32(0.5)
    two: Any = np.int64(2)
    rerank = DiffusionGemmaRerank(llm=llm, top_n=two, draws=two, threshold=np.float32(0.0), max_concurrency=two)
    assert (rerank.top_n, rerank.draws) == (2, 2)
    assert (
        len(rerank.postprocess_nodes([NodeWithScore(node=TextNode(text=TEXT)) for _ in range(3)], query_str="q")) == 2
    )
    evaluator = DiffusionGemmaEvaluator(llm, question="Is it there?", threshold=half, draws=two)
    assert evaluator.evaluate(response="x", contexts=[TEXT]).score is not None
    selector = DiffusionGemmaSelector(llm, multi=True, max_outputs=two, threshold=half, draws=two)
    assert len(selector.select(["bridges", "cakes", "towers"], query=TEXT).selections) <= 2
    with pytest.raises(ValueError, match="max_outputs=True"):
        DiffusionGemmaSelector(llm, max_outputs=True)
