"""Typed decisions: what they cost, that they follow the context's tokens, and their calibration."""

from __future__ import annotations

import math
import random

import pytest
import torch

from dgemma_core import Engine, LoadSpec, Message, Question, fit_calibration
from dgemma_core.api.calibration import Calibration, expected_error
from dgemma_core.api.questions import render_options
from dgemma_core.errors import QueueFullError
from dgemma_core.structured.decision_guide import DecisionGuide
from dgemma_core.structured.decision_plan import plan_asks
from dgemma_core.structured.forms import FormWriter
from tests.core.structured.questions import IS_IT, WHICH, WRITER

CONTEXT = "The Vexal bridge was built in 1931. The owner of the Vexal bridge is Kira Vonel."
QUESTIONS = {
    "built": Question("bool", "Was the Vexal bridge built in 1931?"),
    "owner": Question("choice", "Who owns the Vexal bridge?", ["Mira Tanu", "Kira Vonel", "Oska Len"]),
    "fit": Question("score", "How well does the text answer this question: Who owns it?", {"low": "no", "high": "yes"}),
}


def test_one_step_reads_all_questions(embedded_engine: Engine) -> None:
    eight = {f"q{i}": Question("bool", f"Was the Vexal bridge built in {1930 + i}?") for i in range(8)}
    embedded_engine.decide(CONTEXT, eight)
    before = embedded_engine.stats()
    answers = embedded_engine.decide(CONTEXT, eight)
    after = embedded_engine.stats()
    assert len(answers) == 8
    assert after.forward_passes - before.forward_passes == 1
    canvases = after.finished - before.finished
    assert canvases == 3  # Of 64 tokens.
    assert after.denoising_steps - before.denoising_steps == canvases
    # Of every prompt but the last token came from the prefix cache.
    assert after.prefill_tokens - before.prefill_tokens == canvases


def test_canvases_of_one_call_share_a_step_and_its_context(embedded_engine: Engine) -> None:
    embedded_engine.clear_prefix_cache()
    questions = {f"q{year}": Question("bool", f"Was the Vexal bridge built in {year}?") for year in range(1930, 1938)}
    before = embedded_engine.stats()
    embedded_engine.decide(CONTEXT, questions)
    after = embedded_engine.stats()
    asks = after.denoising_steps - before.denoising_steps
    assert asks > 1
    assert after.forward_passes - before.forward_passes == 1
    assert after.prefix_hits - before.prefix_hits == asks - 1
    assert after.prefill_tokens - before.prefill_tokens < embedded_engine.count_tokens(CONTEXT) + 40


def test_a_call_is_queued_whole_or_not_at_all() -> None:
    questions = {f"q{year}": Question("bool", f"Was the Vexal bridge built in {year}?") for year in range(1930, 1938)}
    with Engine(LoadSpec(max_queue=1)) as engine:
        with pytest.raises(QueueFullError, match="max_queue=1"):
            engine.decide(CONTEXT, questions)
        assert engine.stats().submitted == 0


def test_answers_are_typed(embedded_engine: Engine) -> None:
    answers = embedded_engine.decide(CONTEXT, QUESTIONS)
    assert isinstance(answers["built"].value, bool)
    assert answers["owner"].value in ("Mira Tanu", "Kira Vonel", "Oska Len")
    assert list(answers["fit"].probabilities) == ["low", "high"]
    assert 0 <= answers["fit"].level <= 1
    for answer in answers.values():
        assert math.isclose(sum(answer.probabilities.values()), 1, abs_tol=1e-5)
        assert answer.confidence == max(answer.probabilities.values())


def test_options_of_several_tokens(tiny_engine: Engine) -> None:
    assert len(tiny_engine.encode_text(" yes")) > 1
    answers = tiny_engine.decide(CONTEXT, QUESTIONS)
    assert all(math.isclose(sum(answer.probabilities.values()), 1, abs_tol=1e-5) for answer in answers.values())


def test_probabilities_of_options_are_products_along_the_trie() -> None:
    guide = DecisionGuide(WRITER.write([WHICH, IS_IT]), pad_id=0, draws=1)
    log = [torch.tensor(row).log() for row in ([0.25, 0.75], [0.4, 0.6], [0.9, 0.1])]
    guide.logits = [log]
    which, is_it = guide.probabilities(1.0)
    assert which.tolist() == pytest.approx([0.25, 0.3, 0.45])
    assert is_it.tolist() == pytest.approx([0.9, 0.1])
    scaled = Calibration(2.0, 0.0, 0.0, 0).apply(dict(zip("abc", which.tolist(), strict=True)))
    assert guide.probabilities(2.0)[0].tolist() == pytest.approx(list(scaled.values()))


def test_draws_are_averaged_before_they_are_scaled() -> None:
    guide = DecisionGuide(WRITER.write([IS_IT]), pad_id=0, draws=2)
    guide.logits = [[torch.tensor([0.9, 0.1]).log()], [torch.tensor([0.3, 0.7]).log()]]
    assert guide.probabilities(1.0)[0].tolist() == pytest.approx([0.6, 0.4])
    scaled = Calibration(0.5, 0.0, 0.0, 0).apply({"yes": 0.6, "no": 0.4})
    assert guide.probabilities(0.5)[0].tolist() == pytest.approx(list(scaled.values()))


def test_options_with_commas_stand_on_lines_of_their_own() -> None:
    towns = Question("choice", "Where?", ["Paris,  France", "Lyon, France"])
    assert render_options([IS_IT, towns]).endswith("2. One of these:\n- Paris, France\n- Lyon, France")
    assert render_options([WHICH]).endswith("1. One of these: a, b, c")


