"""A wrong setting of a model object: the error names the value and the remedy, through both frameworks."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dgemma_core import Engine, LoadSpec, Question
from dgemma_core.api.requirements import explained_imports, unmet
from dgemma_core.engine import without_effect
from dgemma_core.errors import CheckpointError, ContextOverflowError, DGemmaError, RequestTimeoutError
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM
from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.shared.facts import checkpoint_facts
from dgemma_integrations.shared.unheard import tell_unheard

MODELS = pytest.mark.parametrize("model_class", [ChatDiffusionGemma, DiffusionGemmaLLM, DiffusionGemma])


def ask(model: Any, **settings: Any) -> Any:
    return model.complete("fox", **settings) if isinstance(model, DiffusionGemma) else model.invoke("fox", **settings)


@MODELS
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "llama3:8b"}, "model='llama3:8b': no such folder"),
        ({"model": "/no/such/folder"}, "model='/no/such/folder': no such folder"),
        ({"device": "xpu"}, "device='xpu': this machine or this build of torch has no such device"),
        ({"device": "cpu:3"}, "device='cpu:3': this machine has 1 of this kind"),
        ({"device": "cpu", "quantization": "nf4"}, "quantization='nf4' needs a CUDA device"),
        ({"revision": "main"}, "revision='main': model='embedded' is inside the package"),
    ],
)
def test_a_model_is_checked_when_the_object_is_made(model_class: Any, settings: dict[str, Any], message: str) -> None:
    model_class(**settings)  # Without the switch, nothing is read.
    with pytest.raises(CheckpointError) as caught:
        model_class(**settings, validate_model_on_init=True)
    assert message in str(caught.value)


def test_a_good_model_is_checked_without_its_weights_being_loaded(tiny_checkpoint: str) -> None:
    spec = LoadSpec(model=tiny_checkpoint, max_queue=77)
    for model_class in (ChatDiffusionGemma, DiffusionGemmaLLM, DiffusionGemma):
        model_class(model=tiny_checkpoint, max_queue=77, validate_model_on_init=True)
    questions = {"late": Question("bool", "Is it late?")}
    DiffusionGemmaClassifier(questions=questions, model=tiny_checkpoint, max_queue=77, validate_model_on_init=True)
    with Engine.shared(spec) as engine:
        assert engine.stats().weight_loads == 0


def test_damaged_weights_are_found_when_the_object_is_made(tmp_path: Path, tiny_checkpoint: str) -> None:
    for file in Path(tiny_checkpoint).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 3000 if file.suffix == ".safetensors" else None])
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        ChatDiffusionGemma(model=str(tmp_path), validate_model_on_init=True)


@MODELS
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", 3, "model=3: must be a text such as 'embedded'"),
        ("model", "", "model='': give 'embedded', a Hub id or a local folder"),
        ("device", 0, "device=0: must be a text such as 'auto'"),
        ("dtype", "bf16", "dtype='bf16': choose one of auto, float32, bfloat16, float16"),
        ("quantization", "4bit", "quantization='4bit': choose None, int8 or nf4"),
        ("max_context", 0, "max_context=0: must be an integer of at least 1"),
        ("engine", "embedded", "engine='embedded': must be a dgemma_core.Engine"),
    ],
)
def test_a_bad_value_is_named_in_one_line(model_class: Any, name: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model_class(**{name: value})
    assert any(message in line for line in str(caught.value).splitlines())


@MODELS
def test_none_is_the_default(model_class: Any) -> None:
    names = ("model", "revision", "device", "dtype", "quantization", "max_context", "max_batch_tokens", "max_queue",
             "prefix_cache_bytes")  # fmt: skip
    assert model_class(**dict.fromkeys(names))._spec() == LoadSpec()


def test_facts_of_a_name_that_is_none() -> None:
    for model in ("llama3:8b", "a/b/c", "x" * 300, "a\0b"):
        assert checkpoint_facts(LoadSpec(model=model)).window is None
        with pytest.raises(CheckpointError, match="no such folder"):
            _ = DiffusionGemma(model=model).metadata


@MODELS
def test_a_timeout_names_value_time_and_place(model_class: Any) -> None:
    with pytest.raises(RequestTimeoutError, match=r"timeout=1e-06: .* dropped after [0-9.e-]+ s, in the queue; give"):
        ask(model_class(timeout=1e-6))


@MODELS
def test_a_temperature_without_effect_is_told_once(model_class: Any, caplog: pytest.LogCaptureFixture) -> None:
    without_effect._tell_mild.cache_clear()
    with caplog.at_level(logging.WARNING, "dgemma_core"):
        for temperature in (0.3, 0.3, 0, 1.2, None):
            ask(model_class(temperature=temperature, decoding="diffusion", max_tokens=1))
    (told,) = caplog.messages
    assert told.startswith("temperature=0.3: with decoding='diffusion' every value above 0 and up to 0.8 keeps")


@MODELS
def test_a_window_wider_than_the_checkpoints_is_told(
    model_class: Any, caplog: pytest.LogCaptureFixture, tiny_checkpoint: str
) -> None:
    settings = {"model": tiny_checkpoint, "max_context": 5000, "max_queue": len(model_class.__name__)}
    with caplog.at_level(logging.WARNING, "dgemma_core"):
        for _ in range(2):
            ask(model_class(**settings, max_tokens=2))
    (told,) = caplog.messages
    assert told.startswith("max_context=5000: the checkpoint's context window holds 2048 tokens")


WITHOUT = """
import sys
sys.modules[{hidden!r}] = None
try:
    import {module}
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("hidden", "module", "extra"),
    [
        ("langchain_core", "dgemma_integrations.langchain", "dgemma[langchain]"),
        ("langchain_core", "langchain_diffusiongemma", "dgemma[langchain]"),
        ("llama_index.core", "dgemma_integrations.llama_index", "dgemma[llama-index]"),
        ("llama_index.core", "llama_index.llms.diffusion_gemma", "dgemma[llama-index]"),
    ],
)
def test_a_framework_is_missing(hidden: str, module: str, extra: str) -> None:
    code = WITHOUT.format(hidden=hidden, module=module)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f'pip install -U "{extra}"' in ran.stdout
    assert hidden in ran.stdout


