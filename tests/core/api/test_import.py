"""A remote client has neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib.abc
import sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "PIL"}:
            raise ImportError(f"{name} is not installed here")


sys.meta_path.insert(0, Missing())
import dgemma_core.api as api
from dgemma_core.errors import is_out_of_memory

for name in api.__all__:
    getattr(api, name)
request = api.Request([api.Message("user", ["a", api.Image(1, 1, b"abc")])])
assert api.Request.from_dict(request.to_dict()) == request
assert is_out_of_memory(MemoryError()) and is_out_of_memory(RuntimeError("CUDA out of memory"))
assert not is_out_of_memory(RuntimeError("no"))
assert not is_out_of_memory(ValueError("out of memory"))
assert not {"torch", "transformers", "PIL"} & set(sys.modules)
"""


def test_the_api_imports_without_torch_and_transformers() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
