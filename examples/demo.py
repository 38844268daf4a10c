"""Questions over documents, answered by one DiffusionGemma engine through LlamaIndex and through LangChain.

Without arguments the demo asks about the corpus next to this file: eight questions streamed to the terminal, then 32
questions one by one and all at once. With ``--question`` it asks only that, about ``--docs FOLDER`` if given:

    python examples/demo.py --docs notes/ --question "Who keeps the keys?"
    python examples/demo.py --model google/diffusiongemma-26B-A4B-it --question "Who owns the Selvor library?"
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dgemma_core import DGemmaError, LoadSpec, SamplingParams

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable
    from llama_index.core.query_engine import RetrieverQueryEngine

    from dgemma_core import Engine, EngineStats
    from dgemma_core.api.load_spec import Dtype

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
QUESTIONS = HERE / "questions.tsv"

# The prompt that LangChain's own guides use; LlamaIndex has its own.
PROMPT = "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}"


@dataclass(frozen=True)
class Question:
    """A question and, for the bundled corpus, the words that its answer must have."""

    text: str
    expected: tuple[str, ...] = ()

    def is_answered_by(self, answer: str) -> bool:
        """Whether all expected words are in the answer."""
        return bool(self.expected) and all(part in answer for part in self.expected)


@dataclass
class Chunk:
    """A piece of a streamed answer; the first piece of each answer has the sources instead of text."""

    text: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """Answers to many questions, and counts of the engine's work for them."""

    answers: tuple[str, ...]
    seconds: float
    tokens: int
    denoising_steps: int
    forward_passes: int

    @property
    def tokens_per_pass(self) -> float:
        """Tokens of the answers per forward pass, which all running requests share."""
        return self.tokens / self.forward_passes if self.forward_passes else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the answers per second of wall time, retrieval and frameworks included."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Assistant:
    """One corpus and one engine, with both frameworks on top.

    Args:
        docs: folder with text files.
        model: ``"embedded"``, a Hub id or a local folder.
        device: a torch device or ``"auto"``.
        dtype: a dtype's name or ``"auto"``.
        seed: seed of every answer.
        max_tokens: upper bound on an answer's tokens.
        top_k: passages given to the model per question.

    Raises:
        CorpusError: the folder holds no text.
        ValueError: a bad setting.
    """

    def __init__(
        self,
        docs: Path = CORPUS,
        model: str = "embedded",
        device: str = "auto",
        dtype: str = "auto",
        seed: int = 0,
        max_tokens: int = 128,
        top_k: int = 1,
    ) -> None:
        # Imported here, so that --help and a wrong folder get an answer at once.
        from langchain_core.output_parsers import StrOutputParser
        from langchain_core.prompts import ChatPromptTemplate
        from langchain_core.runnables import RunnableLambda, RunnablePassthrough
        from llama_index.core import Settings
        from llama_index.core.query_engine import RetrieverQueryEngine
        from retrieval import LangChainBM25, LlamaIndexBM25, PassageIndex, read_folder

        from dgemma_integrations.langchain import ChatDiffusionGemma
        from dgemma_integrations.llama_index import DiffusionGemma

        self.index = PassageIndex(read_folder(docs))
        # Checked here first, because a framework wraps errors so that their messages are hard to find.
        LoadSpec(model, device=device, dtype=cast("Dtype", dtype))
        SamplingParams(seed=seed, max_new_tokens=max_tokens)

        # With equal load settings both objects find the same engine.
        settings: dict[str, Any] = {"model": model, "device": device, "dtype": dtype}
        settings |= {"seed": seed, "max_tokens": max_tokens}

        llm = DiffusionGemma(**settings)
        self.engine = cast("Engine", llm.engine)  # It runs in this process.
        # LlamaIndex packs prompts by this count; its default tokenizer is that of another model.
        Settings.tokenizer = self.engine.encode_text
        retriever = LlamaIndexBM25(self.index, top_k)
        self.streaming_query_engine: RetrieverQueryEngine = RetrieverQueryEngine.from_args(
            retriever, llm=llm, streaming=True
        )
        self.query_engine: RetrieverQueryEngine = RetrieverQueryEngine.from_args(retriever, llm=llm)

        answer = ChatPromptTemplate.from_template(PROMPT) | ChatDiffusionGemma(**settings) | StrOutputParser()
        self.chain: Runnable[str, dict[str, Any]] = {
            "documents": LangChainBM25(index=self.index, top_k=top_k),
            "question": RunnablePassthrough(),
        } | RunnablePassthrough.assign(
            context=RunnableLambda(lambda found: "\n\n".join(d.page_content for d in found["documents"]))
        ).assign(answer=answer)

    def stream_llama_index(self, question: str) -> Iterator[Chunk]:
        """Streams an answer of the ``RetrieverQueryEngine``."""
        response: Any = self.streaming_query_engine.query(question)
        yield Chunk(sources=tuple(node.metadata["source"] for node in response.source_nodes))
        for text in response.response_gen:
            yield Chunk(text)

    def stream_langchain(self, question: str) -> Iterator[Chunk]:
        """Streams an answer of the LCEL chain."""
        for part in self.chain.stream(question):
            if "documents" in part:
                yield Chunk(sources=tuple(document.metadata["source"] for document in part["documents"]))
            if part.get("answer"):
                yield Chunk(part["answer"])

    async def ask_together(self, questions: Sequence[str]) -> tuple[str, ...]:
        """Asks all questions at once, the first half through ``abatch``, the second half through ``aquery``."""
        half = len(questions) // 2
        chained, queried = await asyncio.gather(
            self.chain.abatch(list(questions[:half])),
            asyncio.gather(*(self.query_engine.aquery(question) for question in questions[half:])),
        )
        return (*(result["answer"] for result in chained), *(str(response) for response in queried))

    async def ask_one_by_one(self, questions: Sequence[str]) -> tuple[str, ...]:
        """Asks the same questions through the same frameworks, each after the answer to the one before."""
        half = len(questions) // 2
        chained = [(await self.chain.ainvoke(question))["answer"] for question in questions[:half]]
        queried = [str(await self.query_engine.aquery(question)) for question in questions[half:]]
        return (*chained, *queried)

    def measure(self, questions: Sequence[str], *, together: bool) -> Run:
        """Asks all questions and counts the engine's work; both ways start with an empty prefix cache."""
        self.engine.clear_prefix_cache()
        before = self.engine.stats()
        started = time.perf_counter()
        answers = asyncio.run(self.ask_together(questions) if together else self.ask_one_by_one(questions))
        return _run(answers, time.perf_counter() - started, before, self.engine.stats())


