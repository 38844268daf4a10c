"""Padding of a GEMM's rows on a CPU, so that a request's numbers do not depend on its neighbours.

CPU BLAS libraries sum a row's products in the same order for almost every number of rows. The exception is a short
strip of rows at the end of a thread's share, or of an attention block. There they use other kernels, and the last bits
change. With AVX2 a strip has up to three rows, with AVX-512 up to eight.

A denoising loop amplifies a difference in the last bits into other tokens. So row counts are padded to multiples. A row
then gives the same bits alone, among others, and after a reused prefix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_ROWS = 16
_ROWS_PER_THREAD = 8
QUERY_MULTIPLE = 16
# Sums over keys run in vector lanes, but keys that do not fill the lanes are added one by one. Masked keys fill the
# lanes, so that the order of the sum is always the same.
KEY_MULTIPLE = 16


def row_multiple(device: torch.device) -> int:
    """The multiple that a GEMM's rows are padded to. It is 1 on accelerators, which pick kernels by other rules."""
    return max(LEAST_ROWS, _ROWS_PER_THREAD * torch.get_num_threads()) if device.type == "cpu" else 1


def pad_rows(x: Tensor, multiple: int) -> Tensor:
    """``x`` ``[n, ...]`` with zero rows added up to the next multiple; ``x`` itself if none are needed."""
    missing = -x.shape[0] % multiple
    return F.pad(x, (0, 0) * (x.ndim - 1) + (0, missing)) if missing else x
