from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import demo
import pytest
from advice import advice
from demo import Assistant, Question, bundled_questions
from rich.console import Console


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return Assistant()


def joined(chunks: object) -> str:
    return "".join(chunk.text for chunk in chunks)  # type: ignore[attr-defined]


def test_both_frameworks_stream_sources_and_then_the_answer(assistant: Assistant) -> None:
    for stream in (assistant.stream_llama_index, assistant.stream_langchain):
        first, *rest = stream("When was the Peldor bridge built?")
        assert first.sources[0] == "peldor-bridge.txt"
        assert "Peldor bridge" in joined(rest)


def test_both_frameworks_run_on_one_engine_that_loads_once(assistant: Assistant) -> None:
    before = assistant.engine.stats().finished
    joined(assistant.stream_llama_index("How long is the Crodan tunnel?"))
    joined(assistant.stream_langchain("How long is the Crodan tunnel?"))
    stats = assistant.engine.stats()
    assert stats.finished == before + 2
    assert stats.weight_loads == 1


def test_streamed_answers_are_those_of_a_plain_call(assistant: Assistant) -> None:
    question = "What color is the Calwex theater?"
    assert joined(assistant.stream_llama_index(question)) == str(assistant.query_engine.query(question))
    assert joined(assistant.stream_langchain(question)) == assistant.chain.invoke(question)["answer"]


def test_together_and_one_by_one_give_the_same_answers(assistant: Assistant) -> None:
    questions = [question.text for question in bundled_questions()[:6]]
    single = assistant.measure(questions, together=False)
    batched = assistant.measure(questions, together=True)
    assert batched.answers == single.answers
    assert batched.tokens == single.tokens > 0
    assert batched.denoising_steps == single.denoising_steps > 0
    assert batched.forward_passes < single.forward_passes


def test_most_answers_hold_what_the_documents_say(assistant: Assistant) -> None:
    questions = bundled_questions()
    answers = assistant.measure([question.text for question in questions], together=True).answers
    wrong = [
        (question.text, answer)
        for question, answer in zip(questions, answers, strict=True)
        if not question.is_answered_by(answer)
    ]
    # A floor that a broken prompt, index or engine falls through; how good the checkpoint is, its card says.
    assert len(wrong) <= len(questions) // 3, wrong


def test_the_table_names_what_was_counted() -> None:
    single = demo.Run(("a",) * 4, 2.0, 40, 20, 20)
    batched = demo.Run(("a",) * 4, 0.5, 40, 20, 5)
    page = io.StringIO()
    Console(width=80, file=page).print(demo.comparison(single, batched))
    lines = page.getvalue().splitlines()
    rate = next(line for line in lines if "tok/s" in line)
    assert [word for word in rate.replace("│", " ").split() if word != "tok/s"] == ["20.0", "80.0", "4.00"]
    for name in ("tokens", "denoising steps", "forward passes", "tokens per pass"):
        assert any(name in line for line in lines)


def test_the_bundled_questions() -> None:
    questions = bundled_questions()
    assert len(questions) == 32
    assert len({question.text for question in questions}) == 32
    assert Question("?", ("does not say",)).expected in [question.expected for question in questions[:8]]


def test_the_readme_shows_answers_of_the_demo(assistant: Assistant, repository: Path) -> None:
    shown = re.findall(
        r"^ {4,} \d  (\w+) +(.+\?)\n +(.+)\n +(\S+) · (\d+) tokens in",
        (repository / "README.md").read_text("utf-8"),
        re.M,
    )
    assert len(shown) == 2
    for framework, question, answer, source, tokens in shown:
        stream = assistant.stream_langchain if framework == "LangChain" else assistant.stream_llama_index
        before = assistant.engine.stats().completion_tokens
        first, *rest = stream(question)
        assert (joined(rest), first.sources) == (answer, (source,))
        assert assistant.engine.stats().completion_tokens - before == int(tokens)


def test_an_answer_must_hold_all_that_is_expected() -> None:
    assert Question("?", ("1907", "green")).is_answered_by("It was built in 1907. It is green.")
    assert not Question("?", ("1907", "green")).is_answered_by("It was built in 1907.")
    assert not Question("?").is_answered_by("Anything.")


def run(capfd: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = demo.main(argv)
    printed = capfd.readouterr()
    return code, printed.out, printed.err


def test_own_documents_and_question(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.md").write_text("# Note\n\nThe code of the Halur vault is PK-520.", encoding="utf-8")
    code, out, _ = run(capfd, "--docs", str(tmp_path), "--question", "What is the code of the Halur vault?")
    assert code == 0
    assert out.count("What is the code of the Halur vault?") == 2
    assert out.count("note.md") == 2
    assert "weights were loaded once" in out


def test_own_documents_that_the_embedded_checkpoint_cannot_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prose = "After the war my grandmother kept bees behind the mill, and sold what honey she could spare."
    (tmp_path / "bees.txt").write_text(prose, encoding="utf-8")
    code, out, _ = run(capfd, "--docs", str(tmp_path), "--question", "What is the opening time of the Orvin shop?")
    assert code == 0
    assert "ordinary prose needs --model" in out
    assert "2 of 2 answers say nothing. The embedded checkpoint is small" in out
    assert "--model google/diffusiongemma-26B-A4B-it" in out


def test_answered_questions_get_no_advice() -> None:
    assert advice("embedded", ["It was built in 1907.", "The context does not say."]) == ""
    assert advice("embedded", []) == ""
    said = ["The context does not say.", "", "It was built in 1907."]
    assert advice("embedded", said).startswith("2 of 3 answers say nothing. The embedded")
    assert "--top-k" in advice("some/model", said)
    assert "embedded" not in advice("some/model", said)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--docs", "no/such/folder", "--question", "Who?"], "is not a folder"),
        (["--model", "google/diffusiongemma-26B-A4B-it", "--question", "Who?"], "google/diffusiongemma-26B-A4B-it"),
        (["--model", "no/such/folder/here", "--question", "Who?"], "no/such/folder/here"),
        (["--max-tokens", "0", "--question", "Who?"], "max_new_tokens=0"),
        (["--seed", "-1", "--question", "Who?"], "seed=-1"),
        (["--dtype", "float17", "--question", "Who?"], "dtype='float17'"),
    ],
)
def test_bad_input_is_explained_without_a_traceback(
    argv: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capfd, *argv)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--docs", "examples/corpus"], "--docs needs at least one --question"),
        (["--question", " "], "--question is empty"),
        (["--top-k", "0"], "--top-k 0"),
    ],
)
def test_a_wrong_command_line_is_refused(argv: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        demo.main(argv)
    assert stop.value.code == 2
    assert message in capfd.readouterr().err


def test_an_empty_folder_is_explained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "--docs", str(tmp_path), "--question", "Who?")
    assert code == 2
    assert "has no text to search" in err


def test_a_binary_file_is_explained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_bytes(b"\x7fELF\0\0")
    code, _, err = run(capfd, "--docs", str(tmp_path), "--question", "Who?")
    assert code == 2
    assert "note.txt is not UTF-8 text" in err


@pytest.mark.landing
def test_the_whole_tour(repository: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(repository / "examples" / "demo.py")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert "weights were loaded once" in result.stdout
    assert "batched : one by one" in result.stdout
    assert "Traceback" not in result.stderr
