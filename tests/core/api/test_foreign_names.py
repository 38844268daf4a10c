"""What other libraries call a setting."""

from __future__ import annotations

from dgemma_core.api import SamplingParams
from dgemma_core.api.foreign_names import ACCEPTED_NAMES, COUNTERPARTS, FOREIGN_NAMES
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.setting_table import settings_of

# Settings of model objects and calls that are not the engine's, or not by this name.
_ADAPTERS_OWN = {"max_tokens", "temperature", "timeout", "thinking", "validate_model_on_init"}


def test_every_counterpart_is_a_setting() -> None:
    known = {*settings_of(LoadSpec), *settings_of(SamplingParams)} | _ADAPTERS_OWN
    assert {row.setting for row in COUNTERPARTS} - {None} <= known


def test_a_name_stands_once() -> None:
    assert len(FOREIGN_NAMES) == sum(len(row.names) for row in COUNTERPARTS)
    assert all(row.names for row in COUNTERPARTS)


def test_no_setting_is_foreign_to_itself() -> None:
    # `grammar` belongs to a call, and its row is for constructors.
    own = {*settings_of(LoadSpec), *settings_of(SamplingParams)} - {"max_new_tokens", "grammar"}
    for name, row in FOREIGN_NAMES.items():
        assert name == row.setting or name not in own, name


def test_accepted_names_mean_a_setting() -> None:
    assert ACCEPTED_NAMES["num_predict"] == ACCEPTED_NAMES["max_new_tokens"] == "max_tokens"
    assert ACCEPTED_NAMES["num_ctx"] == ACCEPTED_NAMES["context_window"] == "max_context"
    assert not {"max_length", "load_in_4bit", "device_map", "top_p", "stop"} & set(ACCEPTED_NAMES)


def test_advice_is_one_clause() -> None:
    assert FOREIGN_NAMES["num_ctx"].advice.startswith("`max_context`: ")
    assert FOREIGN_NAMES["n_batch"].advice.startswith("`max_batch_tokens`")
    assert FOREIGN_NAMES["load_in_4bit"].advice == '`quantization="nf4"`'
    for row in COUNTERPARTS:
        assert row.advice, row
        assert not row.advice.endswith("."), row
