"""Renders ``dgemma_integrations/shared/fields.py``: the settings as Pydantic fields that editors and mypy can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from dgemma_core.api.setting_table import Setting
from dgemma_integrations.shared.adapter_settings import DRAFTS

_HEAD = '''"""Settings of model objects as Pydantic fields.

Generated from ``LoadSpec`` and ``SamplingParams`` by ``make generate``; do not edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from pydantic import BaseModel, Field
'''
_CLASS = '''

class {name}(BaseModel):
    """{text}"""

'''
_WIDTH = 120


def fields_source(load: Mapping[str, Setting], sampling: Mapping[str, Setting]) -> str:
    """The module's text.

    Args:
        load: load settings by field name.
        sampling: settings of an answer by field name.
    """
    drafts = {name: sampling[name] for name in DRAFTS}
    common = {name: setting for name, setting in sampling.items() if name not in drafts}
    return "".join(
        (
            _HEAD,
            _options("LoadOptions", "The keyword arguments of ``LoadFields``.", load),
            _class("LoadFields", "Which weights to load, where and how. ``None`` means the default.", load),
            _class("SamplingFields", "Settings of an answer. ``None`` means the checkpoint's own default.", common),
            _class("DraftFields", "For models that stream drafts where this setting asks for them.", drafts),
        )
    )


def _class(name: str, text: str, settings: Mapping[str, Setting]) -> str:
    return _CLASS.format(name=name, text=text) + "".join(_field(name, s) for name, s in settings.items())


def _options(name: str, text: str, settings: Mapping[str, Setting]) -> str:
    """A dict type of keyword arguments, for functions that pass them on."""
    lines = (f"    {each}: {_declared(setting)[0]}\n" for each, setting in settings.items())
    return _CLASS.format(name=f"{name}", text=text).replace("(BaseModel)", "(TypedDict, total=False)") + "".join(lines)


def _field(name: str, setting: Setting) -> str:
    declared, default = _declared(setting)
    head = f"    {name}: {declared} = Field("
    line = f"{head}default={default}, description={_string(setting.sentence)})\n"
    if len(line) <= _WIDTH + 1:
        return line
    parts = "".join(f"            {_string(part)}\n" for part in _pieces(setting.sentence, _WIDTH - 14))
    description = f"description={_string(setting.sentence)},\n"
    if len(description) + 8 > _WIDTH + 1:
        description = f"description=(\n{parts}        ),\n"
    return f"{head}\n        default={default},\n        {description}    )\n"


def _declared(setting: Setting) -> tuple[str, str]:
    """Type and default as source text."""
    kind: Any = setting.base_type
    if get_origin(kind) is tuple:
        # LangChain's models hold lists and LlamaIndex's tuples, so each adapter declares its own field.
        return f"Sequence[{get_args(kind)[0].__name__}] | None", "None"
    if get_origin(kind) in (Union, UnionType):  # A number, or one of some words.
        return "int | str", _value(setting.default)
    # Not a Literal: the engine checks choices and names the setting, and a torch object may stand for a choice.
    return kind.__name__ + (" | None" if setting.optional else ""), _value(setting.default)


def _value(value: object) -> str:
    return _string(value) if isinstance(value, str) else repr(value)


def _string(text: str) -> str:
    """A string literal as the formatter writes it: with the quotes that need fewer escapes."""
    plain = json.dumps(text, ensure_ascii=False)
    if text.count('"') <= text.count("'"):
        return plain
    inside = plain[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"'{inside}'"


def _pieces(text: str, width: int) -> list[str]:
    if len(_string(text)) <= width + 2:
        return [text]  # The formatter joins pieces that fit on a line.
    pieces = [""]
    for word in text.split(" "):
        if len(_string(f"{pieces[-1]}{word} ")) > width:
            pieces.append("")
        pieces[-1] += f"{word} "
    return [*pieces[:-1], pieces[-1].rstrip()]
