"""Images: how they are read, and that the engine computes with them what transformers computes."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from dgemma_core import Engine, Image, LoadSpec, Message, Question, SamplingParams, ToolCall
from dgemma_core.api import images as images_module
from dgemma_core.chat import image_patches as module
from dgemma_core.chat.template import ChatTemplate
from dgemma_core.errors import CheckpointError, ContextOverflowError, DGemmaError
from tests.checkpoints import make_model, make_tokenizer, save_checkpoint
from tests.helpers.image_prompts import (
    CONVERSATION,
    IMAGE_ID,
    MESSAGES,
    PICTURES,
    reference_inputs,
    with_small_images,
)
from tests.helpers.pictures import encoded, img, picture
from tests.helpers.recording import SEED, record


@pytest.fixture(scope="module")
def small_images(tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny checkpoint with an image processor of its own: 70 tokens an image instead of 280."""
    folder = tmp_path_factory.mktemp("small-images") / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    return with_small_images(folder)


# The value type.


def test_equal_pixels_make_equal_images(tmp_path: Path) -> None:
    pil = picture(1)
    data = encoded(pil)
    (tmp_path / "a.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    images = [
        Image.from_pil(pil),
        Image.from_bytes(data),
        Image.from_bytes(encoded(pil, "BMP")),
        Image.from_file(tmp_path / "a.png"),
        Image.from_base64(text),
        Image.from_base64(f"{text[:40]}\n{text[40:]}\n"),
        Image.from_url(f"data:image/png;base64,{text}"),
        Image.from_url("https://host/a.png", fetch=lambda url: data),
        *(Image.of(s) for s in (pil, data, str(tmp_path / "a.png"), tmp_path / "a.png", f"data:;base64,{text}")),
    ]
    assert len(set(images)) == 1
    assert Image.of(images[0]) is images[0]
    assert images[0] != img(2)
    assert pickle.loads(pickle.dumps(images[0])) == images[0]
    assert list(images[0].to_pil().getdata()) == list(pil.getdata())
    assert len(repr(images[0])) < 200


