"""Why a request's numbers do not depend on its neighbours: no GEMM on a CPU is allowed to be very short.

CPU BLAS libraries sum a row's products in the same order whatever the number of rows, except below a few rows a thread,
where they switch to other kernels and the last bits change. A denoising loop amplifies last bits into other tokens. So
short batches are padded; results are then equal bit for bit whether a row is computed alone, among others, or after a
reused prefix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS_PER_THREAD = 8
MIN_QUERIES = 4


def min_rows(device: torch.device) -> int:
    """Fewest rows a GEMM on ``device`` may have; accelerators pick kernels by other rules: no padding there."""
    return _ROWS_PER_THREAD * torch.get_num_threads() if device.type == "cpu" else 1


def pad_rows(x: Tensor, rows: int) -> Tensor:
    """``x`` ``[n, ...]`` with zero rows added up to ``rows``; ``x`` itself when it is long enough."""
    missing = rows - x.shape[0]
    return x if missing <= 0 else F.pad(x, (0, 0) * (x.ndim - 1) + (0, missing))
