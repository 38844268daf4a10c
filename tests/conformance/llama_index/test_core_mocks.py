"""The suite against core's own stand-ins, in every environment: it must find what is known to be wrong with them.

``MockLLM`` is a ``CustomLLM``; what is said here of events and limiters holds for every integration that inherits from
that class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.mock import MockFunctionCallingLLM

from dgemma_integrations.llama_index.conformance import LLMConformance

pytestmark = pytest.mark.peers

_TWICE = "CustomLLM: an endpoint that calls another one fires its events again"
_LOST = (
    "MockLLM.stream_complete(max_tokens=n): the text of a chunk is a word short of its deltas, the last word is lost"
)
_ANYTHING = "the mock calls every tool it is given, with default values or without arguments"
_ELSEWHERE = 'the mock puts tool calls in blocks, not in additional_kwargs["tool_calls"]'
_IMAGES = "images are taken for text, or left out, without an error"
_FUNCTION_FIELD = "blocks_to_content_callback is a function in a public field: to_dict() is no JSON"


class TestMockLLM(LLMConformance):
    reports_usage = False
    checks_context = False
    supports_stop = False
    supports_max_tokens = False
    # Its answers take no time.
    has_native_async = False

    @property
    def llm_class(self) -> type[LLM]:
        return MockLLM

    @property
    def llm_params(self) -> dict[str, Any]:
        return {"max_tokens": 5}

    @property
    def known_failures(self) -> Mapping[str, str]:
        twice = ("chat", "stream_chat", "achat", "acomplete", "astream_chat", "astream_complete")
        return {
            **{f"test_one_event_per_call[{endpoint}]": _TWICE for endpoint in twice},
            **{f"test_rate_limiter_is_asked_once[{endpoint}]": _TWICE for endpoint in twice},
            "test_leaving_a_stream_ends_its_event[stream_chat]": _TWICE,
            "test_predict[apredict]": _TWICE,
            "test_predict[astream]": _TWICE,
            "test_progress_events": _TWICE,
            "test_deltas_add_up": _LOST,
            "test_stream_says_what_the_plain_call_says": _LOST,
            "test_chunks_are_not_changed_later": _LOST,
            "test_endpoints_agree": _LOST,
            "test_images": _IMAGES,
            "test_old_way_of_images": _IMAGES,
        }


class TestMockFunctionCallingLLM(LLMConformance):
    reports_usage = False
    checks_context = False
    supports_stop = False
    supports_max_tokens = False
    streams_tokens = False
    has_structured_output = False

    @property
    def llm_class(self) -> type[LLM]:
        return MockFunctionCallingLLM

    @property
    def llm_params(self) -> dict[str, Any]:
        return {"is_chat_model": True}

    @property
    def known_failures(self) -> Mapping[str, str]:
        return {
            "test_required_tool_is_called": _ANYTHING,
            "test_tool_chosen_by_name": _ANYTHING,
            "test_one_call_unless_parallel": _ANYTHING,
            "test_parallel_calls_are_allowed": _ANYTHING,
            "test_predict_and_call": _ANYTHING,
            "test_function_agent": _ANYTHING,
            "test_calls_are_where_core_looks": _ELSEWHERE,
            "test_no_call_is_an_error_by_default": "error_on_no_tool_call is False by default and has no effect",
            "test_predict[apredict]": "achat calls chat: two events",
            "test_one_event_per_call[achat]": "achat calls chat: two events",
            "test_rate_limiter_is_asked_once[achat]": "achat calls chat: the limiter is asked twice",
            "test_images": _IMAGES,
            "test_old_way_of_images": _IMAGES,
            "test_to_dict_is_json": _FUNCTION_FIELD,
            "test_from_dict": _FUNCTION_FIELD,
            "test_load_llm": "it is not in RECOGNIZED_LLMS",
            "test_extractor_from_dict": "it is not in RECOGNIZED_LLMS",
        }