def test_questions_too_long_for_a_canvas_are_asked_in_the_prompt(embedded_engine: Engine) -> None:
    long = Question("bool", f"Was the Vexal bridge, {'which stands near the river, ' * 30}built in 1931?")
    assert embedded_engine.decide(CONTEXT, {"long": long, **QUESTIONS}).keys() == {"long", *QUESTIONS}
    writer = FormWriter(embedded_engine.encode_text, end_id=1, pad_id=0)
    first, second = plan_asks(CONTEXT, {"long": long, "built": QUESTIONS["built"]}, writer, canvas_limit=64)
    assert long.text in str(first.messages[0].content)
    assert QUESTIONS["built"].text not in str(second.messages[0].content)
    names = [f"{'very ' * 80}{end}" for end in ("good", "bad")]
    with pytest.raises(ValueError, match="do not fit"):
        embedded_engine.decide(CONTEXT, {"x": Question("choice", "How is it?", names)})


def test_other_questions_reuse_the_whole_prompt(embedded_engine: Engine) -> None:
    embedded_engine.decide(CONTEXT, {"a": Question("bool", "Was the Vexal bridge built in 1931?")})
    before = embedded_engine.stats().prefill_tokens
    embedded_engine.decide(CONTEXT, {"b": Question("bool", "Is Kira Vonel the owner of the Vexal bridge?")})
    assert embedded_engine.stats().prefill_tokens - before == 1


def test_seeds_draws_and_batches(embedded_engine: Engine) -> None:
    assert embedded_engine.decide(CONTEXT, QUESTIONS) == embedded_engine.decide(CONTEXT, QUESTIONS)
    assert embedded_engine.decide(CONTEXT, QUESTIONS, seed=1) != embedded_engine.decide(CONTEXT, QUESTIONS, seed=2)
    before = embedded_engine.stats().denoising_steps
    embedded_engine.decide(CONTEXT, QUESTIONS, draws=3)
    assert embedded_engine.stats().denoising_steps - before == 3
    many = {f"q{i}": Question("bool", f"Was the Vexal bridge built in {1900 + i}?") for i in range(40)}
    assert list(embedded_engine.decide(CONTEXT, many)) == list(many)


def test_context_may_be_a_conversation(embedded_engine: Engine) -> None:
    as_text = embedded_engine.decide(CONTEXT, QUESTIONS)
    as_messages = embedded_engine.decide([Message("user", CONTEXT)], QUESTIONS)
    assert as_text == as_messages
    talk = [Message("user", CONTEXT), Message("assistant", "I see.")]
    assert list(embedded_engine.decide(talk, QUESTIONS)) == list(QUESTIONS)


async def test_decisions_do_not_block_the_loop(embedded_engine: Engine) -> None:
    assert await embedded_engine.adecide(CONTEXT, QUESTIONS) == embedded_engine.decide(CONTEXT, QUESTIONS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("maybe", "Really?", None), "maybe"),
        (("bool", " ", None), "text="),
        (("bool", "Really?", ["yes", "no"]), "bool"),
        (("choice", "Which?", None), "options"),
        (("choice", "Which?", ["one"]), "one"),
        (("choice", "Which?", ["a", "a"]), "different"),
        (("choice", "Which?", ["a b", "a\nb "]), "blanks"),
        (("choice", "Which?", "ab"), "ab"),
        (("score", "Which?", [str(i) for i in range(27)]), "26"),
        (("choice", "Which?", {"a": 1, "b": 2}), "1"),
    ],
)
def test_bad_questions_are_named(arguments: tuple[str, str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Question(*arguments)  # type: ignore[arg-type]


def test_bad_calls_are_named(embedded_engine: Engine) -> None:
    with pytest.raises(ValueError, match="questions"):
        embedded_engine.decide(CONTEXT, {})
    with pytest.raises(ValueError, match="draws=0"):
        embedded_engine.decide(CONTEXT, QUESTIONS, draws=0)
    with pytest.raises(ValueError, match="context=''"):
        embedded_engine.decide("", QUESTIONS)
    with pytest.raises(ValueError, match="list of Message"):
        embedded_engine.decide([{"role": "user"}], QUESTIONS)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="'x'"):
        embedded_engine.decide(CONTEXT, {"x": "Is it?"})  # type: ignore[dict-item]


def test_calibration_finds_the_temperature() -> None:
    rng = random.Random(0)
    overconfident, right = [], []
    for _ in range(4000):
        p = rng.uniform(0.5, 0.95)
        right.append("yes" if rng.random() < p else "no")
        sharp = p**3 / (p**3 + (1 - p) ** 3)
        overconfident.append({"yes": sharp, "no": 1 - sharp})
    fitted = fit_calibration(overconfident, right)
    assert fitted.temperature == pytest.approx(3.0, rel=0.15)
    assert fitted.error_after < 0.03 < fitted.error_before
    assert math.isclose(sum(fitted.apply({"a": 0.7, "b": 0.2, "c": 0.1}).values()), 1)


def test_expected_error_by_hand() -> None:
    rows = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]]
    assert expected_error(rows, [0, 1, 0]) == pytest.approx((abs(1.8 - 1) + abs(0.6 - 1)) / 3)


def test_calibration_scales_decisions(embedded_engine: Engine) -> None:
    plain = embedded_engine.decide(CONTEXT, QUESTIONS)["owner"]
    fitted = fit_calibration([plain.probabilities], ["Mira Tanu"])
    scaled = embedded_engine.decide(CONTEXT, QUESTIONS, calibration=fitted)["owner"]
    assert scaled.value == plain.value
    for name, p in fitted.apply(plain.probabilities).items():
        assert scaled.probabilities[name] == pytest.approx(p, abs=1e-4)
    with pytest.raises(ValueError, match="nobody"):
        fit_calibration([plain.probabilities], ["nobody"])
