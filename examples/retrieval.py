"""A folder of text files, cut into passages and searched with BM25, for LlamaIndex and LangChain alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bm25s
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever as LangChainRetriever
from llama_index.core.retrievers import BaseRetriever as LlamaIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import ConfigDict

SUFFIXES = (".txt", ".md")
WORDS_PER_PASSAGE = 60

# A sentence ends at a full stop, question mark or exclamation mark, if a blank and the start of another one follow.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(A-Z0-9])")
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_HEADING_MARK = re.compile(r"^#+\s*", re.MULTILINE)


class CorpusError(Exception):
    """A folder has nothing to search; the message says what was looked for."""


@dataclass(frozen=True)
class Passage:
    """A few sentences and the file they come from."""

    text: str
    source: str


def read_folder(folder: Path) -> list[Passage]:
    """All passages of the text files in a folder and the folders in it.

    Raises:
        CorpusError: no such folder, no text in it, or a file that is not text.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder; give one with {' or '.join(SUFFIXES)} files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    passages = [Passage(text, str(path.relative_to(folder))) for path in files for text in split_passages(_read(path))]
    if not passages:
        found = f"its {len(files)} {' and '.join(SUFFIXES)} files are empty" if files else "it has none"
        raise CorpusError(f"{folder} has no text to search: looked for {' and '.join(SUFFIXES)} files, {found}")
    return passages


def _read(path: Path) -> str:
    data = path.read_bytes()
    if b"\0" in data:
        raise CorpusError(f"{path} is not UTF-8 text: it has zero bytes; convert it or take it out of the folder")
    return data.decode("utf-8", errors="replace")


def split_passages(text: str, words: int = WORDS_PER_PASSAGE) -> Iterator[str]:
    """Cuts a text into passages of whole sentences and about ``words`` words; each paragraph starts a new passage."""
    for paragraph in _PARAGRAPH_END.split(_HEADING_MARK.sub("", text)):
        passage: list[str] = []
        length = 0
        for sentence in _pieces(paragraph, words):
            size = len(sentence.split())
            if passage and length + size > words:
                yield " ".join(passage)
                passage, length = [], 0
            passage.append(sentence)
            length += size
        if passage:
            yield " ".join(passage)


def _pieces(paragraph: str, words: int) -> Iterator[str]:
    """The sentences; a sentence longer than a passage (a table, a list without full stops) is cut between words."""
    for sentence in _SENTENCE_END.split(paragraph.strip()):
        parts = sentence.split()
        for begin in range(0, len(parts), words):
            yield " ".join(parts[begin : begin + words])


class PassageIndex:
    """BM25 over passages, for both retrievers below."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self.passages = list(passages)
        self._bm25 = bm25s.BM25()
        self._bm25.index(self._tokens([passage.text for passage in self.passages]), show_progress=False)

    def search(self, query: str, top_k: int) -> list[tuple[Passage, float]]:
        """The best passages with their scores, without those that share no word with the query.

        The first passage always stays, so that the model has something to answer from, or to find no answer in.
        """
        count = min(top_k, len(self.passages))
        found, scores = self._bm25.retrieve(self._tokens([query]), k=count, show_progress=False)
        ranked = [(self.passages[int(i)], float(score)) for i, score in zip(found[0], scores[0], strict=True)]
        return [hit for rank, hit in enumerate(ranked) if rank == 0 or hit[1] > 0]

    @staticmethod
    def _tokens(texts: list[str]) -> list[list[str]]:
        tokens: list[list[str]] = bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
        return tokens


class LlamaIndexBM25(LlamaIndexRetriever):
    """The index as a LlamaIndex retriever."""

    def __init__(self, index: PassageIndex, top_k: int = 2) -> None:
        super().__init__()
        self._index = index
        self._top_k = top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            # The file name is for the reader, not for the model.
            NodeWithScore(
                node=TextNode(
                    text=passage.text, metadata={"source": passage.source}, excluded_llm_metadata_keys=["source"]
                ),
                score=score,
            )
            for passage, score in self._index.search(query_bundle.query_str, self._top_k)
        ]


class LangChainBM25(LangChainRetriever):
    """The index as a LangChain retriever."""

    index: PassageIndex
    top_k: int = 2

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun | None = None
    ) -> list[Document]:
        return [
            Document(passage.text, metadata={"source": passage.source, "score": score})
            for passage, score in self.index.search(query, self.top_k)
        ]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun | None = None
    ) -> list[Document]:
        # The search takes microseconds, so a thread would cost more than it saves.
        return self._get_relevant_documents(query)
