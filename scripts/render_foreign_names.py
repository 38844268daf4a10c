"""Renders the tables of other libraries' options for ``docs/swap-in.md``: one table per class.

``peer_options.json`` lists the options of their classes, as read from the named versions of their packages, and the
fields of our classes that are no settings of the engine. The adapters are not imported, because their fields are
generated too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dgemma_core.api.foreign_names import FOREIGN_NAMES
from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS, SAMPLING_SETTINGS

_RECORDED = Path(__file__).with_name("peer_options.json")


@dataclass(frozen=True)
class Peer:
    """A class of another library, or a dict of options that one takes.

    Attributes:
        name: the class, or the function whose arguments the dict holds.
        package: distribution that has it.
        version: the package's version.
        options: names of its options.
        here: our class that takes its place; None for a dict.
    """

    name: str
    package: str
    version: str
    options: tuple[str, ...]
    here: str | None = None

    @property
    def own(self) -> frozenset[str]:
        """Keyword arguments of our class, by our own names."""
        fields = _recorded()["fields"]
        more = " ".join([fields[self.here]] if self.here else fields.values()).split()
        return frozenset((*LOAD_SETTINGS, *SAMPLING_SETTINGS, *more))


def peers(kind: str) -> list[Peer]:
    """The recorded ``"classes"`` or ``"dicts"``."""
    return [Peer(**{**one, "options": tuple(one["options"].split())}) for one in _recorded()[kind]]


@cache
def _recorded() -> Any:
    return json.loads(_RECORDED.read_text("utf-8"))


def foreign_names_tables() -> str:
    """A heading and a table for every class, then for every dict of options."""
    parts = [
        f"### {peer.name} to {peer.here}\n\nOptions of `{peer.package}` {peer.version}.\n\n{_table(peer)}"
        for peer in peers("classes")
    ]
    parts += [
        f"### Dicts of options: {peer.name}\n\nOptions of `{peer.package}` {peer.version}.\n\n{_table(peer)}"
        for peer in peers("dicts")
    ]
    return "\n".join(["", *parts, ""])


def _table(peer: Peer) -> str:
    """Rows in the order: same name, accepted names, what to write instead, no counterpart."""
    ranked: dict[tuple[int, str], list[str]] = {}
    for name in peer.options:
        ranked.setdefault(_answer(name, peer), []).append(f"`{name}`")
    rows = [f"| {', '.join(names)} | {text} |\n" for (_, text), names in sorted(ranked.items())]
    return "| There | Here |\n|---|---|\n" + "".join(rows)


def _answer(name: str, peer: Peer) -> tuple[int, str]:
    row = FOREIGN_NAMES.get(name)
    if name in peer.own:
        note = f": {row.note}" if row is not None and row.setting == name and row.note else ""
        return (1 if note else 0), f"the same name{note}"
    if row is None:
        raise KeyError(f"{peer.name}: {name} has no answer in dgemma_core.api.foreign_names")
    if row.setting is not None and row.setting not in peer.own:
        return 4, "no counterpart here"
    if row.accepted:
        return 2, f"works, and means {row.advice}"
    return (4 if row.advice.startswith("no counterpart") else 3), row.advice
