"""A setting that is added to one dataclass is known everywhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
from pydantic import ValidationError

from dgemma_core.api import LoadSpec, SamplingParams
from dgemma_core.api.setting_table import documented, setting
from dgemma_integrations.shared.adapter_settings import call_names, load_settings_of, sampling_settings_of
from dgemma_integrations.shared.load_settings import load_spec
from dgemma_integrations.shared.sampling_settings import sampling_params
from scripts.generate import FIELDS, PAGES, blocks, generated


@documented
@dataclass(frozen=True)
class WarmParams(SamplingParams):
    """With one setting more."""

    warmth: int | None = setting(None, "Warmth of the answer.", low=3, unit="degrees")


@documented
@dataclass(frozen=True)
class WideSpec(LoadSpec):
    """With one setting more."""

    pages: int = setting(7, "Pages read ahead.", low=1)


def test_it_is_documented_and_checked() -> None:
    assert "warmth: Warmth of the answer. Unit: degrees." in (WarmParams.__doc__ or "")
    assert "max_new_tokens: " in (WarmParams.__doc__ or "")
    with pytest.raises(ValueError, match="warmth=2: must be an integer of at least 3, or None"):
        WarmParams(warmth=2)
    with pytest.raises(ValueError, match="pages=0: must be an integer of at least 1"):
        WideSpec(pages=0)


def test_model_objects_have_a_field_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("generated_fields")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(generated(WideSpec, WarmParams)[FIELDS], module.__dict__)
    field = module.SamplingFields.model_fields["warmth"]
    assert (field.annotation, field.default) == (int | None, None)
    assert field.description == "Warmth of the answer. Unit: degrees."
    assert module.SamplingFields(warmth=4).warmth == 4
    with pytest.raises(ValidationError):
        module.SamplingFields(warmth="much")
    assert module.LoadFields().pages == 7
    assert module.LoadFields.model_fields["pages"].annotation is int


def test_the_docs_have_a_row_for_it() -> None:
    tables = blocks(WideSpec, WarmParams)
    row = "| `warmth` | integer from `3`, degrees | `None` | Warmth of the answer. |\n"
    assert [name for name in tables if row in tables[name]] == [
        "sampling-settings", "sampling-settings-and-drafts", "sampling-params",
    ]  # fmt: skip
    assert "| `pages` | integer from `1` | `7` | Pages read ahead. |\n" in tables["load-settings"]
    pages = generated(WideSpec, WarmParams)
    for name, words in {
        "langchain.md": ("`warmth`", "`pages`"),
        "llama_index.md": ("`warmth`", "`pages`"),
        "getting-started.md": ("`warmth`", "`pages`"),
        "swap-in.md": ("`num_ctx`",),
    }.items():
        assert all(f"| {word} " in pages[PAGES / name] for word in words), name


def test_it_is_a_keyword_argument_of_objects_and_calls() -> None:
    assert "warmth" in call_names(WarmParams)
    assert "warmth" in sampling_settings_of(WarmParams)
    assert "pages" in load_settings_of(WideSpec)
    # The names beside it stay.
    assert {*call_names(WarmParams)} - {"warmth"} == {*call_names()}


def test_it_reaches_the_engine() -> None:
    def merged(defaults: dict[str, object], overrides: dict[str, object]) -> SamplingParams:
        return sampling_params(defaults, overrides, owner="Model", kind=WarmParams)

    assert merged({"warmth": 5, "max_tokens": 2}, {}) == WarmParams(warmth=5, max_new_tokens=2)
    assert merged({"warmth": 5}, {"warmth": 6}) == WarmParams(warmth=6)
    assert merged({"warmth": 5}, {"warmth": None}) == WarmParams(warmth=5)
    with pytest.raises(ValueError, match=r"unknown keyword argument 'warmt' \(did you mean 'warmth'"):
        merged({}, {"warmt": 5})
    with pytest.raises(ValueError, match="unknown keyword argument 'warmth'"):
        sampling_params({}, {"warmth": 5}, owner="Model")
    assert load_spec("a/b", pages=9, kind=WideSpec) == WideSpec(model="a/b", pages=9)
    assert load_spec("a/b", pages=None, kind=WideSpec) == WideSpec(model="a/b")
