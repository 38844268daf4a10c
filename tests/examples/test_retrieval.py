from __future__ import annotations

from pathlib import Path

import pytest
from demo import CORPUS, bundled_questions
from retrieval import CorpusError, LangChainBM25, LlamaIndexBM25, Passage, PassageIndex, read_folder, split_passages


@pytest.fixture(scope="module")
def index() -> PassageIndex:
    return PassageIndex(read_folder(CORPUS))


def test_the_corpus_is_short_documents_one_passage_each() -> None:
    passages = read_folder(CORPUS)
    assert len(passages) >= 12
    assert len({passage.source for passage in passages}) == len(passages)
    for passage in passages:
        assert 25 <= len(passage.text.split()) <= 60, passage


def test_what_a_question_needs_is_retrieved_first(index: PassageIndex) -> None:
    for question in bundled_questions():
        best, _ = index.search(question.text, 2)[0]
        if question.expected != ("does not say",):
            assert all(part in best.text for part in question.expected), question


def test_no_document_answers_the_questions_to_abstain_from() -> None:
    texts = [passage.text for passage in read_folder(CORPUS)]
    assert not any("Falra museum" in text and "designed" in text for text in texts)
    assert not any("Tumapi garden" in text and "own" in text for text in texts)


def test_both_retrievers_find_the_same(index: PassageIndex) -> None:
    question = "How long is the Crodan tunnel?"
    nodes = LlamaIndexBM25(index, top_k=3).retrieve(question)
    documents = LangChainBM25(index=index, top_k=3).invoke(question)
    assert [node.text for node in nodes] == [document.page_content for document in documents]
    assert [node.metadata["source"] for node in nodes] == [document.metadata["source"] for document in documents]
    assert nodes[0].metadata["source"] == "crodan-tunnel.txt"


async def test_the_async_retrievers_find_the_same(index: PassageIndex) -> None:
    question = "Who owns the Zuwa telescope?"
    nodes = await LlamaIndexBM25(index).aretrieve(question)
    documents = await LangChainBM25(index=index).ainvoke(question)
    assert [node.text for node in nodes] == [document.page_content for document in documents]


@pytest.mark.parametrize("query", ["", "the of and", "xylophonist", "bridge"])
def test_any_query_finds_something(index: PassageIndex, query: str) -> None:
    assert 1 <= len(index.search(query, 5)) <= 5


def test_more_passages_asked_for_than_there_are() -> None:
    index = PassageIndex([Passage("The key hangs by the door.", "a.txt")])
    assert [passage.source for passage, _ in index.search("Where is the key?", 10)] == ["a.txt"]


def test_a_passage_is_whole_sentences() -> None:
    text = "One two three. Four five six! Is it seven? Eight 9.5 nine."
    assert list(split_passages(text, words=6)) == ["One two three. Four five six!", "Is it seven? Eight 9.5 nine."]


def test_a_paragraph_begins_a_new_passage_and_heading_marks_go() -> None:
    assert list(split_passages("# Keys\n\nA key.\nIt is\nhere.\n\n\nB.")) == ["Keys", "A key. It is here.", "B."]


def test_a_text_without_full_stops_is_cut_between_words() -> None:
    passages = list(split_passages("word " * 25, words=10))
    assert [len(passage.split()) for passage in passages] == [10, 10, 5]


def test_folders_within_the_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.MD").write_text("Alpha.", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"Beta \xff gamma.")
    (tmp_path / "c.pdf").write_text("Not read.", encoding="utf-8")
    passages = read_folder(tmp_path)
    assert [passage.source for passage in passages] == ["b.txt", str(Path("in") / "a.MD")]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere is not a folder"):
        read_folder(tmp_path / "nowhere")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="has no text to search"):
        read_folder(tmp_path)


def test_a_folder_of_empty_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("  \n\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="empty"):
        read_folder(tmp_path)
