"""Which engine serves an LLM, and its copies."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.loading import load_llm

from dgemma_core import Engine, LoadSpec
from dgemma_core.errors import CheckpointError, EngineClosedError
from dgemma_integrations.llama_index import DiffusionGemma
from tests.checkpoints import make_model, make_tokenizer
from tests.integrations.llama_index.conftest import QUESTION


def test_a_missing_checkpoint_says_so(tmp_path: Path) -> None:
    llm = DiffusionGemma(model=str(tmp_path))
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        llm.complete("Hello")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        llm.metadata  # noqa: B018


def test_a_closed_engine_says_so(tiny_checkpoint: str) -> None:
    engine = Engine(LoadSpec(model=tiny_checkpoint))
    llm = DiffusionGemma(engine=engine)
    engine.close()
    with pytest.raises(EngineClosedError):
        llm.complete("Hello")


def test_metadata_reads_no_weights(tiny_checkpoint: str) -> None:
    engine = Engine(LoadSpec(model=tiny_checkpoint))
    llm = DiffusionGemma(engine=engine, max_tokens=12)
    metadata = llm.metadata
    assert metadata.context_window == engine.context_window
    assert metadata.num_output == 12
    assert metadata.is_chat_model
    assert metadata.model_name == tiny_checkpoint
    assert DiffusionGemma(engine=engine).metadata.num_output == engine.default_max_new_tokens
    assert engine.count_tokens("Hello") > 0
    assert engine.stats().weight_loads == 0
    assert DiffusionGemma(model=tiny_checkpoint, max_context=50).metadata.context_window == 50
    engine.close()


def test_equal_settings_share_one_engine(tiny_checkpoint: str) -> None:
    first, second = (DiffusionGemma(model=tiny_checkpoint, max_context=222, seed=seed) for seed in (1, 2))
    assert first.engine is second.engine
    assert DiffusionGemma(model=tiny_checkpoint, max_context=223).engine is not first.engine
    first.complete("a", max_tokens=2)
    second.complete("a", max_tokens=2)
    assert first.engine.stats().weight_loads == 1


def test_a_given_engine_decides_the_load_settings(tiny_checkpoint: str) -> None:
    engine = Engine(LoadSpec(model=tiny_checkpoint, max_context=100, dtype="float32"))
    llm = DiffusionGemma(engine=engine)
    assert llm.engine is engine
    assert (llm.model, llm.max_context, llm.dtype) == (tiny_checkpoint, 100, "float32")
    assert DiffusionGemma(engine=engine, model=tiny_checkpoint, dtype=torch.float32).engine is engine
    with pytest.raises(ValueError, match="model='embedded': the given engine has"):
        DiffusionGemma(engine=engine, model="embedded")
    with pytest.raises(ValueError, match=r"must be a dgemma_core\.Engine"):
        DiffusionGemma(engine="embedded")  # type: ignore[arg-type]
    # Assigned later, load settings win.
    llm.max_context = 90
    assert llm.engine is not engine
    assert llm.metadata.context_window == 90
    engine.close()


@pytest.mark.landing
def test_importing_and_building_is_light() -> None:
    script = (
        "import sys, llama_index.core.llms.function_calling, llama_index.core.llms.loading\n"
        "before = set(sys.modules)\n"
        "from dgemma_integrations.llama_index import DiffusionGemma\n"
        "repr(DiffusionGemma(max_tokens=5)); DiffusionGemma().to_dict()\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & {'torch', 'transformers', 'langchain_core', 'langchain'}, new\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=120)


def test_class_and_bases(llm: DiffusionGemma) -> None:
    assert BaseLLM.__name__ in [base.__name__ for base in DiffusionGemma.__mro__]
    assert llm.class_name() == "DiffusionGemma"


def test_to_dict_round_trips_through_llama_index(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(
        engine=embedded_engine, seed=3, stop=["x"], max_tokens=9, temperature=0.9, system_prompt="Be brief."
    )
    data = json.loads(json.dumps(llm.to_dict()))
    assert {"seed", "stop", "max_tokens", "temperature", "model", "dtype", "class_name", "entropy_bound"} <= set(data)
    assert "engine" not in data
    restored = load_llm(data)
    assert isinstance(restored, DiffusionGemma)
    assert restored.to_dict() == llm.to_dict()
    # IngestionPipeline's cache key: equal for equal settings, different otherwise, no addresses in it.
    assert str(llm.to_dict()) == str(restored.to_dict())
    assert " at 0x" not in str(llm.to_dict())
    assert str(DiffusionGemma(seed=4).to_dict()) != str(DiffusionGemma(seed=5).to_dict())
    assert DiffusionGemma.model_validate(llm.model_dump()).to_dict() == llm.to_dict()


def test_pickling_keeps_the_settings_and_the_live_object(llm: DiffusionGemma) -> None:
    manager = CallbackManager([])
    llm.callback_manager = manager
    llm.system_prompt = "Be brief."
    before = llm.to_dict()
    restored = pickle.loads(pickle.dumps(llm))
    assert restored.to_dict() == before
    assert llm.to_dict() == before
    assert llm.callback_manager is manager
    assert llm.engine is not None
    assert restored.complete(QUESTION).text == llm.complete(QUESTION).text


def test_pickling_refuses_weights_of_this_process() -> None:
    with Engine.from_model(make_model(), make_tokenizer()) as engine:
        llm = DiffusionGemma(engine=engine, max_tokens=4, seed=0)
        with pytest.raises(pickle.PicklingError, match="from_model"):
            pickle.dumps(llm)
        assert copy.deepcopy(llm).complete("Hello").text == llm.complete("Hello").text


def test_copies_share_the_engine(llm: DiffusionGemma) -> None:
    for other in (copy.copy(llm), copy.deepcopy(llm), llm.model_copy(), copy.deepcopy([llm])[0]):
        assert other.engine is llm.engine
        assert other.to_dict() == llm.to_dict()
    changed = llm.model_copy(update={"seed": 1})
    assert (changed.seed, llm.seed) == (1, 7)
    deep = copy.deepcopy(llm)
    deep.max_tokens = 5
    assert llm.max_tokens == 32


@pytest.mark.landing
def test_metadata_needs_neither_torch_nor_a_tokenizer() -> None:
    code = (
        "import sys\n"
        "from dgemma_integrations.llama_index import DiffusionGemma\n"
        "shown = DiffusionGemma(max_context=512).metadata\n"
        "assert 'torch' not in sys.modules and 'tokenizers' not in sys.modules\n"
        "llm = DiffusionGemma()\n"
        "assert shown.context_window == 512\n"
        "assert llm.metadata.context_window == llm.engine.context_window\n"
        "assert shown.num_output == llm.engine.default_max_new_tokens\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