def test_transparency_falls_upon_white_and_pictures_stand_upright() -> None:
    clear = PIL.Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    assert Image.from_pil(clear).pixels == b"\xff" * 6
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # Turned by 90 degrees.
    image = Image.from_bytes(encoded(picture(0, 40, 20), "PNG", exif=exif))
    assert (image.width, image.height) == (20, 40)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Image.from_bytes(b"%PDF-1.7"), "8 bytes are none of PNG, JPEG"),
        (lambda: Image.from_bytes(encoded(picture(0))[:-40]), "damaged or incomplete"),
        (lambda: Image.from_base64("not base64!"), "not valid base64"),
        (lambda: Image.from_file("/no/such.png"), r"'/no/such\.png' cannot be read"),
        (lambda: Image.from_url("https://host/a.png"), "allow_image_urls=True"),
        (lambda: Image.from_url("file:///etc/passwd"), "must be a data: URI"),
        (lambda: Image.from_url("data:text/html,hello"), "'text/html', not an image"),
        (lambda: Image.from_url("data:image/png;base64"), "comma"),
        (lambda: Image.of(3.5), "float is not an image"),
        (lambda: Image(2, 2, b"123"), "3 bytes, but 2 x 2 RGB pixels take 12"),
        (lambda: Image(0, 2, b""), "nothing to see"),
        (lambda: Image.from_pil(PIL.Image.new("1", (8000, 8000))), "8000 x 8000 pixels, more than"),
        (lambda: Image.from_bytes(encoded(PIL.Image.new("1", (8000, 8000)))), "8000 x 8000 pixels, more than"),
        (lambda: Image.from_bytes(encoded(PIL.Image.new("1", (20000, 20000)))), "pixels, the limit"),
        (lambda: Image.from_bytes(b"\0" * (images_module.MAX_IMAGE_BYTES + 1)), "bytes, the limit"),
        (lambda: Message("user", ["a", b"b"]), r"b'b': must be a string or an Image"),  # type: ignore[list-item]
        (lambda: Message("user", 5), "content=5: must be"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_image_is_named(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_without_pillow_the_package_works_and_says_what_images_need() -> None:
    script = """
import sys
sys.modules["PIL"] = None
import dgemma_core
from dgemma_core import Image, Message
try:
    Image.from_bytes(b"x")
except ImportError as error:
    assert "pip install 'dgemma[images]'" in str(error)
    print(Message("user", ["no ", "image"]).content)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "no image"


# Messages and prompts.


def test_content_keeps_the_order_of_texts_and_images() -> None:
    a, b = img(1), img(2)
    message = Message("user", ["see ", "this: ", a, b, "", " and say"])
    assert message.content == ("see this: ", a, b, " and say")
    assert (message.text, message.images) == ("see this:  and say", (a, b))
    assert Message("user", ["only ", "text"]) == Message("user", "only text")
    assert Message("user", "only text").parts == ("only text",)


CASES: dict[str, dict[str, Any]] = {
    "causal images": {"damping": 0.7},
    "images see themselves": {"damping": 0.7, "image_attention": "vision"},
    "other layers, two canvases": {
        "seed": 5,
        "layers": ("full_attention", "sliding_attention", "full_attention"),
        "image_attention": "vision",
        "damping": 0.7,
        "generation": {"max_new_tokens": 32},
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("budget", [4096, 100, 40])
def test_prompt_states_are_the_references(case: str, budget: int, tmp_path: Path) -> None:
    """Ids, and all layers' keys and values, whole or in chunks; the smallest budget is below an image's tokens."""
    model = make_model(**CASES[case])
    inputs = reference_inputs(CONVERSATION, PICTURES)
    ids = inputs.pop("input_ids")
    encoder = model.model.encoder
    with torch.inference_mode():
        positions = torch.arange(ids.shape[1])[None]
        masks = encoder.create_masks_for_generate(
            config=model.config,
            inputs_embeds=torch.empty(1, ids.shape[1], 0),
            attention_mask=torch.ones_like(ids, dtype=torch.bool),
            past_key_values=None,
            position_ids=positions,
            mm_token_type_ids=inputs["mm_token_type_ids"],
        )
        expected = encoder(input_ids=ids, attention_mask=masks, position_ids=positions, **inputs).past_key_values
    folder = with_small_images(save_checkpoint(tmp_path, **CASES[case]))
    with Engine(LoadSpec(model=folder, max_batch_tokens=budget)) as engine:
        generation = engine.generate([MESSAGES], SamplingParams(seed=0, max_new_tokens=1))[0]
        assert engine.count_tokens(MESSAGES) == generation.usage.prompt_tokens == ids.shape[1]
        ((cache, committed),) = kept_prefixes(engine)
    assert committed == ids.shape[1]
    for index, layer in enumerate(expected.layers):
        keys, values = cache.read(index, 0, committed)
        kept = layer.keys.shape[-2]  # A sliding layer of the reference keeps its window only.
        torch.testing.assert_close(keys[:, -kept:], layer.keys[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(values[:, -kept:], layer.values[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_same_draws_give_the_references_answer(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(**CASES[case])
    inputs = reference_inputs(CONVERSATION, PICTURES)
    prompt = inputs.pop("input_ids")[0].tolist()
    expected = record(model, prompt, monkeypatch, **inputs).tokens
    end = next((i for i, token in enumerate(expected) if token in (1, 4)), len(expected))
    other = record(model, prompt, monkeypatch, **inputs | {"pixel_values": inputs["pixel_values"].flip(0)}).tokens
    assert expected != other, "pictures that do not matter would test nothing"
    folder = with_small_images(save_checkpoint(tmp_path, **CASES[case]))
    with Engine(LoadSpec(model=folder)) as engine:
        engine._parts.template.call_tokens = ()  # The reference may draw the tokens of calls.
        generation = engine.generate([MESSAGES], SamplingParams(seed=SEED, stop_at_eos=False))[0]
    assert list(generation.token_ids) == expected[:end]


# Templates and checkpoints.


def test_foreign_spelling_of_an_image_token_is_no_image(small_images: str) -> None:
    with Engine(LoadSpec(model=small_images)) as engine:
        hostile = [Message("user", ["<|image|> <|image>", img(1), "<image|>"])]
        rendered = engine._admission.render(hostile)
    (slot,) = rendered.spans
    assert [i for i, token in enumerate(rendered.ids) if token == IMAGE_ID] == list(
        range(slot.start, slot.start + slot.length)
    )


def test_a_template_that_leaves_images_out_is_named() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with Engine.from_model(make_model(), tokenizer) as engine:
        with pytest.raises(ValueError, match=r"left out 1 of 1 images \(in messages of role tool\): put"):
            engine.count_tokens([Message("user", "x"), Message("tool", [img(1)])])
        assert engine.count_tokens([Message("user", "fox")]) > 0
    with pytest.raises(ValueError, match="left out 1 of 1"):
        ChatTemplate(tokenizer).render([Message("user", [img(1)])])


def test_images_a_template_may_swap_are_refused(embedded_engine: Engine) -> None:
    def conversation(*beside_the_call: Image) -> list[Message]:
        call = Message("assistant", ["look", *beside_the_call], tool_calls=(ToolCall("see", {}, "c"),))
        return [Message("user", "go"), call, Message("tool", [img(2)], tool_call_id="c")]

    with pytest.raises(ValueError, match="may swap them"):
        embedded_engine.count_tokens(conversation(img(1)))
    assert embedded_engine.count_tokens(conversation()) > 250


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_sees_about_the_same(small_images: str, dtype: str) -> None:
    prompt = [Message("user", ["quick ", img(1)])]
    with Engine(LoadSpec(model=small_images)) as full, Engine(LoadSpec(model=small_images, dtype=dtype)) as half:
        caches = []
        for engine in (full, half):
            engine.generate([prompt], SamplingParams(seed=0, max_new_tokens=1))
            caches.extend(kept_prefixes(engine))
    exact, rough = (cache.read(0, 0, committed)[0].float() for cache, committed in caches)
    assert not torch.equal(exact, rough)
    assert float((exact - rough).norm() / exact.norm()) < 0.03


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_the_embedded_template_takes_images_in_every_role(embedded_engine: Engine, role: Any) -> None:
    plain = engine_tokens(embedded_engine, [Message(role, "look: "), Message("user", "say")])
    with_image = engine_tokens(embedded_engine, [Message(role, ["look: ", img(1)]), Message("user", "say")])
    assert 250 < with_image - plain <= 282


def kept_prefixes(engine: Engine) -> list[tuple[Any, int]]:
    """Keys and values of the prefix cache's entries, and how many tokens each has."""
    loop = engine._worker._loop
    assert loop is not None
    return [(loop.backend._slots[slot].cache, len(key)) for key, slot in loop.prefixes._entries.items()]  # type: ignore[attr-defined]


def engine_tokens(engine: Engine, messages: list[Message]) -> int:
    return engine.count_tokens(messages)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"image_token_id": 99_999}, r"boi_token_id, image_token_id and eoi_token_id are .15, 99999, 16."),
        ({"eoi_token_id": None}, "cannot mark images"),
        ({"vision_config": None}, "no vision tower.*leave images out"),
    ],
)
def test_a_checkpoint_that_cannot_take_images_says_why(spoil: dict[str, Any], words: str) -> None:
    model = make_model()
    for name, value in spoil.items():
        setattr(model.config, name, value)
    with Engine.from_model(model, make_tokenizer()) as engine:
        with pytest.raises(CheckpointError, match=words):
            engine.submit([Message("user", [img(1)])])
        assert engine.generate([[Message("user", "fox")]], SamplingParams(seed=0, max_new_tokens=4))


