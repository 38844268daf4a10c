"""Settings of the reranker: fields, checks and copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import MetadataMode
from pydantic import BeforeValidator, Field, field_serializer, field_validator

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.questions import Question, check_draws
from dgemma_integrations.llama_index.llm import DiffusionGemma
from dgemma_integrations.llama_index.long_texts import LONG_TEXT, LongText
from dgemma_integrations.llama_index.questions import as_template
from dgemma_integrations.shared.checks import check_calibration, check_probability

DEFAULT_QUESTION = "Does the text answer this question: {query_str}"

# Strict, because Pydantic would otherwise take True for 1.
_Count = Annotated[int, Field(strict=True, ge=1), BeforeValidator(plain)]


class RerankOptions(TypedDict, total=False):
    """Keyword arguments of the reranker, except its first three."""

    threshold: float | None
    levels: Mapping[str, str] | Sequence[str] | None
    long_text: LongText
    max_concurrency: int | None
    keep_retrieval_score: bool
    metadata_mode: MetadataMode
    draws: int
    calibration: Calibration | None
    callback_manager: CallbackManager


class RerankSettings(BaseNodePostprocessor):
    """Keyword arguments of the reranker."""

    llm: DiffusionGemma = Field(description="The LLM whose engine is asked.")
    top_n: _Count = Field(default=5, description="Most nodes to return.")
    threshold: float | None = Field(default=None, description="Nodes with a lower score are left out.")
    question: PromptTemplate = Field(description="The question about each node.")
    levels: dict[str, str] | None = Field(default=None, description="Levels of relevance; None asks yes or no.")
    long_text: LongText = Field(default="truncate", description="What to do with nodes that do not fit the window.")
    max_concurrency: _Count | None = Field(default=None, description="Nodes that are judged at a time.")
    keep_retrieval_score: bool = Field(default=True, description="Keep the old score in the node's metadata.")
    metadata_mode: MetadataMode = Field(default=MetadataMode.LLM, description="Which metadata belongs to the text.")
    draws: _Count = Field(default=1, description="Noise draws to average over.")
    calibration: Calibration | None = Field(default=None, description="Scales the probabilities.")

    @field_validator("threshold", mode="before")
    @classmethod
    def _check_threshold(cls, value: Any) -> Any:
        if value is not None:
            return check_probability("threshold", value)
        return value

    @field_validator("draws", mode="before")
    @classmethod
    def _check_draws(cls, value: Any) -> Any:
        return check_draws(value)

    @field_validator("calibration", mode="before")
    @classmethod
    def _check_calibration(cls, value: Any) -> Any:
        value = Calibration(**value) if isinstance(value, Mapping) else value
        check_calibration(value)
        return value

    @field_validator("long_text", mode="before")
    @classmethod
    def _check_long_text(cls, value: Any) -> Any:
        if value not in LONG_TEXT:
            raise ValueError(f"long_text={value!r}: must be one of {', '.join(LONG_TEXT)}")
        return value

    @field_validator("levels", mode="before")
    @classmethod
    def _check_levels(cls, value: Any) -> Any:
        if value is None:
            return None
        names = Question("score", "levels", value).names  # Raises an error that names bad levels.
        return dict(value) if isinstance(value, Mapping) else dict.fromkeys(names, "")

    @field_serializer("question")
    def _question_text(self, template: PromptTemplate) -> str:
        return template.template

    def _get_prompts(self) -> PromptDictType:
        return {"question": self.question}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "question" in prompts:
            self.question = as_template("question", prompts["question"], ("query_str",))

    # Not LlamaIndex's own method, which deletes fields that it cannot pickle from the live object.

    def __getstate__(self) -> dict[Any, Any]:
        """The settings, without those that belong to this process, like callbacks."""
        return {"__dict__": {name: getattr(self, name) for name in self.model_fields_set - {"callback_manager"}}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        type(self).__init__(self, **state["__dict__"])
