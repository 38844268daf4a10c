"""Records the steps that backends are tested with: ``python -m tests.core.execution.record_steps``.

Every scenario is an engine on a tiny random model whose backend logs its calls. Requests of one ``together`` are queued
before the first step, so the same steps are recorded every time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from dgemma_core import Engine, Grammar, Hole, Image, LoadSpec, Message, Question, Request, SamplingParams
from dgemma_core.engine.decision_requests import asked
from dgemma_core.execution.eager import EagerBackend
from dgemma_core.execution.recording import Recording, RecordingBackend
from tests.checkpoints import make_model, make_tokenizer, save_checkpoint

FOLDER = Path(__file__).parent / "recorded"
# Damped, so that rounding does not grow from step to step; with scales, so that one that is left out shows.
WEIGHTS: dict[str, Any] = {"damping": 0.5, "varied_scales": True, "sliding_window": 12, "vocab_size": 320}
DEEPER = ("sliding_attention", "sliding_attention", "full_attention")


@dataclass(frozen=True)
class Scenario:
    """What is recorded.

    Attributes:
        drive: sends requests.
        weights: options of ``make_model``, beside ``WEIGHTS``.
        limits: options of the engine.
        images: whether requests have images, whose processor needs a folder.
    """

    drive: Callable[[Engine], None]
    weights: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    images: bool = False


def together(engine: Engine, *requests: Request) -> None:
    """Queue requests at once and wait for their answers."""
    sequences = [engine._admission.sequence(request) for request in requests]
    engine._worker.submit(*sequences)
    for sequence in sequences:
        sequence.handle.result()


def prompt(length: int, seed: int) -> list[int]:
    """A prompt of random tokens that are no control tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [2, *torch.randint(20, 300, (length - 1,), generator=generator).tolist()]


def picture(seed: int) -> Image:
    """Blocks of random colors; 5 to 1, so that few tokens show it."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (2, 6, 3), generator=generator, dtype=torch.uint8)
    return Image.from_pil(PIL.Image.fromarray(small.numpy()).resize((200, 40), PIL.Image.Resampling.NEAREST))


def canvases(engine: Engine) -> None:
    """One request, two whole canvases: the first is committed in the pass of the second one's first step."""
    together(engine, Request(prompt(20, 1), SamplingParams(seed=1, max_new_tokens=32)))


def crowd(engine: Engine) -> None:
    """Prompts of all lengths within a small budget, with canvases and temperatures of their own."""
    lengths = ((5, 21, 16), (60, 32, 16), (9, 10, 16), (33, 14, 8))
    together(
        engine,
        *(
            Request(
                prompt(tokens, seed=i),
                SamplingParams(seed=i, max_new_tokens=new, canvas_length=canvas, t_max=0.8 + 0.1 * i),
            )
            for i, (tokens, new, canvas) in enumerate(lengths)
        ),
    )


def prefixes(engine: Engine) -> None:
    """Prompts that begin alike: in one pass, and one after the other."""
    common, params = prompt(40, 1), SamplingParams(seed=3, max_new_tokens=12)
    together(engine, *(Request([*common, *prompt(4 + i, 10 + i)], params) for i in range(3)))
    together(engine, Request([*common, *prompt(6, 20)], params))


def grammar(engine: Engine) -> None:
    """An answer that fits a grammar, beside a free one: pinned tokens, repairs, and what is disturbed by them."""
    properties = {"a": {"enum": ["fox", "dog"]}, "b": {"type": "boolean"}}
    schema = Grammar.json_schema({"type": "object", "properties": properties, "required": ["a", "b"]})
    together(
        engine,
        Request(prompt(12, 1), SamplingParams(seed=2, max_new_tokens=24, grammar=schema)),
        Request(prompt(7, 2), SamplingParams(seed=5, max_new_tokens=16)),
    )


def decisions(engine: Engine) -> None:
    """Typed questions on two canvases, read from two draws of noise, beside a canvas that is denoised."""
    questions = {
        "quick": Question("bool", "quick?"),
        "animal": Question("choice", "who?", options=["fox", "dog", "lazy"]),
        "brown": Question("bool", "brown?"),
    }
    other = engine._admission.sequence(Request(prompt(9, 1), SamplingParams(seed=1, max_new_tokens=6)))
    asking = asked(engine._admission, "The quick brown fox", questions, 2, seed=0, timeout=None)
    engine._worker.submit(*asking.sequences, other)
    for handle in (*asking.handles, other.handle):
        handle.result()


