"""Requests in, events out: one worker thread advances many sequences together."""

from dgemma_core.engine.engine import Engine

__all__ = ["Engine"]
