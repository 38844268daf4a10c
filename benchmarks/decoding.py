"""The three ways of decoding on the same weights and prompts: ``python -m benchmarks.decoding``.

One request runs at a time, on held-out cases of the recipe. Every case runs in all ways in turn, several times; the
first round is warm-up. ``look-up`` is verified decoding without the canvas: it shows what the canvas brings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.charts import bars
from benchmarks.common import console, machine, show
from dgemma_core import BlockEvent, Engine, FinishedEvent, LoadSpec, SamplingParams
from dgemma_core.api.sampling_params import Decoding
from training.evaluate import Case, is_right, make_cases, strip_end

TASKS = {"questions": "qa", "lists": "lists", "tool calls": "tools", "JSON": "json"}
WAYS: dict[str, Decoding] = {
    "typewriter": "typewriter",
    "look-up": "verified",
    "diffusion": "diffusion",
    "verified": "verified",
}
MAX_NEW_TOKENS = 256


@dataclass
class Measured:
    """One way on one task.

    Attributes:
        tokens: kept tokens of all cases.
        passes: forward passes of all cases.
        right: cases answered exactly right.
        seconds: per round, seconds of all cases.
        first_text: seconds from a request to its first text, of all cases and rounds.
        texts: answers, by case.
    """

    tokens: int = 0
    passes: int = 0
    right: int = 0
    seconds: list[float] = field(default_factory=list)
    first_text: list[float] = field(default_factory=list)
    texts: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Tokens per second, median of the rounds."""
        return self.tokens / statistics.median(self.seconds)


def measure(engine: Engine, task: str, cases: list[Case], rounds: int) -> dict[str, Measured]:
    """All ways on the cases of a task, in turn."""
    found = {way: Measured() for way in WAYS}
    sources = engine.draft_sources
    for number in range(rounds + 1):
        spent = dict.fromkeys(WAYS, 0.0)
        for case in cases:
            for way, result in found.items():
                engine.draft_sources = frozenset({"lookup"}) if way == "look-up" else sources
                engine.clear_prefix_cache()
                params = SamplingParams(decoding=WAYS[way], seed=0, max_new_tokens=MAX_NEW_TOKENS)
                began, first = time.perf_counter(), None
                for event in engine.submit(case.prompt, params):
                    if isinstance(event, BlockEvent) and first is None:
                        first = time.perf_counter() - began
                    if isinstance(event, FinishedEvent):
                        generation = event.generation
                spent[way] += time.perf_counter() - began
                if number:
                    result.first_text.append(first or 0.0)
                else:
                    text = engine.tokenizer.decode(list(generation.token_ids), skip_special_tokens=False)
                    result.tokens += generation.usage.completion_tokens
                    result.passes += generation.usage.forward_passes
                    result.right += is_right(task, case.target, strip_end(text))
                    result.texts.append(generation.token_ids)
        if number:
            for way, result in found.items():
                result.seconds.append(spent[way])
    engine.draft_sources = sources
    return found


def spread(result: Measured, baseline: Measured) -> str:
    """How many times the baseline's speed: the ratio of the medians, then the least and the most of a round."""
    rounds = [
        (result.tokens / mine) / (baseline.tokens / theirs)
        for mine, theirs in zip(result.seconds, baseline.seconds, strict=True)
    ]
    return f"{result.speed / baseline.speed:.2f} x ({min(rounds):.2f} to {max(rounds):.2f})"


def rows_of(results: Iterable[tuple[str, Measured]], baseline: Measured, count: int) -> list[tuple[object, ...]]:
    """Rows of the table of one task."""
    return [
        (
            way,
            result.speed,
            spread(result, baseline),
            result.passes,
            f"{result.right}/{count}",
            f"{sum(a == b for a, b in zip(result.texts, baseline.texts, strict=True))}/{count}",
            1000 * statistics.median(result.first_text),
        )
        for way, result in results
    ]


def together(results: dict[str, dict[str, Measured]]) -> dict[str, Measured]:
    """All tasks as one."""
    whole = {way: Measured() for way in WAYS}
    for by_way in results.values():
        for way, result in by_way.items():
            one = whole[way]
            one.tokens, one.passes, one.right = (
                one.tokens + result.tokens,
                one.passes + result.passes,
                one.right + result.right,
            )
            one.seconds = [
                a + b for a, b in zip(one.seconds or [0.0] * len(result.seconds), result.seconds, strict=True)
            ]
            one.first_text += result.first_text
            one.texts += result.texts
    return whole


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20, help="cases per task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=3, help="of the cases")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--chart", type=Path, help="draw the speeds here, as SVG")
    args = parser.parse_args()
    console.print(f"{machine()}; one request at a time, {args.n} cases a task, {args.rounds} rounds")
    columns = ["way", "tokens/s", "against the typewriter", "passes", "right", "same text", "first text, ms"]
    results: dict[str, dict[str, Measured]] = {}
    with Engine(LoadSpec()) as engine:
        for task in args.tasks:
            cases = make_cases(engine.tokenizer, TASKS[task], args.n, args.seed)
            results[task] = measure(engine, TASKS[task], cases, args.rounds)
            show(task, columns, rows_of(results[task].items(), results[task]["typewriter"], args.n))
    whole = together(results)
    show("together", columns, rows_of(whole.items(), whole["typewriter"], args.n * len(args.tasks)))
    if args.out is not None:
        figures = {
            task: {way: {k: v for k, v in asdict(r).items() if k != "texts"} for way, r in by_way.items()}
            for task, by_way in results.items()
        }
        args.out.write_text(json.dumps({"machine": machine(), "n": args.n, "tasks": figures}, indent=1) + "\n")
    if args.chart is not None:
        speeds = {task: {way: r.speed for way, r in by_way.items()} for task, by_way in results.items()}
        args.chart.write_text(bars("Tokens per second, one request at a time", speeds, machine()))


if __name__ == "__main__":
    main()