def infilling(engine: Engine) -> None:
    """Holes between pinned texts, one of them with a grammar."""
    hole = Hole(3, Grammar.choice(["fox", "dog"]))
    engine.infill(["The quick ", Hole(4), " jumps over ", hole, " dog."], SamplingParams(seed=1))


def verified(engine: Engine) -> None:
    """Answers whose drafts are verified, beside a typed and a denoised one: the canvas's draft, and one looked up."""
    common = {"decoding": "verified", "max_new_tokens": 24}
    repeated = [*prompt(9, 1), *prompt(9, 1)[1:]]
    together(
        engine,
        Request(repeated, SamplingParams(seed=1, **common)),
        Request(prompt(30, 2), SamplingParams(seed=2, temperature=0.7, logprobs=True, top_logprobs=3, **common)),
        Request(repeated[:12], SamplingParams(seed=3, temperature=1.2, top_k=30, top_p=0.9, min_p=0.01, **common)),
        Request(prompt(7, 3), SamplingParams(decoding="typewriter", max_new_tokens=6)),
        Request(prompt(8, 4), SamplingParams(seed=4, max_new_tokens=16)),
    )
    choice = Grammar.regex("(fox|dog|lazy)( (fox|dog|lazy)){2,5}")
    together(engine, Request(prompt(12, 5), SamplingParams(seed=5, grammar=choice, **common)))


def images(engine: Engine) -> None:
    """Pictures among text, encoded in one pass or in several, from a prefix, and two prompts with the same one."""
    first, second = picture(1), picture(2)
    params = SamplingParams(seed=1, max_new_tokens=8)

    def ask(*content: str | Image) -> Request:
        return Request([Message("user", content)], params)

    together(engine, ask("fox ", first, " dog ", second), ask("fox ", second))
    together(engine, ask("fox ", first, " over"))
    together(engine, ask("dog ", second, " lazy"), ask("dog ", second, " jumps"))


SCENARIOS: dict[str, Scenario] = {
    "canvases": Scenario(canvases, {"seed": 1}),
    "crowd": Scenario(
        crowd, {"seed": 5, "layers": DEEPER, "kv_heads": 4, "global_kv_heads": 2}, {"max_batch_tokens": 40}
    ),
    "prefixes": Scenario(prefixes, {"seed": 3, "top_k": 1}, {"max_batch_tokens": 70}),
    "grammar": Scenario(grammar, {"seed": 6}),
    "decisions": Scenario(decisions, {"seed": 4}),
    "infilling": Scenario(infilling, {"seed": 2}),
    "verified": Scenario(verified, {"seed": 13, "layers": DEEPER}, {"max_batch_tokens": 160}),
    "causal images": Scenario(images, {"seed": 7, "patch_size": 4}, {"max_batch_tokens": 120}, images=True),
    "bidirectional images": Scenario(
        images,
        {"seed": 8, "patch_size": 4, "image_attention": "vision", "layers": DEEPER},
        {"max_batch_tokens": 120},
        images=True,
    ),
}


def record(name: str) -> Recording:
    """Run a scenario and return what its backend was asked."""
    scenario = SCENARIOS[name]
    weights = WEIGHTS | scenario.weights
    backends: list[RecordingBackend] = []

    def recording(model: Any) -> RecordingBackend:
        backends.append(RecordingBackend(EagerBackend(model)))
        return backends[-1]

    with tempfile.TemporaryDirectory() as folder:
        if scenario.images:
            engine = Engine(LoadSpec(model=_with_small_images(Path(folder), weights), threads=1, **scenario.limits))
        else:
            tokenizer = make_tokenizer(weights["vocab_size"])
            engine = Engine.from_model(make_model(**weights), tokenizer, threads=1, **scenario.limits)
        engine._loader.make_backend = recording
        with engine:
            scenario.drive(engine)
    return backends[0].recording(weights)


def _with_small_images(folder: Path, weights: dict[str, Any]) -> str:
    """A checkpoint whose images take at most 70 tokens."""
    save_checkpoint(folder, **weights)
    settings = {
        "image_processor_type": "Gemma4ImageProcessor",
        "max_soft_tokens": 70,
        "patch_size": weights["patch_size"],
    }
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    return str(folder)


def file_of(name: str) -> Path:
    """Where a scenario's recording is kept."""
    return FOLDER / f"{name.replace(' ', '_')}.safetensors.gz"


if __name__ == "__main__":
    for scenario_name in SCENARIOS:
        path = file_of(scenario_name)
        record(scenario_name).save(path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
