"""One row of the table of foreign names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counterpart:
    """The answer that several foreign names share.

    Attributes:
        names: the foreign names, separated by blanks when made.
        setting: our setting, as model objects name it; None if none corresponds.
        accepted: whether the names work as the setting's own name does, because they mean exactly the same.
        line: what to write instead.
        note: how our setting differs, or why there is none; one clause, may be empty. Code stands in backticks.
        holds_options: whether the value is a dict whose keys are names of settings.
    """

    names: tuple[str, ...]
    setting: str | None = None
    accepted: bool = False
    line: str = ""
    note: str = ""
    holds_options: bool = False

    @property
    def advice(self) -> str:
        """What to write here, in one clause."""
        code = self.line or self.setting
        if code is None:
            return self.note
        return f"`{code}`{': ' if self.note else ''}{self.note}"


def accepted(setting: str, names: str, note: str = "") -> Counterpart:
    """Names that mean exactly what a setting of ours means."""
    return Counterpart(tuple(names.split()), setting, accepted=True, note=note)


def written(setting: str, names: str, line: str = "", note: str = "") -> Counterpart:
    """Names for which a setting of ours stands. ``line`` is what to write; by default the setting's name alone."""
    return Counterpart(tuple(names.split()), setting, line=line, note=note)


def otherwise(names: str, note: str) -> Counterpart:
    """Names for which something other than a setting stands."""
    return Counterpart(tuple(names.split()), note=note)


def missing(names: str, why: str) -> Counterpart:
    """Names without a counterpart."""
    return Counterpart(tuple(names.split()), note=f"no counterpart: {why}")


def options(names: str) -> Counterpart:
    """Names of dicts whose keys are names of settings."""
    return Counterpart(tuple(names.split()), note="write its entries as keyword arguments", holds_options=True)