def _run(answers: tuple[str, ...], seconds: float, before: EngineStats, after: EngineStats) -> Run:
    def grown(counter: str) -> int:
        return int(getattr(after, counter) - getattr(before, counter))

    counters = ("completion_tokens", "denoising_steps", "forward_passes")
    return Run(answers, seconds, *(grown(counter) for counter in counters))


def bundled_questions() -> list[Question]:
    """The questions of ``questions.tsv``; a line has a question, a tab, and the expected words (``a & b``)."""
    rows = (line.split("\t") for line in QUESTIONS.read_text(encoding="utf-8").splitlines() if line.strip())
    return [Question(text, tuple(expected.split(" & "))) for text, expected in rows]


def load(assistant: Assistant, console: Console) -> None:
    """Loads the weights, shows the progress, and then the documents and the model."""
    engine = assistant.engine
    files = len({passage.source for passage in assistant.index.passages})
    console.print(
        Text.assemble(
            ("Documents  ", "bold"), f"{files} files, {len(assistant.index.passages)} passages, searched with BM25"
        )
    )
    with console.status("reading weights ...") as status:
        engine.load(progress=status.update)
    stats = engine.stats()
    console.print(
        Text.assemble(
            ("Model      ", "bold"),
            f"{engine.spec.model}, read in {stats.load_s:.1f} s, {engine.facts().decoding} decoding, "
            f"window of {engine.context_window:,} tokens",
        ),
        soft_wrap=True,
    )


def ask_aloud(assistant: Assistant, questions: Sequence[tuple[str, Question]], console: Console) -> list[str]:
    """Streams the answers to the terminal, each between its question and its sources.

    Args:
        assistant: answers the questions.
        questions: pairs of a framework's name and a question.
        console: where to print.

    Returns:
        The answers.
    """
    streams = {"LlamaIndex": assistant.stream_llama_index, "LangChain": assistant.stream_langchain}
    colours = {"LlamaIndex": "cyan", "LangChain": "magenta"}
    indent = " " * 15
    answers = []
    for number, (framework, question) in enumerate(questions, 1):
        console.print()
        console.print(
            Text.assemble((f"{number:>2}  ", "dim"), (f"{framework:<10} ", colours[framework]), (question.text, "bold"))
        )
        before = assistant.engine.stats()
        started = time.perf_counter()
        answer, sources = "", tuple[str, ...]()
        console.out(indent, end="")
        for chunk in streams[framework](question.text):
            sources = sources or chunk.sources
            answer += chunk.text
            console.out(chunk.text.replace("\n", "\n" + indent), end="", highlight=False)
        seconds = time.perf_counter() - started
        after = assistant.engine.stats()
        tokens = after.completion_tokens - before.completion_tokens
        passes = after.forward_passes - before.forward_passes
        note = " · ".join((*dict.fromkeys(sources), f"{tokens} tokens in {passes} passes, {seconds:.2f} s"))
        console.print()
        console.print(Text(indent + note, "dim"), soft_wrap=True)
        answers.append(answer)
    return answers


