"""A program written for another library's class: each of its options works here, or the error says what to write."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgemma_core import Engine
from dgemma_core.api.foreign_names import ACCEPTED_NAMES
from dgemma_core.errors import CheckpointError
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM
from dgemma_integrations.llama_index import DiffusionGemma
from scripts.render_foreign_names import Peer, peers

MODELS: dict[str, Any] = {c.__name__: c for c in (ChatDiffusionGemma, DiffusionGemmaLLM, DiffusionGemma)}
EACH = pytest.mark.parametrize("model_class", MODELS.values())
TEXT = "The Vexal bridge was built in 1931."


def _refusal(model_class: Any, **keywords: Any) -> str:
    with pytest.raises(ValueError, match="unknown keyword argument") as caught:
        model_class(**keywords)
    return str(caught.value)


@pytest.mark.parametrize("peer", peers("classes"), ids=lambda peer: f"{peer.package}.{peer.name}")
def test_every_option_of_a_class_works_or_is_answered(peer: Peer) -> None:
    model_class = MODELS[str(peer.here)]
    for name in peer.options:
        if not {name, ACCEPTED_NAMES.get(name)} & peer.own:
            said = _refusal(model_class, **{name: 1})
            assert f"'{name}' (" in said, name
            assert "did you mean" not in said, name


@pytest.mark.parametrize("peer", peers("classes"), ids=lambda peer: f"{peer.package}.{peer.name}")
def test_the_docs_know_which_options_have_the_same_name(peer: Peer) -> None:
    fields = {field.alias or name for name, field in MODELS[str(peer.here)].model_fields.items()}
    assert {*peer.options} & peer.own == {*peer.options} & fields, "edit fields in scripts/peer_options.json"


@EACH
@pytest.mark.parametrize("peer", peers("dicts"), ids=lambda peer: peer.name)
def test_every_entry_of_a_dict_of_options_is_answered(peer: Peer, model_class: Any) -> None:
    for name in peer.options:
        said = _refusal(model_class, model_kwargs={name: 1})
        assert f"'model_kwargs' (write its entries as keyword arguments: '{name}' (" in said or "=1)" in said, name
        assert "did you mean" not in said, name


@EACH
def test_names_that_mean_the_same_work_in_the_constructor(model_class: Any) -> None:
    foreign = model_class(
        model_name="embedded",
        num_ctx=200,
        max_new_tokens=256,
        stop_sequences=["END"],
        request_timeout=60,
        torch_dtype=torch.float32,
        temperature=0,
    )
    own = model_class(
        model="embedded", max_context=200, max_tokens=256, stop=["END"], timeout=60, dtype="float32", temperature=0
    )
    assert repr(foreign) == repr(own)


def test_from_chat_ollama_is_one_edit() -> None:
    model = ChatDiffusionGemma(model="embedded", temperature=0, num_predict=64, num_ctx=200, seed=1, stop=["END"])  # type: ignore[call-arg]
    assert (model.max_tokens, model.max_context) == (64, 200)


@EACH
@pytest.mark.parametrize("name", ["num_predict", "max_new_tokens", "max_completion_tokens"])
def test_names_that_mean_the_same_work_at_a_call(model_class: Any, name: str, tiny_engine: Engine) -> None:
    model = model_class(engine=tiny_engine, seed=1, max_denoising_steps=2)
    call = model.complete if model_class is DiffusionGemma else model.invoke
    answers = [call(TEXT, **{each: 3}) for each in (name, "max_tokens")]
    assert len({str(getattr(answer, "text", answer)) for answer in answers}) == 1


def test_names_that_mean_the_same_may_be_bound(tiny_engine: Engine) -> None:
    bound = ChatDiffusionGemma(engine=tiny_engine, seed=1).bind(num_predict=3, stop_sequences=["zzz"])
    assert bound.invoke(TEXT).usage_metadata["output_tokens"] <= 3


@EACH
def test_two_names_of_one_setting_are_both_named(model_class: Any) -> None:
    with pytest.raises(ValueError, match="num_predict=5 and max_tokens=6 are the same setting"):
        model_class(num_predict=5, max_tokens=6)
    with pytest.raises(ValueError, match="num_ctx=5 and context_window=6 are the same setting"):
        model_class(num_ctx=5, context_window=6)


def test_two_stops_of_one_call_are_refused(tiny_engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"stop=\['a'\] was given twice"):
        ChatDiffusionGemma(engine=tiny_engine).invoke(TEXT, stop=["a"], stop_sequences=["b"])


@EACH
def test_a_foreign_load_setting_of_a_call_belongs_to_the_model_object(model_class: Any, tiny_engine: Engine) -> None:
    model = model_class(engine=tiny_engine)
    call = model.complete if model_class is DiffusionGemma else model.invoke
    with pytest.raises(ValueError, match=r"'num_ctx' \(give the model object max_context"):
        call(TEXT, num_ctx=5)
    with pytest.raises(ValueError, match=r"'options' \(write its entries as keyword arguments: max_tokens=5\)"):
        call(TEXT, options={"num_predict": 5})


def test_other_classes_with_an_engine_take_the_names_too() -> None:
    questions = {"q": {"type": "bool", "text": "x"}}
    with pytest.raises(ValueError, match=r"'num_predict' \(no counterpart here\)"):
        DiffusionGemmaClassifier(questions=questions, num_predict=3)


@pytest.mark.parametrize("name", ["llama3", "gpt-4o", "llama3.1:8b"])
@EACH
def test_a_model_name_of_another_program_is_answered(model_class: Any, name: str) -> None:
    model = model_class(model=name)
    call = model.complete if model_class is DiffusionGemma else model.invoke
    with pytest.raises(CheckpointError, match=f"model='{name}'.*'embedded'"):
        call(TEXT)


@EACH
def test_a_loaded_model_as_model_is_answered(model_class: Any) -> None:
    with pytest.raises(ValueError, match=r"engine=Engine\.from_model\(model, tokenizer\)"):
        model_class(model=torch.nn.Linear(1, 1))
