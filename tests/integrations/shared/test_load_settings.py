from __future__ import annotations

from dgemma_core import LoadSpec
from dgemma_integrations.shared.load_settings import load_spec


def test_load_spec_takes_torch_objects_and_defaults() -> None:
    import torch

    spec = load_spec("some/model", device=torch.device("cuda:1"), dtype=torch.bfloat16, max_queue=None)
    assert spec == LoadSpec(model="some/model", device="cuda:1", dtype="bfloat16")
