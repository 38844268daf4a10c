from __future__ import annotations

import pytest

from dgemma_integrations.shared.keywords import reject_unknown


def test_every_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match="arguments 'bar', 'foo'"):
        reject_unknown(["foo", "seed", "bar"], ["seed"], owner="Model")


@pytest.mark.parametrize(
    ("name", "accepted", "words"),
    [
        ("num_predict", ["max_tokens"], "'num_predict' (write max_tokens: an exact bound, not rounded up to canvases)"),
        ("n_batch", ["max_batch_tokens"], "'n_batch' (write max_batch_tokens)"),
        ("num_ctx", ["max_tokens"], "'num_ctx' (give the model object max_context: tokens of prompt plus answer"),
        ("load_in_4bit", ["quantization"], "'load_in_4bit' (write quantization: \"nf4\")"),
        ("top_p", ["t_max"], "'top_p' (no counterpart: a canvas is not sampled token by token"),
        ("num_predict", ["seed"], "'num_predict'. Accepted: seed"),
        ("max_token", ["max_tokens"], "'max_token' (did you mean 'max_tokens'?). Accepted: max_tokens"),
    ],
)
def test_names_of_other_libraries_are_answered(name: str, accepted: list[str], words: str) -> None:
    with pytest.raises(ValueError, match="unknown") as caught:
        reject_unknown([name], accepted, owner="Model")
    assert f"Model: unknown keyword argument {words}" in str(caught.value)
