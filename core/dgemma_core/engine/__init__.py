"""Takes requests in and gives events out. One worker thread advances many sequences together."""

from dgemma_core.engine.engine import Engine

__all__ = ["Engine"]
