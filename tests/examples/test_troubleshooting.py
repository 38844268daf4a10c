"""The page "When something goes wrong": a program here raises every message on it, and every program has its place."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DiffusionGemmaForBlockDiffusion

from dgemma_core import Engine, Grammar, Image, LoadSpec, Message, SamplingParams
from dgemma_core.api.requirements import explained_imports
from dgemma_core.checkpoint.device_checks import check_dtype
from dgemma_core.checkpoint.files import checkpoint_folder
from dgemma_core.checkpoint.quantized import quantization_options
from dgemma_core.engine import without_effect
from dgemma_core.engine.worker import Worker
from dgemma_integrations.langchain import ChatDiffusionGemma
from dgemma_integrations.llama_index import DiffusionGemma
from tests.checkpoints import make_model, make_tokenizer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.*)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

HELLO = [Message("user", "fox")]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


class Stage:
    """What the programs need."""

    def __init__(self, checkpoint: str, folder: Path, patch: pytest.MonkeyPatch, engine: Engine) -> None:
        self.checkpoint, self.folder, self.patch, self.engine = checkpoint, folder, patch, engine

    def copy(self) -> Path:
        return Path(shutil.copytree(self.checkpoint, self.folder / "copy"))

    def load(self, model: object, **settings: Any) -> None:
        with Engine(LoadSpec(model=str(model), **{"device": "cpu", **settings})) as engine:
            engine.load()

    def load_with(self, name: str, text: str | None) -> None:
        folder = self.copy()
        (folder / name).unlink() if text is None else (folder / name).write_text(text)
        self.load(folder)

    def load_configured(self, **changes: Any) -> None:
        folder = self.copy()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        self.load(folder)

    def load_tensors(self, change: Callable[[dict[str, Any]], Any]) -> None:
        folder = self.copy()
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        self.load(folder)

    def load_pickles(self) -> None:
        folder = self.copy()
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        self.load(folder)

    def load_cut_short(self) -> None:
        folder = self.copy()
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        self.load(folder)

    def load_shards(self) -> None:
        make_model().save_pretrained(self.folder, max_shard_size="200KB")
        make_tokenizer().save_pretrained(self.folder)
        next(self.folder.glob("*-of-*.safetensors")).unlink()
        self.load(self.folder)

    def load_other_tokenizer(self) -> None:
        folder = self.copy()
        shutil.copy(embedded() / "tokenizer.json", folder / "tokenizer.json")
        self.load(folder)

    def load_too_large(self) -> None:
        def too_large(*_args: Any, **_options: Any) -> Any:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 50 GiB")

        self.patch.setattr(DiffusionGemmaForBlockDiffusion, "from_pretrained", too_large)
        self.load(self.checkpoint)

    def download(self, error: Exception) -> None:
        def failing(*_arguments: object, **_options: object) -> str:
            raise error

        self.patch.setattr(huggingface_hub, "snapshot_download", failing)
        self.load("owner/name")

    def install(self, version: str | None) -> None:
        def found(name: str) -> str:
            if version is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return version

        self.patch.setattr("importlib.metadata.requires", lambda _name: ["torch>=2.9"])
        self.patch.setattr("importlib.metadata.version", found)
        self.import_missing()

    def import_missing(self) -> None:
        with explained_imports("langchain"):
            raise ModuleNotFoundError("No module named 'langchain_core'", name="langchain_core")

    def ask(self, prompt: Any = "fox", **settings: Any) -> None:
        self.engine.submit(prompt, **settings).result()

    def wait_briefly(self) -> None:
        handle = self.engine.submit(HELLO)
        try:
            handle.result(1e-9)
        finally:
            handle.cancel()

    def fill_queue(self) -> None:
        with Engine(LoadSpec(model=self.checkpoint, device="cpu", max_queue=1)) as engine:
            for _ in range(50):
                engine.submit([2, 50])

    def use_closed(self) -> None:
        with Engine(LoadSpec(model=self.checkpoint)) as engine:
            pass
        engine.submit([2, 50])

    def use_forked(self) -> None:
        with Engine(LoadSpec(model=self.checkpoint, device="cpu")) as engine:
            engine.load()
            read, write = os.pipe()
            child = os.fork()
            if not child:
                try:
                    engine.submit([2, 50])
                except Exception as error:
                    os.write(write, str(error).encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            os.close(write)
            with os.fdopen(read) as told:
                raise RuntimeError(told.read())

    def use_dead(self) -> None:
        def broken(_worker: Worker, _loop: Any) -> bool:
            raise SystemExit("broken")

        self.patch.setattr(Worker, "_take_in", broken)
        with Engine(LoadSpec(model=self.checkpoint, device="cpu")) as engine:
            engine.submit([2, 50]).result()

    def count(self, **settings: Any) -> None:
        with Engine(LoadSpec(model=self.checkpoint)) as engine:
            engine.count_tokens(HELLO, **settings)

    def warm(self) -> None:
        without_effect._tell_mild.cache_clear()
        with Engine(LoadSpec(model=self.checkpoint, device="cpu")) as engine:
            engine.submit([2, 50], SamplingParams(temperature=0.5, decoding="diffusion", max_new_tokens=1)).result()


def embedded() -> Path:
    return checkpoint_folder(LoadSpec())


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"

# In the order of the page.
ERRORS: dict[str, Callable[[Stage], object]] = {
    "dgemma needs …, which is not installed: pip install": lambda s: s.install(None),
    "dgemma needs …, but … is installed: pip install": lambda s: s.install("1.13.1"),
    "dgemma cannot import …: pip install": lambda s: s.import_missing(),
    "model=…: no such folder, and not a Hub id of the form 'owner/name'": lambda s: s.load("llama3:8b"),
    "model=… is not a local folder, not in the Hugging Face cache, and the Hub cannot be reached": (
        lambda s: s.load("owner/no-such-name")
    ),
    "model=… could not be fetched from the Hub: …": lambda s: s.download(OSError(28, "No space left on device")),
    "revision=…: … only a Hub id has revisions": lambda s: s.load(s.checkpoint, revision="main"),
    "… has no config.json: …": lambda s: s.load(s.folder),
    "… is a … checkpoint, so its config.json cannot be read": lambda s: s.load_configured(model_type="llama"),
    "… is a git-LFS pointer": lambda s: s.load_with("model.safetensors", POINTER),
    "… cannot be read: … is empty": lambda s: s.load_with("tokenizer.json", ""),
    "… has no tokenizer.json": lambda s: s.load_with("tokenizer.json", None),
    "… has a config.json but no weights: looked for *.safetensors": lambda s: s.load_with("model.safetensors", None),
    "… holds pickled weights only": lambda s: s.load_pickles(),
    "… is cut short or damaged": lambda s: s.load_cut_short(),
    "… files that model.safetensors.index.json names are missing: …": lambda s: s.load_shards(),
    "… lack … tensors": lambda s: s.load_tensors(lambda t: t.pop(next(n for n in t if "q_proj" in n))),
    "… says that the weights are quantized by …, which this engine does not run": (
        lambda s: s.load_configured(quantization_config={"quant_method": "gptq", "bits": 4})
    ),
    "… so it is quantized, but config.json has no quantization_config": (
        lambda s: s.load_tensors(lambda t: t.update({n: t[n].to(torch.int8) for n in list(t) if "q_proj" in n}))
    ),
    "… they belong to different checkpoints": lambda s: s.load_other_tokenizer(),
    "device=… is not a torch device": lambda s: s.load(s.checkpoint, device="gpu"),
    "device=…: this machine or this build of torch has no such device": lambda s: s.load(s.checkpoint, device="hpu"),
    "device=…: this machine has … of this kind": lambda s: s.load(s.checkpoint, device="cpu:3"),
    "dtype=…: … cannot compute with it": lambda _: check_dtype(torch.bfloat16, torch.device("meta")),
    "quantization=… needs a CUDA device": lambda s: s.load(s.checkpoint, quantization="nf4"),
    "quantization=… needs bitsandbytes": (
        lambda s: [
            s.patch.setitem(sys.modules, "bitsandbytes", None),
            quantization_options("nf4", None, torch.device("cuda"), torch.bfloat16),
        ]
    ),
    "the weights of … do not fit into memory": lambda s: s.load_too_large(),
    "…: unknown keyword argument …": lambda _: ChatDiffusionGemma(tempature=1),
    "…=…: choose …": lambda _: DiffusionGemma(dtype="bf16"),
    "…=…: must be …": lambda _: ChatDiffusionGemma(max_tokens=0),
    "canvas_length=…: this checkpoint was trained on canvases of at most …": (
        lambda s: s.ask(params=SamplingParams(canvas_length=500))
    ),
    "…=… has no meaning with decoding=…": lambda _: ChatDiffusionGemma(decoding="diffusion", logprobs=True),
    "…=…: the given engine has …": lambda s: ChatDiffusionGemma(engine=s.engine, dtype="bfloat16"),
    "unknown option …: from_model takes …": lambda _: Engine.from_model(make_model(), make_tokenizer(), device="cpu"),
    "prompts must be a list of prompts": lambda s: s.engine.generate("fox"),
    "… an empty prompt has nothing to answer": lambda s: s.ask(""),
    "prompt: all messages are empty, there is nothing to answer": lambda _: ChatDiffusionGemma().invoke(" "),
    "context length exceeded: …": lambda s: s.ask([Message("user", "fox " * 9000)]),
    "role=…: must be one of …": lambda _: Message("bot", "fox"),  # type: ignore[arg-type]
    "prompt holds …: must be a Message or a token id": lambda s: s.ask([{"role": "user", "content": "fox"}]),
    "this checkpoint has no chat template, so it takes no messages": lambda s: without_template(s),
    "tool_choice=…: must be …": lambda s: s.ask(HELLO, tools=[TOOL], tool_choice="g"),
    "tools hold …: each must be an OpenAI function dict": lambda s: s.ask(HELLO, tools=[print]),
    "image file … cannot be read": lambda _: Image.of("/no/such.png"),
    "the image's … bytes are none of PNG, JPEG, …": lambda _: Image.of(b"abc"),
    "image address …: addresses are not downloaded unless that is allowed": lambda _: Image.of("https://a.b/c.png"),
    "max_new_tokens=…: the shortest answer that fits the grammar takes … tokens": (
        lambda s: s.ask(HELLO, params=SamplingParams(max_new_tokens=2, grammar=Grammar.regex("[0-9]{40}")))
    ),
    "timeout=…: the request did not finish; it was dropped after … s, …": lambda s: s.ask(HELLO, timeout=1e-6),
    "no result within … s; the request is still running": lambda s: s.wait_briefly(),
    "max_queue=…: … requests are waiting": lambda s: s.fill_queue(),
    "the engine is closed; make a new one": lambda s: s.use_closed(),
    "the process was forked after this engine had started": lambda s: s.use_forked(),
    "the engine's worker thread ended: …": lambda s: s.use_dead(),
}
WARNINGS: dict[str, Callable[[Stage], object]] = {
    "device='auto' is the CPU here: …": lambda s: on_a_cpu(s),
    "max_context=…: the checkpoint's context window holds … tokens": lambda s: s.load(s.checkpoint, max_context=9999),
    "max_batch_tokens=…: a canvas of this checkpoint has … tokens": lambda s: s.load(s.checkpoint, max_batch_tokens=5),
    "prefix_cache_bytes=…: keys and values of one token take … bytes": (
        lambda s: s.load(s.checkpoint, prefix_cache_bytes=5)
    ),
    "prefix_cache_bytes=…: the device has … bytes of memory": lambda s: s.load(s.checkpoint, prefix_cache_bytes=10**15),
    "temperature=…: with decoding='diffusion' every value above 0 and up to": lambda s: s.warm(),
    "tools: this checkpoint's chat template has no place for them": lambda s: s.count(tools=[TOOL]),
    "thinking=True: this checkpoint's chat template has no such switch": lambda s: s.count(thinking=True),
}


def without_template(stage: Stage) -> None:
    folder = stage.copy()
    (folder / "chat_template.jinja").unlink()
    with Engine(LoadSpec(model=str(folder))) as engine:
        engine.submit(HELLO)


def on_a_cpu(stage: Stage) -> None:
    stage.patch.setattr(torch.cuda, "is_available", lambda: False)
    stage.patch.setattr(torch.backends.mps, "is_available", lambda: False)
    stage.load(stage.checkpoint, device="auto")


@pytest.fixture
def stage(tiny_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded_engine: Engine) -> Stage:
    return Stage(tiny_checkpoint, tmp_path, monkeypatch, embedded_engine)


def says(heading: str, message: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in heading.split("…"))
    return re.search(pattern, message, re.DOTALL) is not None


def test_the_page_has_these_messages_in_this_order() -> None:
    assert [*ERRORS, *WARNINGS] == HEADINGS


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("heading", ERRORS)
def test_an_error_of_the_page(heading: str, stage: Stage) -> None:
    with pytest.raises((ValueError, RuntimeError, ImportError)) as caught:
        ERRORS[heading](stage)
    assert says(heading, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("heading", WARNINGS)
def test_a_line_in_the_log_of_the_page(heading: str, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dgemma_core")
    WARNINGS[heading](stage)
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("dgemma_")]
    assert says(heading, line), line
