"""Why a request's numbers do not depend on its neighbours: no GEMM on a CPU ends in a very short strip of rows.

CPU BLAS libraries sum a row's products in the same order whatever the number of rows, except in a short strip (at the
end of a thread's share, or of an attention block), where they switch to other kernels and the last bits change: below
four rows with AVX2, up to eight with AVX-512. A denoising loop amplifies last bits into other tokens. So row counts are
padded to multiples; results are then equal bit for bit whether a row is computed alone, among others, or after a reused
prefix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_ROWS = 16
_ROWS_PER_THREAD = 8
QUERY_MULTIPLE = 16
# Sums over keys go lane by lane and the rest one by one: masked keys fill the last lanes, so the order stays the same.
KEY_MULTIPLE = 16


def row_multiple(device: torch.device) -> int:
    """What a GEMM's rows are padded to on ``device``; accelerators pick kernels by other rules: no padding there."""
    return max(_LEAST_ROWS, _ROWS_PER_THREAD * torch.get_num_threads()) if device.type == "cpu" else 1


def pad_rows(x: Tensor, multiple: int) -> Tensor:
    """``x`` ``[n, ...]`` with zero rows added up to the next multiple; ``x`` itself where none are needed."""
    missing = -x.shape[0] % multiple
    return F.pad(x, (0, 0) * (x.ndim - 1) + (0, missing)) if missing else x
