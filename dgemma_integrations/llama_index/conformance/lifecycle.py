"""The object itself: construction, metadata, settings, copies, dumps."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM

from .calls import chat
from .copies import CopyTests
from .recording import RecordingHandler


class LifecycleTests(CopyTests):
    """Construction, metadata and settings, without calls."""

    # --- construction and metadata ---

    def test_class(self, llm: LLM) -> None:
        """Fails: core does not take it for an LLM, or stores it under another class's name."""
        assert isinstance(llm, BaseLLM | LLM)
        assert isinstance(llm, self.llm_class)
        assert type(llm).class_name() not in {base.class_name() for base in LLM.__mro__ if hasattr(base, "class_name")}
        assert "class_name" in vars(type(llm)), "class_name() is inherited: two classes would share one name"

    def test_many_objects_are_cheap(self) -> None:
        """Fails: each index, agent and test that makes its own LLM loads the weights again, or starts threads."""
        self.make()
        threads, start = threading.active_count(), time.monotonic()
        llms = [self.make() for _ in range(30)]
        assert time.monotonic() - start < 10
        assert threading.active_count() <= threads + 1
        assert self.call(llms[-1], "complete", **self.limit(2))

    def test_metadata(self, llm: LLM) -> None:
        """Fails: ``PromptHelper`` packs prompts to the wrong size. ``context_window`` holds prompt and answer. Without
        room for a prompt every query engine raises a ValueError.
        """
        metadata = llm.metadata
        assert metadata.context_window > 0
        assert metadata.num_output == -1 or 0 < metadata.num_output < metadata.context_window
        helper = PromptHelper.from_llm_metadata(metadata)
        assert helper.context_window - helper.num_output > 0
        assert metadata.model_name
        assert isinstance(metadata.is_chat_model, bool)

    def test_metadata_is_cheap(self) -> None:
        """Fails: everything is slow, or needs a server before the first call. Core reads ``metadata`` very often."""
        llm = self.make()
        start = time.monotonic()
        for _ in range(200):
            llm.metadata  # noqa: B018
        assert time.monotonic() - start < 5

    def test_payload(self, llm: LLM) -> None:
        """Fails: traces cannot be stored, or hold secrets. The payload is in every start event."""
        payload = llm.to_payload()
        assert payload["class_name"] == llm.class_name()
        text = json.dumps(payload)
        assert len(text) < 10_000
        assert not re.search(r"(?i)\"[^\"]*(api_?key|password|secret)[^\"]*\": \"", text)

    def test_repr(self, llm: LLM) -> None:
        """Fails: logging an index or an agent recurses endlessly, or prints the weights."""
        for text in (repr(llm), str(llm)):
            assert 0 < len(text) < 5_000

    # --- settings ---

    def test_callback_manager_is_assigned(self, llm: LLM) -> None:
        """Fails: events go to an old manager. Core assigns ``llm.callback_manager`` on shared objects."""
        handlers = [RecordingHandler(), RecordingHandler()]
        for handler in handlers:
            llm.callback_manager = CallbackManager([handler])
            self.call(llm, "complete", **self.limit(2))
        assert [len(handler.started) for handler in handlers] == [1, 1]
        llm.callback_manager = CallbackManager([])
        self.call(llm, "complete", **self.limit(2))
        assert [len(handler.ended) for handler in handlers] == [1, 1]

    def test_none_as_callback_manager(self) -> None:
        """Fails: ``callback_manager=None``, which much code passes, raises a ValidationError or breaks later."""
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

    def test_system_prompt_is_sent_once(self) -> None:
        """Fails: ``chat`` adds a system prompt that core's ``predict`` has added already."""
        if not self.is_deterministic or not self.supports_max_tokens:
            pytest.skip("needs equal answers to equal prompts")
        text = "Answer with the word Brontes."
        told = [ChatMessage(role=MessageRole.SYSTEM, content=text), *chat(self.prompt)]
        assert self.answer(self.make(system_prompt=text), "chat", told) == self.answer(self.make(), "chat", told)
