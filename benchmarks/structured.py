"""Grammar-true output, decisions, infilling and tool calls: `python -m benchmarks.structured [PART ...]`.

Parts are `schemas`, `json`, `decisions`, `infill`, `tools` and `auto`; all of them if none is named.

`schemas` and `tools` take a file of JSON lines with `id` (`subset/name`) and `schema`, such as an extract of
JSONSchemaBench, and have every schema answered, or called as a tool's, by the embedded checkpoint and by the same
architecture with random weights; every answer is parsed and validated with `jsonschema`. The others ask tasks of the
embedded checkpoint over held-out names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import torch
from transformers import DiffusionGemmaForBlockDiffusion

from benchmarks.common import console, machine, median_seconds, show
from benchmarks.generate import reference
from dgemma_core import Engine, Generation, Grammar, Hole, LoadSpec, Message, Question, SamplingParams, fit_calibration
from dgemma_core.errors import AnswerBudgetError, ContextOverflowError, GrammarError
from dgemma_core.structured.tool_grammar import tool_grammar
from training.data.context import make_context
from training.data.infill import infill
from training.data.lexicon import Source
from training.data.mixture import source_for
from training.evaluate import EMBEDDED, make_cases


def random_engine(engine: Engine) -> Engine:
    """The embedded checkpoint's architecture and tokenizer with random weights."""
    torch.manual_seed(0)
    model = DiffusionGemmaForBlockDiffusion(engine._open_front().config)
    torch.nn.init.normal_(model.model.decoder.embed_tokens.weight.detach(), std=0.3)
    return Engine.from_model(model, engine.tokenizer)


