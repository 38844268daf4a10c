"""Typed decisions: what they cost, that they follow the context's tokens, and their calibration."""

from __future__ import annotations

import math
import random

import pytest

from dgemma_core import Engine, Message, Question, fit_calibration
from dgemma_core.structured.calibration import expected_error
from dgemma_core.structured.decide import Template, build_template

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
    assert after.denoising_steps - before.denoising_steps == 1
    assert after.prefill_tokens - before.prefill_tokens == 1  # The rest of the prompt came from the prefix cache.


def test_answers_are_typed(embedded_engine: Engine) -> None:
    answers = embedded_engine.decide(CONTEXT, QUESTIONS)
    assert isinstance(answers["built"].value, bool)
    assert answers["owner"].value in ("Mira Tanu", "Kira Vonel", "Oska Len")
    assert list(answers["fit"].probabilities) == ["low", "high"]
    assert 0 <= answers["fit"].level <= 1
    for answer in answers.values():
        assert math.isclose(sum(answer.probabilities.values()), 1, abs_tol=1e-5)
        assert answer.confidence == max(answer.probabilities.values())


def test_labels_of_several_tokens(tiny_engine: Engine) -> None:
    assert len(tiny_engine.encode_text(" yes")) > 1
    answers = tiny_engine.decide(CONTEXT, QUESTIONS)
    assert all(math.isclose(sum(answer.probabilities.values()), 1, abs_tol=1e-5) for answer in answers.values())
    encode = {" yes": [7, 8, 9], " no": [7, 5], "1:": [1]}
    template = build_template([Question("bool", "Is it?")], encode.__getitem__, end_id=0)
    assert template == Template((1, 7, 8, 0), (2,), ((8, 5),))
    with pytest.raises(ValueError, match="does not tell labels apart"):
        build_template([Question("bool", "Is it?")], {**encode, " no": [7, 8]}.__getitem__, end_id=0)


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