def say_what_was_loaded(engine: Engine, console: Console) -> None:
    """Shows the engine's own counters: one engine served both frameworks."""
    stats = engine.stats()
    times = {1: "once", 2: "twice"}.get(stats.weight_loads, f"{stats.weight_loads} times")
    console.print()
    console.print(
        f"{stats.finished} answers, two frameworks, one engine: "
        f"weights were loaded [bold]{times}[/bold] ({stats.load_s:.1f} s).",
        highlight=False,
    )


def comparison(single: Run, batched: Run) -> Table:
    """Two runs over the same questions side by side, with their ratio."""
    rows: list[tuple[str, float, float, str]] = [
        ("questions", len(single.answers), len(batched.answers), ",d"),
        ("tokens", single.tokens, batched.tokens, ",d"),
        ("denoising steps", single.denoising_steps, batched.denoising_steps, ",d"),
        ("forward passes", single.forward_passes, batched.forward_passes, ",d"),
        ("tokens per pass", single.tokens_per_pass, batched.tokens_per_pass, ".2f"),
        ("seconds", single.seconds, batched.seconds, ".2f"),
        ("tok/s", single.tokens_per_s, batched.tokens_per_s, ".1f"),
    ]
    table = Table(title="The same questions, asked in two ways", title_justify="left", title_style="bold")
    for heading in ("", "one by one", "all at once", "batched : one by one"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, one, other, form in rows:
        ratio = f"{other / one:.2f}" if one else ""
        table.add_row(name, format(one, form), format(other, form), ratio, style="bold" if name == "tok/s" else "")
    return table


def show(assistant: Assistant, console: Console) -> None:
    """The tour: eight questions on the terminal, then all questions in both ways."""
    questions = bundled_questions()
    frameworks = ("LlamaIndex", "LangChain")
    aloud = [(frameworks[number % 2], question) for number, question in enumerate(questions[:8])]
    answers = ask_aloud(assistant, aloud, console)
    right = sum(question.is_answered_by(answer) for (_, question), answer in zip(aloud, answers, strict=True))
    say_what_was_loaded(assistant.engine, console)
    console.print(f"{right} of {len(aloud)} answers agree with the documents.", highlight=False)

    texts = [question.text for question in questions]
    with console.status(
        f"{len(texts)} questions one by one: half through the chain, half through the query engine ..."
    ):
        single = assistant.measure(texts, together=False)
    with console.status(f"{len(texts)} questions at once: half through abatch, half through aquery ..."):
        batched = assistant.measure(texts, together=True)
    console.print()
    console.print(comparison(single, batched))
    same = sum(a == b for a, b in zip(single.answers, batched.answers, strict=True))
    right = sum(question.is_answered_by(answer) for question, answer in zip(questions, batched.answers, strict=True))
    console.print(
        f"{same} of {len(texts)} answers are the same in both (same seed); "
        f"{right} of {len(texts)} agree with the documents.",
        highlight=False,
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Questions over documents, through LlamaIndex and LangChain.")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="folder with .txt and .md files to ask about")
    parser.add_argument(
        "--question", action="append", metavar="TEXT", help="ask this instead of the tour; may be given again"
    )
    parser.add_argument("--model", default="embedded", help='"embedded" (default), a Hub id or a local folder')
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu, cuda:1 ... (default: the best there is)")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 (default: by device and model)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every answer (default: 0)")
    parser.add_argument("--max-tokens", type=int, default=128, help="longest answer, in tokens (default: 128)")
    parser.add_argument("--top-k", type=int, default=1, help="passages given to the model (default: 1)")
    args = parser.parse_args(argv)
    if args.docs is not None and not args.question:
        parser.error("--docs needs at least one --question")
    if any(not text.strip() for text in args.question or ()):
        parser.error("--question is empty")
    if args.top_k < 1:
        parser.error(f"--top-k {args.top_k}: must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    args = parse(argv)
    console = Console()
    from advice import advice
    from retrieval import CorpusError

    try:
        assistant = Assistant(
            args.docs or CORPUS, args.model, args.device, args.dtype, args.seed, args.max_tokens, args.top_k
        )
        load(assistant, console)
        if args.docs is not None and args.model == "embedded":
            small = "It is small: ordinary prose needs --model google/diffusiongemma-26B-A4B-it."
            console.print(Text(" " * 11 + small, "dim"), soft_wrap=True)
        if args.question:
            asked = [Question(text) for text in args.question]
            pairs = [(framework, question) for question in asked for framework in ("LlamaIndex", "LangChain")]
            answers = ask_aloud(assistant, pairs, console)
            say_what_was_loaded(assistant.engine, console)
            if text := advice(args.model, answers):
                console.print(Text(f"\n{text}", "yellow"), soft_wrap=True)
        else:
            show(assistant, console)
    except (CorpusError, DGemmaError, ValueError) as error:
        # A wrong folder, checkpoint or setting. The message names it; a traceback would only hide the message.
        Console(stderr=True).print(Text(f"demo: {error}", "red"), soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