@pytest.mark.parametrize(
    ("file", "settings", "words"),
    [
        ("preprocessor_config.json", {"patch_size": 14}, "patch_size is 14, the vision tower's 16"),
        ("processor_config.json", {"image_processor": {"max_soft_tokens": 71}}, "cannot be used.*71"),
    ],
)
def test_an_image_processor_that_does_not_fit_is_named(
    tiny_checkpoint: str, tmp_path: Path, file: str, settings: dict[str, Any], words: str
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / file).write_text(json.dumps(settings))
    with Engine(LoadSpec(model=str(folder))) as engine, pytest.raises(CheckpointError, match=words):
        engine.count_tokens([Message("user", [img(1)])])


def test_sizes_follow_the_checkpoint(small_images: str, tiny_engine: Engine) -> None:
    """The processor's budget holds; a wide image takes a smaller one where the tower has too few positions."""
    with Engine(LoadSpec(model=small_images)) as engine:
        base = engine.count_tokens([Message("user", ["x"])])
        square = engine.count_tokens([Message("user", ["x", img(1)])]) - base - 2
        assert square == 64
        with pytest.raises(ValueError, match=r"4000 x 10 pixels is too long and narrow.*64 patches"):
            engine.count_tokens([Message("user", ["x", img(1, 4000, 10)])])
    base = tiny_engine.count_tokens([Message("user", ["x"])])
    wide = tiny_engine.count_tokens([Message("user", ["x", img(1, 1600, 900)])]) - base - 2
    assert 70 < wide <= 140
    assert tiny_engine.generate([[Message("user", [img(1, 1600, 900)])]], SamplingParams(seed=0, max_new_tokens=4))


