"""Which engine serves a model object, and its copies."""

from __future__ import annotations

import copy
import pickle

import pytest

from dgemma_core import Engine, LoadSpec
from dgemma_integrations.langchain import (
    ChatDiffusionGemma,
    DiffusionGemmaLLM,
)
from tests.integrations.langchain.conftest import PROMPT


def test_a_call_may_name_another_model(tiny_checkpoint: str) -> None:
    answer = ChatDiffusionGemma(model="no/such-model", max_tokens=8, seed=1).invoke(PROMPT, model=tiny_checkpoint)
    assert answer.response_metadata["model_name"] == tiny_checkpoint


def test_a_copy_cannot_change_what_its_engine_holds(chat: ChatDiffusionGemma) -> None:
    with pytest.raises(ValueError, match="max_context=64: this object was given an engine that holds None"):
        chat.model_copy(update={"max_context": 64}).invoke(PROMPT)


BOTH = pytest.mark.parametrize("model_class", [ChatDiffusionGemma, DiffusionGemmaLLM])


@BOTH
def test_pickles_and_copies(model_class: type[ChatDiffusionGemma], engine: Engine) -> None:
    plain = model_class(model="a/b", seed=1, stop=["x"])
    assert pickle.loads(pickle.dumps(plain)) == plain
    assert copy.deepcopy(plain) == plain
    assert plain.model_copy(update={"seed": 2}).seed == 2

    held = model_class(engine=engine, seed=1)
    assert held.model == engine.spec.model
    assert copy.deepcopy(held).engine is engine
    assert held.model_copy().engine is engine
    loaded = pickle.loads(pickle.dumps(held))
    assert loaded.engine is None
    assert loaded._spec() == engine.spec


@BOTH
def test_an_engine_and_contradicting_load_settings(model_class: type[ChatDiffusionGemma], engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"dtype='bfloat16': the given engine has 'auto'"):
        model_class(engine=engine, dtype="bfloat16")
    other = model_class(engine=engine).model_copy(update={"model": "a/b"})
    with pytest.raises(ValueError, match="model='a/b'"):
        other.invoke("fox")


def test_same_settings_share_one_engine(tiny_checkpoint: str) -> None:
    chat = ChatDiffusionGemma(model=tiny_checkpoint, max_context=256, seed=1)
    llm = DiffusionGemmaLLM(model=tiny_checkpoint, max_context=256, seed=2)
    assert chat._engine() is llm._engine()
    assert chat._engine().spec == LoadSpec(model=tiny_checkpoint, max_context=256)
