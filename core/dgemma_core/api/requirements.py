"""Explains a failed import by the packages that this one needs: which is missing or too old, and what to install."""

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
        ImportError: with what to install, if a package is missing or has another version than is needed. Of the same
            class as the original, which is its cause.
    """
    try:
        yield
    except ImportError as error:
        problem = unmet(extra)
        if problem is None:
            raise
        explained = type(error)(f"{problem}. The import failed with: {error}", name=error.name, path=error.path)
        raise explained from error


def unmet(extra: str | None = None) -> str | None:
    """The first needed package that is missing or has another version, with what to install. None if all are there."""
    try:
        from packaging.requirements import Requirement

        needed = importlib.metadata.requires(DISTRIBUTION) or []
    except ImportError:  # Used from its source, without being installed.
        return None
    install = f'pip install -U "{DISTRIBUTION}{f"[{extra}]" if extra else ""}"'
    for text in needed:
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""})
        if not wanted or requirement.name == DISTRIBUTION:
            continue
        named = f"{requirement.name}{requirement.specifier}"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return f"{DISTRIBUTION} needs {named} here, which is not installed: {install}"
        if not requirement.specifier.contains(version, prereleases=True):
            return f"{DISTRIBUTION} needs {named} here, and {version} is installed: {install}"
    return None