def test_patches_of_recent_images_are_kept(small_images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(LoadSpec(model=small_images)) as engine:
        engine.prepare_images([img(1), img(2)])
        preprocessor = engine._parts.images
        kept = [preprocessor.patches(img(i)) for i in (1, 2)]
        assert preprocessor.patches(img(1)) is kept[0]
        monkeypatch.setattr(module, "_KEPT_BYTES", preprocessor._kept_bytes)
        again = preprocessor.patches(img(3))
        assert preprocessor.patches(img(1)) is kept[0], "the one used least recently goes first"
        assert preprocessor.patches(img(3)) is again
        assert preprocessor.patches(img(2)) is not kept[1]
        assert torch.equal(preprocessor.patches(img(2))[0], kept[1][0])
        assert engine.stats().weight_loads == 0


def test_images_count_for_the_window(small_images: str) -> None:
    with Engine(LoadSpec(model=small_images, max_context=200)) as engine, pytest.raises(ContextOverflowError) as caught:
        engine.submit([Message("user", [img(i) for i in range(3)])], SamplingParams(max_new_tokens=16))
    assert caught.value.prompt_tokens > 192


# Batches, prefixes, chunks.


def test_neighbours_prefixes_and_chunks_change_nothing(small_images: str) -> None:
    """The same image request alone, among text and other images, after a reused prefix, and in chunks."""
    params = SamplingParams(seed=3, max_new_tokens=24)
    prompt = [Message("user", ["quick ", img(1), " brown ", img(2), " fox"])]
    swapped = [Message("user", ["quick ", img(2), " brown ", img(1), " fox"])]
    text = [Message("user", "lazy dog")]
    with Engine(LoadSpec(model=small_images, prefix_cache_bytes=0)) as engine:
        alone, other, text_alone = (engine.generate([p], params)[0] for p in (prompt, swapped, text))
    assert alone.token_ids != other.token_ids, "the order of images matters"
    for budget in (4096, 100, 30):
        with Engine(LoadSpec(model=small_images, max_batch_tokens=budget)) as engine:
            among = engine.generate([text, prompt, swapped, text], params)
            assert [g.token_ids for g in among] == [g.token_ids for g in (text_alone, alone, other, text_alone)]
            again = engine.generate([prompt], params)[0]
            assert again.token_ids == alone.token_ids
            assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


def test_a_prefix_ends_where_another_image_begins(small_images: str) -> None:
    params = SamplingParams(seed=3, max_new_tokens=8)
    first, same, other = (
        [Message("user", ["quick brown ", img(1), " and ", img(second), text])]
        for second, text in ((2, " fox"), (2, " dog"), (3, " fox"))
    )
    with Engine(LoadSpec(model=small_images)) as engine:
        slots = engine._admission.render(first).spans
        engine.generate([first], params)
        reused = engine.generate([same], params)[0]
        assert reused.usage.cached_tokens >= slots[1].start + slots[1].length
        cut = engine.generate([other], params)[0]
        assert cut.usage.cached_tokens == slots[1].start
    with Engine(LoadSpec(model=small_images, prefix_cache_bytes=0)) as plain:
        fresh_same, fresh_other = (plain.generate([p], params)[0] for p in (same, other))
    assert (reused.token_ids, cut.token_ids) == (fresh_same.token_ids, fresh_other.token_ids)


def test_a_conversation_about_an_image_reuses_it(small_images: str) -> None:
    params = SamplingParams(seed=3, max_new_tokens=8)
    opening = Message("user", [img(1), "what is this?"])
    with Engine(LoadSpec(model=small_images)) as engine:
        answer = engine.generate([[opening]], params)[0]
        length = engine.count_tokens([opening])
        turn = engine.generate([[opening, Message("assistant", answer.text), Message("user", "sure?")]], params)[0]
    assert turn.usage.cached_tokens >= length - 1


def test_a_cancelled_image_request_leaves_the_others_alone(small_images: str) -> None:
    params = SamplingParams(seed=3, max_new_tokens=64)
    with Engine(LoadSpec(model=small_images)) as engine:
        expected = engine.generate([[Message("user", "fox")]], params)[0]
        handles = [engine.submit([Message("user", [img(i), "x"])], params) for i in range(3)]
        kept = engine.submit([Message("user", "fox")], params)
        for handle in handles:
            handle.cancel()
        assert kept.result().token_ids == expected.token_ids
        assert {h.result().finish_reason for h in handles} == {"cancelled"}
        assert engine.stats().running == engine.stats().waiting == 0


def test_patches_are_dropped_once_they_are_encoded(small_images: str) -> None:
    with Engine(LoadSpec(model=small_images)) as engine:
        handle = engine.submit(
            [Message("user", [img(1), "x"])], SamplingParams(seed=0, max_new_tokens=400, drafts=True)
        )
        sequence = engine._worker._inbox.open[handle]
        assert len(sequence.images) == 1
        next(iter(handle))
        assert sequence.images == ()
        handle.cancel()


def test_a_vision_tower_that_fails_fails_its_request_only(small_images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(seed=3, max_new_tokens=8)
    with Engine(LoadSpec(model=small_images)) as engine:
        place = engine._parts.images.place

        def short(slot: Any) -> Any:
            placed = place(slot)
            object.__setattr__(placed, "patches", placed.patches[:-9])
            object.__setattr__(placed, "positions", placed.positions[:-9])
            return placed

        monkeypatch.setattr(engine._parts.images, "place", short)
        broken = engine.submit([Message("user", [img(1)])], params)
        fine = engine.submit([Message("user", "fox")], params)
        assert fine.result().token_ids
        with pytest.raises(DGemmaError, match="the request failed"):
            broken.result()


# The engine's other doors.


def test_the_embedded_checkpoint_runs_end_to_end(embedded_engine: Engine) -> None:
    """Its vision tower is untrained, so what it answers means nothing; but it answers, and text is as before."""
    params = SamplingParams(seed=0, max_new_tokens=32)
    text = [Message("user", "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?")]
    before = embedded_engine.generate([text], params)[0]
    generations = embedded_engine.generate([[Message("user", [img(1), "What is this?"])], text], params)
    assert generations[0].usage.prompt_tokens > 250
    assert generations[0].finish_reason in ("stop", "length")
    assert generations[1].token_ids == before.token_ids


def test_decisions_may_be_about_an_image(embedded_engine: Engine) -> None:
    questions = {"sunny": Question(type="bool", text="Is it sunny?")}
    for context in ([Message("user", [img(1)])], [Message("user", ["see", img(1)]), Message("assistant", "yes")]):
        answer = embedded_engine.decide(context, questions)["sunny"]
        assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    shown = [embedded_engine.decide([Message("user", [img(i)])], questions)["sunny"].probabilities for i in (1, 2)]
    assert shown[0] != shown[1]
