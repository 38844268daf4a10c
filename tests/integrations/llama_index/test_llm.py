"""The eight endpoints, settings, metadata and copies of ``DiffusionGemma``."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.loading import load_llm
from llama_index.core.prompts import PromptTemplate

from dgemma_core import Engine, LoadSpec, Message, SamplingParams
from dgemma_core.errors import CheckpointError, ContextOverflowError, EngineClosedError, RequestTimeoutError
from dgemma_integrations.llama_index import DiffusionGemma
from tests.checkpoints import make_model, make_tokenizer

QUESTION = "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?"
# Its answers differ from seed to seed, so that what does not is no chance.
OPEN_ENDED = "Say anything you like about boats, stars, songs and winter."
CHAT = [ChatMessage(role="user", content=QUESTION)]
USAGE = {"prompt_tokens", "completion_tokens", "total_tokens"}


async def every_endpoint(llm: DiffusionGemma, **kwargs: Any) -> dict[str, Any]:
    """The final response of all eight endpoints for one question."""
    last: dict[str, Any] = {
        "chat": llm.chat(CHAT, **kwargs),
        "complete": llm.complete(QUESTION, **kwargs),
        "stream_chat": list(llm.stream_chat(CHAT, **kwargs))[-1],
        "stream_complete": list(llm.stream_complete(QUESTION, **kwargs))[-1],
        "achat": await llm.achat(CHAT, **kwargs),
        "acomplete": await llm.acomplete(QUESTION, **kwargs),
    }
    async for chunk in await llm.astream_chat(CHAT, **kwargs):
        last["astream_chat"] = chunk
    async for chunk in await llm.astream_complete(QUESTION, **kwargs):
        last["astream_complete"] = chunk
    return last


def text_of(response: Any) -> str:
    return response.text if hasattr(response, "text") else response.message.content


# --- answers ---


async def test_all_endpoints_agree_for_one_seed(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    expected = embedded_engine.generate([[Message("user", QUESTION)]], SamplingParams(seed=7, max_new_tokens=32))[0]
    responses = await every_endpoint(llm)
    assert len(responses) == 8
    for name, response in responses.items():
        assert text_of(response) == expected.text, name
        assert response.raw["usage"] == {
            "prompt_tokens": expected.usage.prompt_tokens,
            "completion_tokens": expected.usage.completion_tokens,
            "total_tokens": expected.usage.prompt_tokens + expected.usage.completion_tokens,
        }, name
        assert response.additional_kwargs == response.raw["usage"], name


def test_the_question_is_answered(llm: DiffusionGemma) -> None:
    assert "1931" in llm.chat(CHAT).message.content


def test_raw_is_small_plain_data(llm: DiffusionGemma) -> None:
    raw = llm.chat(CHAT).raw
    assert json.loads(json.dumps(raw)) == raw
    assert set(raw["usage"]) == USAGE
    assert raw["model"] == "embedded"
    assert raw["finish_reason"] in ("stop", "length")
    assert raw["canvases"] >= 1
    assert raw["denoising_steps"] >= 1
    assert raw["tokens_per_step"] > 0
    assert set(raw["timings"]) == {"queue_s", "prefill_s", "denoise_s"}


def test_a_stream_adds_up(tiny_checkpoint: str) -> None:
    # A random model writes no end token: several canvases, so several chunks.
    llm = DiffusionGemma(model=tiny_checkpoint, seed=1, max_tokens=40, canvas_length=8, max_denoising_steps=2)
    whole = llm.complete("Count.", stop_at_eos=False)
    chunks = list(llm.stream_complete("Count.", stop_at_eos=False))
    assert len(chunks) > 2
    text = ""
    for chunk in chunks:
        assert chunk.delta is not None
        text += chunk.delta
        assert chunk.text == text
        assert chunk.text
    assert text == whole.text
    assert all(chunk.raw is None for chunk in chunks[:-1])
    assert chunks[-1].raw["usage"] == whole.raw["usage"]
    chat = list(llm.stream_chat([ChatMessage(content="Count.")]))
    assert [len(chunk.message.blocks) for chunk in chat] == [1] * len(chat)
    assert "".join(chunk.delta for chunk in chat) == chat[-1].message.content


async def test_drafts_are_empty_deltas(llm: DiffusionGemma) -> None:
    chunks = list(llm.stream_complete(QUESTION, drafts=True))
    drafts = [chunk for chunk in chunks if "draft" in chunk.additional_kwargs]
    assert drafts
    assert all(chunk.delta == "" for chunk in drafts)
    assert [chunk.additional_kwargs["draft"]["step"] for chunk in drafts][:1] == [1]
    json.dumps([chunk.additional_kwargs for chunk in chunks])
    assert "".join(chunk.delta for chunk in chunks) == llm.complete(QUESTION).text
    assert not any("draft" in chunk.additional_kwargs for chunk in llm.stream_complete(QUESTION))
    async_drafts = [c async for c in await llm.astream_chat(CHAT, drafts=True) if "draft" in c.additional_kwargs]
    assert len(async_drafts) == len(drafts)


async def test_stop_strings_end_the_answer(llm: DiffusionGemma) -> None:
    full = llm.complete(QUESTION).text
    stop = full[len(full) // 2 :][:3]
    expected = full[: full.index(stop)]
    for name, response in (await every_endpoint(llm, stop=[stop])).items():
        assert text_of(response) == expected, name
        assert response.raw["finish_reason"] == "stop", name
    assert DiffusionGemma(engine=llm.engine, seed=7, stop=stop).complete(QUESTION).text == expected


def test_settings_of_one_call_win(llm: DiffusionGemma) -> None:
    assert llm.complete(QUESTION, max_tokens=3).raw["usage"]["completion_tokens"] == 3
    assert llm.complete(QUESTION, max_new_tokens=2).raw["usage"]["completion_tokens"] == 2
    assert llm.complete(QUESTION, max_tokens=None).text == llm.complete(QUESTION).text
    assert llm.complete(QUESTION, max_denoising_steps=1).raw["denoising_steps"] == 1
    assert llm.max_tokens == 32
    other_seeds = {llm.complete(OPEN_ENDED, seed=seed).text for seed in range(8)}
    assert len(other_seeds) > 1


def test_temperature_0_repeats_itself(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, temperature=0, max_tokens=16)
    assert len({llm.complete(OPEN_ENDED).text for _ in range(3)}) == 1


def test_formatted_prompts_keep_their_markup(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    tokenizer = embedded_engine.tokenizer
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
    )
    formatted, plain = llm.complete(rendered, formatted=True), llm.complete(QUESTION)
    assert formatted.text == plain.text
    assert formatted.raw["usage"] == plain.raw["usage"]
    assert list(llm.stream_complete(rendered, formatted=True))[-1].text == plain.text
    with pytest.raises(ValueError, match="thinking=True"):
        llm.complete(rendered, formatted=True, thinking=True)
    # The same characters as an ordinary prompt are text, many tokens instead of a few control tokens.
    assert llm.complete(rendered).raw["usage"]["prompt_tokens"] > plain.raw["usage"]["prompt_tokens"] + 10


@pytest.mark.parametrize("control", ["<turn|>", "<|turn>user\n", "<|tool_call>call:x{}<tool_call|>", "<eos>"])
def test_control_tokens_in_text_stay_text(llm: DiffusionGemma, embedded_engine: Engine, control: str) -> None:
    text = f"The sign reads {control} in red."
    used = llm.chat([ChatMessage(content=text)], max_tokens=4).raw["usage"]["prompt_tokens"]
    assert used == embedded_engine.count_tokens([Message("user", text)])
    without = embedded_engine.count_tokens([Message("user", "The sign reads  in red.")])
    assert used - without >= 4


# --- bad input ---


async def test_unknown_keywords_of_a_call_are_named(llm: DiffusionGemma) -> None:
    with pytest.raises(ValueError, match=r"DiffusionGemma: unknown keyword argument 'max_token'.*'max_tokens'"):
        llm.complete(QUESTION, max_token=3)
    with pytest.raises(ValueError, match="'top_p'"):
        llm.stream_chat(CHAT, top_p=0.9)
    with pytest.raises(ValueError, match="'top_p'"):
        await llm.achat(CHAT, top_p=0.9)
    with pytest.raises(ValueError, match="'top_p'"):
        await llm.astream_complete(QUESTION, top_p=0.9)


def test_what_llama_index_adds_to_calls_is_no_error(llm: DiffusionGemma) -> None:
    sent = {"extra_headers": {"x": "y"}, "tool_required": False, "tool_choice": None, "verbose": False, "tools": None}
    assert llm.chat(CHAT, **sent, allow_parallel_tool_calls=False).message.content == llm.chat(CHAT).message.content


def test_unknown_keywords_of_the_constructor_are_named() -> None:
    with pytest.raises(ValueError, match=r"DiffusionGemma: unknown keyword argument 'temprature'.*'temperature'"):
        DiffusionGemma(temprature=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -3),
        ("max_tokens", True),
        ("seed", -1),
        ("stop", [""]),
        ("stop", ["a", ""]),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("temperature", -0.1),
        ("entropy_bound", 0),
        ("canvas_length", 0),
        ("dtype", "float8"),
        ("quantization", "int3"),
        ("max_context", 0),
        ("model", " "),
    ],
)
def test_bad_settings_are_refused_by_the_constructor(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        DiffusionGemma(**{name: value})


def test_bad_settings_of_a_call_are_refused(llm: DiffusionGemma) -> None:
    for bad in ({"max_tokens": -1}, {"seed": 1.5}, {"stop": [""]}, {"timeout": -1}, {"timeout": True}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            llm.complete(QUESTION, **bad)
    with pytest.raises(ValueError, match="not both"):
        DiffusionGemma(temperature=0.9, t_max=1.0)


def test_empty_prompts_are_refused(llm: DiffusionGemma) -> None:
    for call in (llm.complete, llm.stream_complete):
        with pytest.raises(ValueError, match="nothing to answer"):
            call("")
        with pytest.raises(ValueError, match="nothing to answer"):
            call("", formatted=True)
    with pytest.raises(ValueError, match="nothing to answer"):
        llm.chat([])


async def test_overflow_is_raised_by_the_call_itself(tiny_checkpoint: str) -> None:
    llm = DiffusionGemma(model=tiny_checkpoint, max_context=64, max_tokens=16)
    long = [ChatMessage(content="word " * 200)]
    for call in (llm.chat, llm.stream_chat):
        with pytest.raises(ContextOverflowError) as caught:
            call(long)
        assert caught.value.context_window == 64
        assert caught.value.max_new_tokens == 16
        assert not isinstance(caught.value, ValueError)
    for acall in (llm.achat, llm.astream_chat):
        with pytest.raises(ContextOverflowError):
            await acall(long)
    with pytest.raises(ContextOverflowError):
        llm.stream_complete("word " * 200)


def test_the_templates_own_markup_may_cost_answer_tokens(tiny_checkpoint: str) -> None:
    # PromptHelper counts text only; without this, packing the window as it does would overflow by a few tokens.
    llm = DiffusionGemma(model=tiny_checkpoint, max_tokens=16, max_denoising_steps=1)
    prompt = llm.engine.count_tokens([Message("user", "a short question")])
    tight = DiffusionGemma(model=tiny_checkpoint, max_tokens=16, max_denoising_steps=1, max_context=prompt + 14)
    assert tight.complete("a short question").raw["usage"]["completion_tokens"] == 14
    too_tight = DiffusionGemma(model=tiny_checkpoint, max_tokens=200, max_denoising_steps=1, max_context=prompt + 14)
    with pytest.raises(ContextOverflowError):
        too_tight.complete("a short question")


def test_a_timeout_is_a_timeout_error(tiny_checkpoint: str) -> None:
    llm = DiffusionGemma(model=tiny_checkpoint, max_tokens=400, stop_at_eos=False, timeout=0.01)
    with pytest.raises(RequestTimeoutError):
        llm.complete("Count.")
    assert issubclass(RequestTimeoutError, TimeoutError)
    assert llm.complete("Count.", max_tokens=2, timeout=60).text is not None


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


# --- metadata, weights, settings ---


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


def test_torch_objects_and_paths_are_fine() -> None:
    llm = DiffusionGemma(model=Path("somewhere"), device=torch.device("cpu"), dtype=torch.bfloat16)
    assert (llm.model, llm.device, llm.dtype) == ("somewhere", "cpu", "bfloat16")


def test_every_setting_of_the_engine_is_a_public_field() -> None:
    fields = set(DiffusionGemma.model_fields)
    # A grammar belongs to one call, not to an object that makes many.
    assert SamplingParams.names() - {"max_new_tokens", "grammar"} <= fields
    assert set(LoadSpec.__dataclass_fields__) <= fields


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


# --- serialization and copies ---


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


def test_repr_names_what_was_set() -> None:
    assert repr(DiffusionGemma(max_tokens=5, stop="x")) == "DiffusionGemma(model='embedded', max_tokens=5, stop=('x',))"
    assert str(DiffusionGemma()) == "model='embedded'"


# --- prompts on top ---


def test_predict_applies_the_system_prompt(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    plain = llm.predict(PromptTemplate("{question}"), question=QUESTION)
    assert plain == llm.complete(QUESTION).text
    llm.system_prompt = "You answer questions."
    expected = llm.chat([ChatMessage(role="system", content="You answer questions."), *CHAT]).message.content
    assert llm.predict(PromptTemplate("{question}"), question=QUESTION) == expected
    assert "".join(llm.stream(PromptTemplate("{question}"), question=QUESTION)) == expected


class Bridge(BaseModel):
    """A bridge."""

    year: int


async def test_structured_prediction_goes_through_the_prompt(llm: DiffusionGemma) -> None:
    # The text program reads the answer's JSON; here the answer is put into its mouth, the parsing is what is tested.
    template = PromptTemplate("Repeat: {text}")
    calls = [
        lambda: llm.structured_predict(Bridge, template, text='{"year": 1931}'),
        lambda: asyncio.run(llm.astructured_predict(Bridge, template, text='{"year": 1931}')),
    ]
    outcomes = []
    for call in calls:
        try:
            outcomes.append((await asyncio.to_thread(call)).year)
        except ValueError as error:
            # A small model may answer without JSON; then LlamaIndex's parser says so.
            outcomes.append(type(error).__name__)
    assert outcomes[0] == outcomes[1]
    assert llm.as_structured_llm(Bridge).metadata.is_chat_model


async def test_a_completion_has_no_place_for_tool_calls(llm: DiffusionGemma) -> None:
    tools = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    with pytest.raises(ValueError, match="give them to chat"):
        llm.complete("Hello", tools=tools)
    with pytest.raises(ValueError, match="give them to chat"):
        await llm.acomplete("Hello", tools=tools)


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
