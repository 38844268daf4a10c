"""Model objects made per second: ``python -m benchmarks.construction``.

Frameworks make a model object per request, or per configured call. No weights are loaded, and no torch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

# What an application sets; LangChain's own suite times the same keywords.
KEYWORDS: dict[str, Any] = {"temperature": 0, "max_tokens": 100}


def per_second(make: Callable[[], object], count: int, rounds: int) -> float:
    """Objects per second, the median of the rounds. It is processor time, so other processes' load does not count."""
    make()
    rates = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(count):
            make()
        rates.append(count / (time.process_time() - began))
    return statistics.median(rates)


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="objects a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # Imported before the clock starts: imports take seconds and are not measured.
    from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
    from dgemma_integrations.llama_index import DiffusionGemma

    for model in (ChatDiffusionGemma, DiffusionGemmaLLM, DiffusionGemma):
        for keywords in ({}, KEYWORDS):
            rate = per_second(lambda model=model, keywords=keywords: model(**keywords), options.count, options.rounds)  # type: ignore[misc]
            shown = ", ".join(f"{name}={value}" for name, value in keywords.items())
            print(f"{f'{model.__name__}({shown})':<52}{rate:>10,.0f} per second")


if __name__ == "__main__":
    main()
