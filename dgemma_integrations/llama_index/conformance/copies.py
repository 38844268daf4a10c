"""Copies, pickles and dumps of the object."""

from __future__ import annotations

import copy
import json
import pickle
import time
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.loading import load_llm
from llama_index.core.schema import MetadataMode, TextNode, TransformComponent

from .base import ConformanceBase, needs
from .recording import RecordingHandler


class CopyTests(ConformanceBase):
    """An LLM that comes back from a copy, a pickle or a dump is the same LLM."""

    # --- copies ---

    def _same_answer(self, first: LLM, second: LLM) -> None:
        assert type(first) is type(second)
        if self.is_deterministic:
            assert self.answer(first, "complete") == self.answer(second, "complete")
        else:
            assert self.answer(second, "complete").strip()

    def test_model_copy(self, llm: LLM) -> None:
        """Fails: ``llm.model_copy(update={...})``, the usual way to change one setting, loads or shares too much."""
        self._same_answer(llm, llm.model_copy())
        if self.other_params:
            copied = llm.model_copy(update=self.other_params)
            for name, value in self.other_params.items():
                assert getattr(copied, name) == value
                assert getattr(llm, name) != value

    def test_deepcopy(self, llm: LLM) -> None:
        """Fails: agents and workflows that copy their state fail, or hold the weights twice."""
        start = time.monotonic()
        copied = copy.deepcopy(llm)
        assert time.monotonic() - start < 5
        self._same_answer(llm, copied)
        copied.callback_manager = CallbackManager([handler := RecordingHandler()])
        self.call(llm, "complete", **self.limit(2))
        assert not handler.started, "the copy shares its callback manager with the original"

    @needs("pickles")
    def test_pickle(self, llm: LLM) -> None:
        """Fails: ``IngestionPipeline(num_workers=2)`` breaks with an extractor. Core's own ``__getstate__`` deletes
        fields that cannot be pickled from the live object (``schema.py``), so the test checks the original, too.
        """
        before = {name: getattr(llm, name, None) for name in type(llm).model_fields}
        data = pickle.dumps(llm)
        assert len(data) < 100_000, f"{len(data)} bytes: the weights are in it"
        after = {name: getattr(llm, name, None) for name in type(llm).model_fields}
        assert after == before, "pickling changed the original"
        self._same_answer(llm, pickle.loads(data))

    # --- dumps ---

    def test_to_dict_is_json(self, llm: LLM) -> None:
        """Fails: pipelines, prompts and workflows that hold the LLM cannot be stored."""
        data = llm.to_dict()
        assert data["class_name"] == llm.class_name()
        assert json.loads(json.dumps(data)) == json.loads(llm.to_json())

    def test_equal_objects_have_equal_dumps(self) -> None:
        """Fails: ``IngestionPipeline``'s cache never hits, because its key is the text of the dumped component."""
        texts = [str(self.make().to_dict()) for _ in range(2)]
        assert texts[0] == texts[1]
        if self.other_params:
            assert str(self.make(**self.other_params).to_dict()) != texts[0], (
                "a setting that changes answers is missing"
            )

    @needs("dumps")
    def test_from_dict(self, llm: LLM) -> None:
        """Fails: a stored LLM comes back with other settings, or not at all."""
        data = json.loads(json.dumps(llm.to_dict()))
        restored = type(llm).from_dict(data)
        assert restored.to_dict() == llm.to_dict()
        self._same_answer(llm, restored)

    @needs("dumps")
    def test_load_llm(self, llm: LLM) -> None:
        """Fails: extractors are not restored ("Invalid LLM name"). A class must be in ``RECOGNIZED_LLMS``
        (``llms/loading.py``); an integration can add it when it is imported.
        """
        restored: Any = load_llm(llm.to_dict())
        assert type(restored) is type(llm)

    @needs("dumps")
    def test_extractor_from_dict(self, llm: LLM) -> None:
        """Fails: as above, in a component that does so."""
        from llama_index.core.extractors import KeywordExtractor

        extractor = KeywordExtractor(llm=llm, keywords=2, num_workers=1, show_progress=False)
        restored: TransformComponent = KeywordExtractor.from_dict(extractor.to_dict())
        nodes = restored([TextNode(text="The Toln is a river.")])
        assert nodes[0].metadata.get("excerpt_keywords") is not None
        assert nodes[0].get_content(metadata_mode=MetadataMode.NONE) == "The Toln is a river."
