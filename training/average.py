"""Weights between those of two runs with a common ancestor: `python -m training.average A B --share 0.5 --out FOLDER`.

The loss hardly rises along the line between two such networks ("Model soups", Wortsman et al., 2022, arXiv:2203.05482).
A point on that line joins what one run learned to what the other kept, and a short training does the rest.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def average(first: Path, second: Path, share: float, out: Path) -> None:
    """Writes `(1 - share) * first + share * second`, with the second one's tokenizer and configs.

    Raises:
        ValueError: the checkpoints have different tensors, the share is not between 0 and 1, or `out` is one of them.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: must be between 0 and 1")
    if out.resolve() in (first.resolve(), second.resolve()):
        raise ValueError(f"out={out}: it would overwrite one of the two runs; give another folder")
    a, b = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    if {k: v.shape for k, v in a.items()} != {k: v.shape for k, v in b.items()}:
        raise ValueError(f"{first} and {second} have different tensors; average runs of the same preset")
    shutil.copytree(second, out, dirs_exist_ok=True)
    mean = {k: ((1 - share) * a[k] + share * b[k]).contiguous() for k in a}
    save_file(mean, out / WEIGHTS, metadata={"format": "pt"})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    average(args.first, args.second, args.share, args.out)


if __name__ == "__main__":
    main()
