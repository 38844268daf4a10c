"""Questions in tokens that are written down by hand."""

from __future__ import annotations

from dgemma_core import Question
from dgemma_core.structured.forms import FormWriter

SPELLINGS = {
    "1. Which?": [1],
    "1. Is it?": [1],
    "\n2. Is it?": [2],
    "1.": [3],
    " a": [10, 11],
    " b": [10, 12, 13],
    " c": [10, 12],
    " yes": [20],
    " no": [21],
    "\n": [4],
}
WRITER = FormWriter(SPELLINGS.__getitem__, end_id=9, pad_id=0)
WHICH, IS_IT = Question("choice", " Which? ", ["a", "b", "c"]), Question("bool", "Is it?")