def compile_schemas(path: Path) -> tuple[list[tuple[str, Any, Grammar]], Counter[str], Counter[str]]:
    """Schemas with their grammars, the number of schemas per subset, and why the others are refused."""
    usable, subsets, refused = [], Counter[str](), Counter[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        subset = row["id"].split("/")[0]
        subsets[subset] += 1
        try:
            usable.append((subset, row["schema"], Grammar.json_schema(row["schema"])))
        except GrammarError as error:
            refused[str(error).split("used: ", 1)[-1].split(".")[0][:70]] += 1
    return usable, subsets, refused


def schemas(args: argparse.Namespace) -> None:
    """Validity over real-world schemas, on trained and on random weights."""
    usable, subsets, refused = compile_schemas(args.schemas)
    embedded = Engine(LoadSpec(model=args.model))
    rows = []
    for name, engine in (("trained", embedded), ("random weights", random_engine(embedded))):
        rows.append(_schemas_on(name, engine, usable, args))
    columns = ("weights", "answers", "valid", "over budget", "steps a canvas", "free text", "tokens", "grammar time")
    show("Answers to JSON schemas", columns, rows)
    compiled = Counter(subset for subset, _, _ in usable)
    show(
        "Schemas that compile",
        ("subset", "schemas", "compile"),
        [(s, n, compiled[s]) for s, n in subsets.items()] + [("all", sum(subsets.values()), len(usable))],
    )
    show("Why the others are refused", ("reason", "schemas"), refused.most_common())


def _schemas_on(
    name: str, engine: Engine, usable: list[tuple[str, Any, Grammar]], args: argparse.Namespace
) -> list[Any]:
    engine.load()
    too_small, handles = 0, []
    began = time.perf_counter()
    for _, schema, grammar in usable:
        prompt = f"Answer with JSON that follows this schema:\n{json.dumps(schema)}"[: args.prompt_characters]
        params = SamplingParams(seed=0, max_new_tokens=args.budget, grammar=grammar, max_denoising_steps=args.steps)
        try:
            handles.append((schema, engine.submit([Message("user", prompt)], params)))
        except AnswerBudgetError:
            too_small += 1
    done = [(schema, handle.result()) for schema, handle in handles]
    seconds = time.perf_counter() - began
    wrong = [(schema, g, error) for schema, g in done if (error := _invalid(schema, g.text))]
    for schema, g, error in wrong[: args.show]:
        console.print(f"invalid ({error}): {g.text[:200]!r} for {json.dumps(schema)[:300]}", markup=False)
    free = [engine.submit([Message("user", "List the facts.")], _free(args, seed)) for seed in range(8)]
    free_usage = [h.result().usage for h in free]
    usage = [g.usage for _, g in done]
    engine.close()
    share = sum(u.guide_s for u in usage) / seconds
    return [
        name,
        len(done),
        f"{1 - len(wrong) / len(done):.1%}",
        too_small,
        sum(u.denoising_steps for u in usage) / sum(u.canvases for u in usage),
        sum(u.denoising_steps for u in free_usage) / sum(u.canvases for u in free_usage),
        sum(u.completion_tokens for u in usage) / len(usage),
        f"{share:.1%}",
    ]


def _free(args: argparse.Namespace, seed: int) -> SamplingParams:
    return SamplingParams(seed=seed, max_new_tokens=64, max_denoising_steps=args.steps)


def _decimal(number: str) -> Decimal | float:
    """A number as it is written; one with an exponent beyond decimals' limits as Python's JSON reads it."""
    try:
        return Decimal(number)
    except InvalidOperation:
        return float(number)


def _multiple_of(_validator: Any, divisor: Any, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's ``multipleOf`` in whole numbers: a decimal's remainder is limited in its digits."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return
    (_, digits, low), (_, of, of_low) = (Decimal(n).as_tuple() for n in (value, divisor))
    mantissa, divides = (int("".join(map(str, ds))) for ds in (digits, of))
    shift = int(low) - int(of_low)
    rest = mantissa * pow(10, shift, divides) % divides if shift >= 0 else mantissa % (divides * 10**-shift)
    if rest:
        yield jsonschema.ValidationError(f"{value} is not a multiple of {divisor}")


def _invalid(schema: Any, text: str) -> str:
    """Why a text is not a valid answer; an empty string if it is.

    Numbers are read as decimals: in binary floating point 9.2 is no multiple of 0.01.
    """
    schema = json.loads(json.dumps(schema), parse_float=_decimal)
    try:
        value = json.loads(text, parse_float=_decimal)
    except json.JSONDecodeError as error:
        return f"no JSON: {error}"
    kind = jsonschema.validators.extend(jsonschema.validators.validator_for(schema), {"multipleOf": _multiple_of})
    error = next(kind(schema).iter_errors(value), None)
    return "" if error is None else f"{error.validator}: {error.message[:100]}"


def extraction(args: argparse.Namespace) -> None:
    """JSON extraction with and without a grammar."""
    engine = Engine(LoadSpec(model=args.model))
    cases = make_cases(engine.tokenizer, "json", args.n, args.seed)
    rows = []
    for name, use in (("free", False), ("grammar", True)):
        handles = []
        for case in cases:
            grammar = Grammar.json_schema(_schema_of(json.loads(case.target))) if use else None
            handles.append(engine.submit(case.prompt, SamplingParams(seed=0, grammar=grammar)))
        done = [h.result() for h in handles]
        scores = [_fields_right(case.target, g.text) for case, g in zip(cases, done, strict=True)]
        steps = sum(g.usage.denoising_steps for g in done) / sum(g.usage.canvases for g in done)
        valid = sum(1 for _, parsed, _ in scores if parsed) / len(scores)
        fields = sum(right for right, _, _ in scores) / sum(total for _, _, total in scores)
        whole = sum(1 for right, parsed, total in scores if parsed and right == total) / len(scores)
        rows.append((name, f"{valid:.3f}", f"{fields:.3f}", f"{whole:.3f}", steps))
    show("JSON extraction", ("output", "parses", "fields right", "all fields right", "steps per canvas"), rows)
    engine.close()


def _schema_of(value: dict[str, Any]) -> dict[str, Any]:
    """What a caller knows beforehand: names and types of the fields, each of which may be null."""
    kinds = {str: "string", int: "number", float: "number"}
    properties = {
        # A missing field is null in this task; its type is not told by the target, and any will do.
        key: {"type": [kinds.get(type(item), "string"), "null"]}
        for key, item in value.items()
    }
    return {"type": "object", "properties": properties, "required": list(value), "additionalProperties": False}


def _fields_right(expected: str, got: str) -> tuple[int, bool, int]:
    want = json.loads(expected)
    try:
        have = json.loads(got)
    except json.JSONDecodeError:
        return 0, False, len(want)
    if not isinstance(have, dict):
        return 0, True, len(want)
    return sum(1 for key, value in want.items() if key in have and have[key] == value), True, len(want)


def decision_cases(count: int, seed: int) -> list[tuple[str, list[tuple[Question, str]]]]:
    """Contexts over held-out names with typed questions and the right option of each."""
    from training.data import decide as generators

    source = source_for(f"decide-{seed}", held_out=True)
    cases = []
    while sum(len(asked) for _, asked in cases) < count:
        context = make_context(source, source.rng.randint(1, 10))
        asked = [source.choice(generators.KINDS)(source, context) for _ in range(8)]
        cases.append((context.text, asked))
    return cases


def decisions(args: argparse.Namespace) -> None:
    """Accuracy, calibration and speed of decisions, against asking one by one."""
    engine = Engine(LoadSpec(model=args.model))
    engine.load()
    cases = decision_cases(args.n, args.seed)
    asked = [({f"q{i}": q for i, (q, _) in enumerate(named)}, [n for _, n in named], text) for text, named in cases]
    before = engine.stats()
    answers = [engine.decide(text, questions) for questions, _, text in asked]
    after = engine.stats()
    right: dict[str, list[bool]] = defaultdict(list)
    rows, names = [], []
    for (questions, wanted, _), got in zip(asked, answers, strict=True):
        for (key, question), want in zip(questions.items(), wanted, strict=True):
            best = max(got[key].probabilities, key=lambda name: got[key].probabilities[name])
            right[question.type].append(best == want)
            rows.append(got[key].probabilities)
            names.append(want)
    total = [ok for part in right.values() for ok in part]
    half = len(rows) // 2
    fitted = fit_calibration(rows[:half], names[:half])
    held = fit_calibration([fitted.apply(p) for p in rows[half:]], names[half:])
    raw = fit_calibration(rows[half:], names[half:])
    show(
        "Typed decisions",
        ("type", "questions", "right"),
        [(k, len(v), sum(v) / len(v)) for k, v in right.items()] + [("all", len(total), sum(total) / len(total))],
    )
    console.print(
        f"calibration: temperature {fitted.temperature:.2f} fitted on one half; expected calibration error on the "
        f"other half {raw.error_before:.3f} before, {held.error_before:.3f} after"
    )
    console.print(
        f"{len(cases)} contexts, 8 questions each: {after.forward_passes - before.forward_passes} forward passes, "
        f"{after.denoising_steps - before.denoising_steps} denoising steps"
    )
    _against_generate(engine, [(text, questions) for questions, _, text in asked[: args.compare]], args.runs)
    engine.close()


def _against_generate(engine: Engine, sample: list[tuple[str, dict[str, Question]]], runs: int) -> None:
    """Decisions per second over contexts that are all asked at once and not cached.

    By decide, as single prompts by the engine's own generate, and by transformers' generate, which is slow: in one
    padded batch, the first context's questions only.
    """
    singly = [_single(text, q) for text, questions in sample for q in questions.values()]
    few = singly[: len(sample[0][1])]
    turns = [[{"role": m.role, "content": m.text} for m in prompt] for prompt in few]
    ids = [engine.tokenizer.apply_chat_template(t, add_generation_prompt=True)["input_ids"] for t in turns]
    folder = EMBEDDED if engine.spec.model == "embedded" else engine.spec.model
    model = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    model.set_experts_implementation("eager")  # The faster one on a CPU.

    async def all_at_once() -> None:
        await asyncio.gather(*(engine.adecide(text, questions) for text, questions in sample))

    def decide() -> None:
        engine.clear_prefix_cache()
        asyncio.run(all_at_once())

    def generate() -> None:
        engine.clear_prefix_cache()
        engine.generate(singly, SamplingParams(seed=0))

    def upstream() -> None:
        reference(model, ids, max_new_tokens=engine.canvas_length)

    seconds = median_seconds(runs, decide, generate, upstream)
    counts = (len(singly), len(singly), len(few))
    by_decide, by_engine, by_upstream = (n / s for n, s in zip(counts, seconds, strict=True))
    console.print(
        f"{len(singly)} questions over {len(sample)} contexts at once, decisions per second, medians of {runs}: "
        f"{by_decide:.1f} by decide, {by_engine:.1f} by the engine's generate ({by_decide / by_engine:.1f} x), "
        f"{by_upstream:.1f} by transformers' ({by_decide / by_upstream:.1f} x), asked about the first context only"
    )


def _single(text: str, question: Question) -> list[Message]:
    options = "yes or no" if question.type == "bool" else ", ".join(question.names)
    return [Message("user", f"{text}\n\n{question.text} Answer with one of: {options}.")]


def blanks(args: argparse.Namespace) -> None:
    """Infilling with both sides in view against completion from the left."""
    engine = Engine(LoadSpec(model=args.model))
    source: Source = source_for(f"infill-{args.seed}", held_out=True)
    found: list[tuple[str, str, str]] = []
    while len(found) < args.n:
        for branch in infill(source, make_context(source, source.rng.randint(1, 5)), 1):
            assert branch.raw is not None
            (_, end) = branch.holes[0]
            found.append((branch.raw, branch.answer[:end], branch.answer[end:]))
    both, left = 0, 0
    for before, value, behind in found:
        filled = engine.infill([f"{before} " if value.startswith(" ") else before, Hole(args.room), behind], _seeded())
        both += filled.holes[0].strip() == value.strip()
        if before:  # Nothing can be completed from nothing.
            completed = engine.generate([before], SamplingParams(seed=0, max_new_tokens=args.room))[0].text
            left += completed.strip().startswith(value.strip())
    show(
        f"{len(found)} blanks, the fact stated a second time before or behind",
        ("how", "exact"),
        [
            ("infill, both sides", both / len(found)),
            ("completion, left side (a right beginning counts)", left / len(found)),
        ],
    )
    engine.close()


def _seeded() -> SamplingParams:
    return SamplingParams(seed=0)


def tools(args: argparse.Namespace) -> None:
    """Forced calls over random tool schemas: all parse and validate."""
    embedded = Engine(LoadSpec(model=args.model))
    usable, _, _ = compile_schemas(args.schemas)
    rng = random.Random(args.seed)
    wanted = [schema for _, schema, _ in usable if schema.get("type") == "object"]
    rng.shuffle(wanted)
    rows = []
    for name, engine in (("trained", embedded), ("random weights", random_engine(embedded))):
        engine.load()
        handles, refused, too_small, too_long = [], 0, 0, 0
        # Where the file has fewer schemas than calls are asked for, they are called again with another seed.
        for number, (again, schema) in enumerate(product(range(args.n), wanted)):
            if len(handles) == args.n or (again and not handles):
                break
            tool = {"type": "function", "function": {"name": f"tool_{number}", "description": "", "parameters": schema}}
            params = SamplingParams(seed=again, max_new_tokens=args.budget, max_denoising_steps=args.steps)
            prompt = [Message("user", "Use the tool.")]
            try:
                handles.append((schema, engine.submit(prompt, params, tools=[tool], tool_choice="any")))
            except AnswerBudgetError:
                too_small += not again
            except GrammarError:
                refused += not again
            except ContextOverflowError:
                too_long += not again
        done = [(schema, handle.result()) for schema, handle in handles]
        good = sum(1 for schema, g in done if _call_fits(schema, g))
        rows.append((name, len(done), f"{good / len(done):.1%}", too_small, too_long, refused))
        engine.close()
    show(
        "Forced tool calls",
        ("weights", "calls", "parse and validate", "over budget", "prompt too long", "refused"),
        rows,
    )


def auto(args: argparse.Namespace) -> None:
    """The held-out tool task with free choice: turns that call, and turns that answer in words."""
    engine = Engine(LoadSpec(model=args.model))
    cases = make_cases(engine.tokenizer, "tools", args.n, args.seed, args.level)
    rows = []
    for name, held in (("free text, parsed", False), ("tool_choice=auto", True)):
        handles = []
        for case in cases:
            grammar = tool_grammar(case.branch.tools or (), "auto") if held else None
            params = SamplingParams(seed=0, grammar=grammar, canvas_length=args.canvas_length)
            handles.append(engine.submit(case.prompt, params))
        calls, words = [], []
        for case, handle in zip(cases, handles, strict=True):
            got = handle.result()
            if case.branch.calls:
                wanted = [(c["function"]["name"], c["function"]["arguments"]) for c in case.branch.calls]
                calls.append([(c.name, dict(c.arguments)) for c in got.tool_calls] == wanted)
            else:
                words.append(got.text == case.target and not got.tool_calls)
        rows.append((name, len(calls), sum(calls) / len(calls), len(words), sum(words) / len(words)))
    show("Held-out tool task", ("how", "calls", "exactly right", "answers in words", "to the letter"), rows)
    engine.close()


def _call_fits(schema: Any, generation: Generation) -> bool:
    if generation.finish_reason != "tool_calls" or not generation.tool_calls:
        return False
    return all(not _invalid(schema, json.dumps(dict(call.arguments))) for call in generation.tool_calls)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "schemas": schemas,
    "json": extraction,
    "decisions": decisions,
    "infill": blanks,
    "tools": tools,
    "auto": auto,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--schemas", type=Path, help="JSON lines with id and schema, for `schemas` and `tools`")
    parser.add_argument("--n", type=int, default=200, help="examples of the other parts")
    parser.add_argument("--budget", type=int, default=512, help="max_new_tokens of a structured answer")
    parser.add_argument("--steps", type=int, help="max_denoising_steps of a structured answer")
    parser.add_argument("--level", type=float, default=1.0, help="of the tool task: 0 one tool, 1 up to four")
    parser.add_argument("--canvas-length", type=int, help="of the tool task, instead of the checkpoint's own")
    parser.add_argument("--room", type=int, default=12, help="tokens of a hole")
    parser.add_argument("--compare", type=int, default=8, help="contexts whose questions are also asked by generate")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of that comparison")
    parser.add_argument("--prompt-characters", type=int, default=1500, help="of a schema that the prompt shows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="print so many invalid answers")
    args = parser.parse_args()
    console.print(machine())
    for part in args.parts or PARTS:
        if part in ("schemas", "tools") and args.schemas is None:
            console.print(f"{part}: give --schemas FILE")
            continue
        PARTS[part](args)


if __name__ == "__main__":
    main()
