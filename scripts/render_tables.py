"""Renders the docs' tables of settings. They stand between markers in the pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import UnionType
from typing import Union, get_origin

from dgemma_core.api.setting_table import Setting, number_text, quoted

_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MIB = 2**20


def settings_table(settings: Mapping[str, Setting]) -> str:
    """One row per setting: name, accepted values, default, meaning."""
    rows = [f"| `{name}` | {_values(one)} | {_default(one)} | {one.text} |\n" for name, one in settings.items()]
    return "| Name | Values | Default | Meaning |\n|---|---|---|---|\n" + "".join(rows)


def with_blocks(page: str, blocks: Mapping[str, str]) -> str:
    """A page with the text of its marked blocks replaced.

    Raises:
        KeyError: a marker names no block.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}{blocks[found[2]]}{found[3]}", page)


def _values(setting: Setting) -> str:
    """The accepted values, in a few words."""
    if setting.choices:
        return ", ".join(quoted(choice) for choice in setting.choices)
    words = {int: "integer", float: "number", bool: "`True`, `False`", str: "text", tuple[str, ...]: "texts"}
    if get_origin(setting.base_type) in (Union, UnionType):
        return f"{quoted(setting.default)} or an integer"
    kind = words.get(setting.base_type) or f"`{setting.base_type.__name__}`"
    bounds = (("from", setting.low), ("above", setting.above), ("below", setting.below))
    parts = [f"{word} `{number_text(bound)}`" for word, bound in bounds if bound is not None]
    unit = f", {setting.unnamed_unit}" if setting.unnamed_unit else ""
    return " ".join([kind, *parts]) + unit


def _default(setting: Setting) -> str:
    value = setting.default
    if value == ():
        return "none"
    if setting.unit == "bytes" and isinstance(value, int) and value and value % _MIB == 0:
        return f"{value // _MIB} MiB"
    return quoted(value)
