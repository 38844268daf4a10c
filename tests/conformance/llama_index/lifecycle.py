"""The object itself: construction, metadata, settings, copies, dumps."""

from __future__ import annotations

import copy
import json
import pickle
import re
import threading
import time
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.loading import load_llm
from llama_index.core.schema import MetadataMode, TextNode, TransformComponent

from .base import ConformanceBase, RecordingHandler, needs


class LifecycleTests(ConformanceBase):
    """Everything but calls."""

    # --- construction and metadata ---

    def test_class(self, llm: LLM) -> None:
        """Fails: core does not take it for an LLM, or stores it under another class's name."""
        assert isinstance(llm, BaseLLM | LLM)
        assert isinstance(llm, self.llm_class)
        assert type(llm).class_name() not in {base.class_name() for base in LLM.__mro__ if hasattr(base, "class_name")}
        assert "class_name" in vars(type(llm)), "class_name() is inherited: two classes would share one name"

    def test_many_objects_are_cheap(self) -> None:
        """Fails: each index, agent and test that builds its own LLM loads the weights again, or starts threads."""
        self.make()
        threads, start = threading.active_count(), time.monotonic()
        llms = [self.make() for _ in range(30)]
        assert time.monotonic() - start < 10
        assert threading.active_count() <= threads + 1
        assert self.call(llms[-1], "complete", **self.limit(2))

    def test_metadata(self, llm: LLM) -> None:
        """Fails: prompts are packed to the wrong size (``PromptHelper``): ``context_window`` holds prompt and answer,
        and no room for a prompt is a ValueError in every query engine.
        """
        metadata = llm.metadata
        assert metadata.context_window > 0
        assert metadata.num_output == -1 or 0 < metadata.num_output < metadata.context_window
        helper = PromptHelper.from_llm_metadata(metadata)
        assert helper.context_window - helper.num_output > 0
        assert metadata.model_name
        assert isinstance(metadata.is_chat_model, bool)

    def test_metadata_is_cheap(self) -> None:
        """Fails: everything is slow, or needs a server before the first call: core reads ``metadata`` all the time."""
        llm = self.make()
        start = time.monotonic()
        for _ in range(200):
            llm.metadata  # noqa: B018
        assert time.monotonic() - start < 5

    def test_payload(self, llm: LLM) -> None:
        """Fails: traces cannot be stored, or carry secrets: it goes into every start event."""
        payload = llm.to_payload()
        assert payload["class_name"] == llm.class_name()
        text = json.dumps(payload)
        assert len(text) < 10_000
        assert not re.search(r"(?i)\"[^\"]*(api_?key|password|secret)[^\"]*\": \"", text)

    def test_repr(self, llm: LLM) -> None:
        """Fails: logging an index or an agent is an endless recursion, or prints the weights."""
        for text in (repr(llm), str(llm)):
            assert 0 < len(text) < 5_000

    # --- settings ---

    def test_callback_manager_is_assigned(self, llm: LLM) -> None:
        """Fails: events go to an old manager: core assigns ``llm.callback_manager`` on shared objects."""
        handlers = [RecordingHandler(), RecordingHandler()]
        for handler in handlers:
            llm.callback_manager = CallbackManager([handler])
            self.call(llm, "complete", **self.limit(2))
        assert [len(handler.started) for handler in handlers] == [1, 1]
        llm.callback_manager = CallbackManager([])
        self.call(llm, "complete", **self.limit(2))
        assert [len(handler.ended) for handler in handlers] == [1, 1]

    def test_none_as_callback_manager(self) -> None:
        """Fails: ``callback_manager=None``, which much code passes on, is a ValidationError or breaks later."""
        try:
            llm = self.make(callback_manager=None)
        except ValueError as error:
            if "callback_manager" in str(error) and "CallbackManager" in str(error):
                pytest.skip("core's own field refuses None")
            raise
        assert isinstance(llm.callback_manager, CallbackManager)

    def test_settings_llm(self, llm: LLM) -> None:
        """Fails: it cannot be the default LLM of LlamaIndex."""
        before = Settings._llm
        try:
            Settings.llm = llm
            assert Settings.llm is llm
        finally:
            Settings._llm = before

    def test_system_prompt_is_no_part_of_chat(self) -> None:
        """Fails: the system prompt is sent twice: core adds it in ``predict``, so ``chat`` must not."""
        if not self.is_deterministic or not self.supports_max_tokens:
            pytest.skip("needs equal answers to equal prompts")
        with_prompt = self.make(system_prompt="Answer with the word Brontes.")
        assert self.answer(with_prompt, "chat") == self.answer(self.make(), "chat")

    # --- copies ---

    def _same_answer(self, first: LLM, second: LLM) -> None:
        assert type(first) is type(second)
        if self.is_deterministic:
            assert self.answer(first, "complete") == self.answer(second, "complete")
        else:
            assert self.answer(second, "complete").strip()

    def test_model_copy(self, llm: LLM) -> None:
        """Fails: ``llm.model_copy(update={...})``, the usual way to vary one setting, loads or shares too much."""
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
        """Fails: ``IngestionPipeline(num_workers=2)`` with an extractor. Core's own ``__getstate__`` deletes fields
        that cannot be pickled from the live object (``schema.py``), so the original is looked at, too.
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
        """Fails: ``IngestionPipeline``'s cache never hits: its key is the text of the dumped component."""
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
        """Fails: extractors are not restored ("Invalid LLM name"): a class must be in ``RECOGNIZED_LLMS``
        (``llms/loading.py``), which an integration can add to when it is imported.
        """
        restored: Any = load_llm(llm.to_dict())
        assert type(restored) is type(llm)

    @needs("dumps")
    def test_extractor_from_dict(self, llm: LLM) -> None:
        """Fails: as above, through a component that really does it."""
        from llama_index.core.extractors import KeywordExtractor

        extractor = KeywordExtractor(llm=llm, keywords=2, num_workers=1, show_progress=False)
        restored: TransformComponent = KeywordExtractor.from_dict(extractor.to_dict())
        nodes = restored([TextNode(text="The Toln is a river.")])
        assert nodes[0].metadata.get("excerpt_keywords") is not None
        assert nodes[0].get_content(metadata_mode=MetadataMode.NONE) == "The Toln is a river."