def test_torch_is_missing() -> None:
    code = WITHOUT.format(hidden="torch", module="dgemma_core; dgemma_core.Engine")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install -U "dgemma"' in ran.stdout


def test_a_package_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"torch": "2.12.0", "transformers": "4.57.1", "langchain-core": "1.5"}
    extras = ["langchain-core<2,>=1.4; extra == 'langchain'", "rich; extra == 'cli'"]
    needed = ["torch>=2.9", "transformers>=5.11", *extras]
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: needed)
    monkeypatch.setattr("importlib.metadata.version", found.__getitem__)
    said = r"needs transformers>=5\.11, but 4\.57\.1 is installed: pip install"
    with pytest.raises(ModuleNotFoundError, match=said), explained_imports():
        raise ModuleNotFoundError("no diffusion_gemma", name="transformers.models.diffusion_gemma")
    found["transformers"] = "5.23"
    assert unmet("langchain") is None


def test_errors_of_loading_are_the_engines_own(tiny_checkpoint: str) -> None:
    """Never a ValueError or TypeError, which LlamaIndex's synthesizers swallow."""
    for settings in ({"device": "cpu:9"}, {"revision": "x"}, {"quantization": "int8", "device": "cpu"}):
        with pytest.raises(DGemmaError) as caught:
            ask(DiffusionGemma(model=tiny_checkpoint, **settings))
        assert not isinstance(caught.value, ValueError | TypeError)


@MODELS
def test_a_setting_of_the_object_given_at_a_call_says_so(model_class: Any, tiny_engine: Engine) -> None:
    for name, value in {"device": "cpu", "allow_image_urls": True}.items():
        with pytest.raises(ValueError, match=rf"'{name}' \(give it when the model object is made\)"):
            ask(model_class(engine=tiny_engine), **{name: value})


@MODELS
@pytest.mark.parametrize(("number", "text"), [(0, "cuda:0"), (1, "cuda:1"), (-1, "cpu")])
def test_a_device_number_is_answered_with_the_text(model_class: Any, number: int, text: str) -> None:
    with pytest.raises(ValueError, match=f"device={number}: must be a text such as 'auto'; write device='{text}'"):
        model_class(device=number)


@MODELS
def test_a_number_written_as_a_text_is_refused(model_class: Any) -> None:
    for name in ("temperature", "timeout", "t_max", "max_tokens"):
        with pytest.raises(ValueError, match=name):
            model_class(**{name: "1"})


def test_drafts_that_nobody_can_see_are_told(tiny_engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    tell_unheard.cache_clear()
    chat = ChatDiffusionGemma(engine=tiny_engine, max_tokens=4)
    for _ in range(2):
        chat.invoke("fox", draft_events=True)
    DiffusionGemma(engine=tiny_engine, max_tokens=4).complete("fox", drafts=True)
    list(DiffusionGemma(engine=tiny_engine, max_tokens=4).stream_complete("fox", drafts=True))
    assert [record.getMessage().partition(";")[0] for record in caplog.records if "no drafts" in record.message] == [
        "draft_events=True: this method shows no drafts",
        "drafts=True: this method shows no drafts",
    ]


def test_a_listener_that_is_no_function_is_refused(tiny_engine: Engine) -> None:
    with pytest.raises(ValueError, match="on_draft=5: must be a function"):
        ChatDiffusionGemma(engine=tiny_engine).invoke("fox", on_draft=5)


@MODELS
def test_a_prompt_longer_than_the_window_is_not_blamed_on_the_answer(model_class: Any, tiny_checkpoint: str) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        ask(model_class(model=tiny_checkpoint, max_context=2))
    assert "fewer passages" in str(caught.value)
    assert "lower" not in str(caught.value)
