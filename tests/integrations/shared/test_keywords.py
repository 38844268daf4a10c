from __future__ import annotations

from typing import Any

import pytest

from dgemma_integrations.shared.keywords import own_names, reject_unknown


def test_every_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match="arguments 'bar', 'foo'"):
        reject_unknown({"foo": 1, "seed": 2, "bar": 3}, ["seed"], owner="Model")


@pytest.mark.parametrize(
    ("name", "accepted", "words"),
    [
        ("max_length", ["max_tokens"], "'max_length' (write max_tokens=256: counts the answer alone, not the prompt)"),
        (
            "n_batch",
            ["max_batch_tokens"],
            "'n_batch' (write max_batch_tokens: bounds a forward pass over all requests)",
        ),
        ("num_ctx", ["max_tokens"], "'num_ctx' (give the model object max_context: tokens of prompt plus answer"),
        ("load_in_4bit", ["quantization"], "'load_in_4bit' (write quantization=\"nf4\")"),
        (
            "typical_p",
            ["t_max", "stop"],
            "'typical_p' (no counterpart: temperature, top_p, top_k and min_p set how varied",
        ),
        ("max_length", ["canvas_length"], "'max_length' (no counterpart here). Accepted: canvas_length"),
        ("max_token", ["max_tokens"], "'max_token' (did you mean 'max_tokens'?). Accepted: max_tokens"),
        ("num_predct", ["max_tokens"], "'num_predct' (did you mean 'num_predict'?). Accepted: max_tokens"),
        ("num_predct", ["seed"], "'num_predct'. Accepted: seed"),
        ("temp", ["max_tokens", "temperature"], "'temp' (did you mean 'temperature'?). Accepted: "),
        ("pot", ["stop"], "'pot'. Accepted: stop"),
        ("sto", ["stop_at_eos"], "'sto'. Accepted: stop_at_eos"),
    ],
)
def test_names_of_other_libraries_are_answered(name: str, accepted: list[str], words: str) -> None:
    with pytest.raises(ValueError, match="unknown") as caught:
        reject_unknown({name: 1}, accepted, owner="Model")
    assert f"Model: unknown keyword argument {words}" in str(caught.value)


def test_entries_of_a_dict_of_options_are_answered_one_by_one() -> None:
    given = {"options": {"num_predict": 5, "seed": 1, "typical_p": 3, "num_ctx": 9, "zork": 1}}
    with pytest.raises(ValueError, match="'options'") as caught:
        reject_unknown(given, ["max_tokens", "seed"], owner="Model")
    assert (
        "'options' (write its entries as keyword arguments: max_tokens=5, seed=1, 'typical_p' (no counterpart: "
    ) in str(caught.value)
    assert "'num_ctx' (give the model object max_context: tokens of prompt plus answer), 'zork')" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"num_predict": 5}, {"max_tokens": 5}),
        ({"num_predict": None, "max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "num_predict": None}, {"max_tokens": 5}),
        ({"num_predict": None}, {"max_tokens": None}),
        ({"stop_sequences": ["a"], "seed": 1}, {"stop": ["a"], "seed": 1}),
    ],
)
def test_names_that_mean_the_same_are_taken(given: dict[str, Any], taken: dict[str, Any]) -> None:
    assert own_names(given, ["max_tokens", "stop", "seed"], owner="Model") == taken


@pytest.mark.parametrize("other", ["max_tokens", "max_new_tokens"])
def test_two_names_of_one_setting_are_both_named(other: str) -> None:
    with pytest.raises(ValueError, match=rf"Model: num_predict=5 and {other}=6 are the same setting"):
        own_names({"num_predict": 5, other: 6}, ["max_tokens"], owner="Model")


def test_a_bad_number_is_named_as_it_was_written() -> None:
    with pytest.raises(ValueError, match=r"num_predict=-1: must be an integer of at least 1, or None"):
        own_names({"num_predict": -1}, ["max_tokens"], owner="Model")


def test_entries_that_our_setting_refuses_say_why() -> None:
    with pytest.raises(ValueError, match="vllm_kwargs") as caught:
        reject_unknown({"vllm_kwargs": {"quantization": "awq"}}, ["quantization"], owner="Model")
    assert "quantization='awq' (choose None, int8 or nf4)" in str(caught.value)
    with pytest.raises(ValueError, match=r"'model_kwargs' \(leave it out\)"):
        reject_unknown({"model_kwargs": {}}, ["quantization"], owner="Model")
