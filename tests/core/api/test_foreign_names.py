"""What other libraries call a setting."""

from __future__ import annotations

from dgemma_core.api import SamplingParams
from dgemma_core.api.foreign_names import COUNTERPARTS, FOREIGN_NAMES
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.setting_table import settings_of

# Settings of model objects and calls that are not the engine's, or not by this name.
_ADAPTERS_OWN = {"max_tokens", "temperature", "timeout", "thinking", "validate_model_on_init"}


def test_every_counterpart_is_a_setting() -> None:
    known = {*settings_of(LoadSpec), *settings_of(SamplingParams)} | _ADAPTERS_OWN
    assert {row.setting for row in COUNTERPARTS} - {None} <= known


def test_a_name_stands_once_and_says_where_it_is_from() -> None:
    assert len(FOREIGN_NAMES) == sum(len(row.names) for row in COUNTERPARTS)
    assert all(classes for row in COUNTERPARTS for classes in row.names.values())


def test_no_setting_is_foreign_to_itself() -> None:
    for name, row in FOREIGN_NAMES.items():
        assert name == row.setting or name not in settings_of(LoadSpec), name


def test_advice_is_one_clause() -> None:
    assert FOREIGN_NAMES["num_ctx"].advice.startswith("`max_context`: ")
    assert FOREIGN_NAMES["n_batch"].advice == "`max_batch_tokens`"
    assert FOREIGN_NAMES["load_in_4bit"].advice == '`quantization`: `"nf4"`'
    for row in COUNTERPARTS:
        assert row.advice, row
        assert not row.advice.endswith("."), row
