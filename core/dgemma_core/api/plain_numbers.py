"""Numbers of numpy, torch and the standard library as Python's own ``int``, ``float`` and ``bool``."""

from __future__ import annotations

import operator
from decimal import Decimal
from numbers import Real


def plain(value: object) -> object:
    """A number as Python's own; any other value as it is.

    Integers are what ``operator.index`` takes, like ``numpy.int64(3)`` or an integer tensor with one element.
    """
    if type(value) is int or value is None or isinstance(value, bool | str | bytes):
        return value
    kind = str(getattr(value, "dtype", ""))
    if "bool" in kind:  # Torch's bools have an index, numpy's have none.
        return _single(bool, value)
    if isinstance(value, int) or hasattr(value, "__index__"):
        whole = _single(operator.index, value)
        if isinstance(whole, int):
            return whole
    return _single(float, value) if isinstance(value, Real | Decimal) or "float" in kind else value


def _single(read: object, value: object) -> object:
    """What ``read`` makes of a value, or the value itself if it has more than one element or is out of range."""
    try:
        return read(value)  # type: ignore[operator]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return value
