"""Explains a failed import: which package is missing or has another version, and what to install."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager

DISTRIBUTION = "dgemma"


@contextmanager
def explained_imports(extra: str | None = None) -> Iterator[None]:
    """Explain an ``ImportError`` inside this context.

    Args:
        extra: the extra of this package whose packages are imported; None for those that it always needs.

    Raises:
        ImportError: with what to install. Of the same class as the original, which is its cause.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith(DISTRIBUTION):
            raise  # A module of our own, so nothing has to be installed.
        problem = unmet(extra)
        if problem is None and error.name:
            problem = f"{DISTRIBUTION} cannot import {error.name!r}: {_install(extra)}"
        if problem is None:
            raise
        raise type(error)(f"{problem} ({error})", name=error.name, path=error.path) from error


def unmet(extra: str | None = None) -> str | None:
    """The first needed package that is missing or has another version, with what to install. None if all are there."""
    try:
        from packaging.requirements import Requirement

        needed = importlib.metadata.requires(DISTRIBUTION) or []
    except ImportError:  # Used from its source, without being installed.
        return None
    for text in needed:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra or ""}):
            continue
        if requirement.name == DISTRIBUTION:
            continue
        named = f"{requirement.name}{requirement.specifier}"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return f"{DISTRIBUTION} needs {named}, which is not installed: {_install(extra)}"
        if not requirement.specifier.contains(version, prereleases=True):
            return f"{DISTRIBUTION} needs {named}, but {version} is installed: {_install(extra)}"
    return None


def _install(extra: str | None) -> str:
    named = f"[{extra}]" if extra else ""
    return f'pip install -U "{DISTRIBUTION}{named}", or in a clone: pip install -U ".{named}"'
