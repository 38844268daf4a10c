"""The version of the packages, as in ``pyproject.toml``."""

__version__ = "0.1.0"
