"""Other libraries' names of a setting, and what to write here instead.

The names are keyword arguments of model classes, and keys of their dicts of options (``model_kwargs``,
``pipeline_kwargs``, ``generate_kwargs``). The docs' table and the errors for unknown keyword arguments come from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_HF = "HuggingFacePipeline, HuggingFaceLLM"
_CHAT = "ChatOllama, ChatLlamaCpp, ChatOpenAI, ChatHuggingFace"


@dataclass(frozen=True)
class Counterpart:
    """The advice that several foreign names share.

    Attributes:
        names: foreign name -> the classes that have it, separated by commas.
        setting: our setting, as model objects name it; None if none corresponds.
        note: how our setting differs (may be empty). Without a setting, what to write, or why there is none. Code
            stands in backticks.
    """

    names: Mapping[str, str]
    setting: str | None
    note: str = ""

    @property
    def advice(self) -> str:
        """What to write here, in one clause."""
        if self.setting is None:
            return self.note
        return f"`{self.setting}`{': ' if self.note else ''}{self.note}"


COUNTERPARTS: tuple[Counterpart, ...] = (
    Counterpart(
        {
            "max_new_tokens": f"{_HF}, LlamaCPP",
            "num_predict": "ChatOllama",
            "max_completion_tokens": "ChatOpenAI",
        },
        "max_tokens",
        "an exact bound, not rounded up to canvases",
    ),
    Counterpart({"max_length": _HF}, "max_tokens", "counts the answer alone, not the prompt"),
    Counterpart(
        {
            "num_ctx": "ChatOllama",
            "n_ctx": "ChatLlamaCpp, LlamaCPP",
            "context_window": "HuggingFaceLLM, Ollama, LlamaCPP, OpenAILike",
        },
        "max_context",
        "tokens of prompt plus answer; by default the checkpoint's own limit",
    ),
    Counterpart({"n_batch": "ChatLlamaCpp, LlamaCPP"}, "max_batch_tokens"),
    Counterpart(
        {"batch_size": "HuggingFacePipeline"}, None, "no counterpart: open requests share forward passes by themselves"
    ),
    Counterpart(
        {"model_name": "HuggingFaceLLM, ChatOpenAI", "model_id": "HuggingFacePipeline, ChatHuggingFace"}, "model"
    ),
    Counterpart(
        {"model_path": "ChatLlamaCpp, LlamaCPP", "model_url": "LlamaCPP"},
        "model",
        "a Hub id or a folder with safetensors; GGUF files are not read",
    ),
    Counterpart(
        {"device_map": _HF, "n_gpu_layers": "ChatLlamaCpp, LlamaCPP", "num_gpu": "ChatOllama"},
        "device",
        'such as `"cuda"`; all layers are on one device',
    ),
    Counterpart({"torch_dtype": _HF, "f16_kv": "ChatLlamaCpp"}, "dtype", 'such as `"bfloat16"`, for all tensors'),
    Counterpart({"load_in_4bit": _HF}, "quantization", '`"nf4"`'),
    Counterpart({"load_in_8bit": _HF}, "quantization", '`"int8"`'),
    Counterpart({"quantization_config": _HF}, "quantization", '`"int8"` or `"nf4"`'),
    Counterpart(
        {"num_thread": "ChatOllama", "n_threads": "ChatLlamaCpp, LlamaCPP"},
        None,
        "call `torch.set_num_threads(8)` before the first request, or set `OMP_NUM_THREADS=8`",
    ),
    Counterpart({"trust_remote_code": _HF}, None, "no counterpart: code that comes with a checkpoint is never run"),
    Counterpart({"cache_dir": _HF}, None, "set the variable `HF_HUB_CACHE`, as for any download from the Hub"),
    Counterpart({"local_files_only": _HF}, None, "set the variable `HF_HUB_OFFLINE=1`"),
    Counterpart(
        {"temperature": f"{_CHAT}, {_HF}, Ollama, LlamaCPP, OpenAILike"},
        "temperature",
        "0 repeats its answers; above 0.8 they vary more than by default",
    ),
    Counterpart({"do_sample": _HF}, "temperature", "`do_sample=False` is `temperature=0`"),
    Counterpart(
        {
            "top_p": f"{_CHAT}, {_HF}",
            "top_k": f"ChatOllama, ChatLlamaCpp, {_HF}",
            "repeat_penalty": "ChatOllama, ChatLlamaCpp, LlamaCPP",
            "repetition_penalty": _HF,
            "presence_penalty": "ChatOpenAI, ChatHuggingFace",
            "frequency_penalty": "ChatOpenAI, ChatHuggingFace",
            "logit_bias": "ChatOpenAI, ChatHuggingFace",
            "repeat_last_n": "ChatOllama",
            "last_n_tokens_size": "ChatLlamaCpp",
            "mirostat": "ChatOllama",
            "mirostat_eta": "ChatOllama",
            "mirostat_tau": "ChatOllama",
            "tfs_z": "ChatOllama",
            "num_beams": _HF,
        },
        None,
        "no counterpart: a canvas is not sampled token by token; `entropy_bound` and `t_max` set how varied it is",
    ),
    Counterpart(
        {
            "logprobs": f"{_CHAT}, OpenAILike",
            "top_logprobs": "ChatOllama, ChatOpenAI, ChatHuggingFace, OpenAILike",
        },
        None,
        "no counterpart: tokens of a canvas are drawn together; decisions come with probabilities",
    ),
    Counterpart({"seed": _CHAT}, "seed", "the answer does not depend on what else runs"),
    Counterpart({"n": "ChatOpenAI, ChatHuggingFace"}, None, "make several calls, each with its own `seed`"),
    Counterpart({"stop": _CHAT}, "stop", "strings, exact across canvases"),
    Counterpart({"stop_sequences": "ChatOpenAI, ChatHuggingFace"}, "stop"),
    Counterpart({"stopping_ids": "HuggingFaceLLM"}, "stop", "strings, no token ids"),
    Counterpart({"request_timeout": "Ollama, ChatOpenAI"}, "timeout", "seconds, of a whole request"),
    Counterpart({"stream_chunk_timeout": "ChatOpenAI"}, "timeout", "seconds, of a whole request"),
    Counterpart(
        {"format": "ChatOllama", "json_mode": "Ollama"},
        None,
        "use `with_structured_output(...)` (LangChain), `as_structured_llm(...)` (LlamaIndex), or a call's "
        "`response_format`",
    ),
    Counterpart({"grammar_path": "ChatLlamaCpp"}, None, "give `grammar=Grammar.lark(...)` with a call"),
    Counterpart(
        {"reasoning": "ChatOllama, ChatOpenAI", "reasoning_effort": "ChatOpenAI, OpenAILike"},
        "thinking",
        "True or False",
    ),
    Counterpart(
        {"keep_alive": "ChatOllama, Ollama"},
        None,
        "no counterpart: weights stay until the process ends, or until you call `engine.close()` on your own engine",
    ),
    Counterpart(
        {"validate_model_on_init": "ChatOllama"},
        "validate_model_on_init",
        "checks files, device and number format when the object is made; weights load at the first request",
    ),
    Counterpart(
        {
            "base_url": "ChatOllama, Ollama, ChatOpenAI",
            "api_base": "OpenAILike",
            "openai_api_base": "ChatOpenAI",
            "api_key": "ChatOpenAI, OpenAILike",
            "openai_api_key": "ChatOpenAI",
            "headers": "Ollama",
            "default_headers": "ChatOpenAI, OpenAILike",
            "client_kwargs": "ChatOllama",
            "sync_client_kwargs": "ChatOllama",
            "async_client_kwargs": "ChatOllama",
            "max_retries": "ChatOpenAI, OpenAILike",
        },
        None,
        "no counterpart: the model runs in this process, there is no server",
    ),
    Counterpart(
        {
            "model_kwargs": f"ChatOpenAI, ChatHuggingFace, ChatLlamaCpp, LlamaCPP, {_HF}",
            "pipeline_kwargs": "HuggingFacePipeline",
            "generate_kwargs": "HuggingFaceLLM, LlamaCPP",
            "additional_kwargs": "Ollama, OpenAILike",
        },
        None,
        "write its entries as keyword arguments",
    ),
    Counterpart(
        {
            "tokenizer_name": "HuggingFaceLLM",
            "tokenizer_kwargs": "HuggingFaceLLM",
            "tokenizer": "HuggingFaceLLM, OpenAILike, ChatHuggingFace",
        },
        None,
        "no counterpart: the checkpoint's own tokenizer is used",
    ),
    Counterpart(
        {
            "is_chat_model": "HuggingFaceLLM, OpenAILike",
            "is_function_calling_model": "Ollama, OpenAILike",
            "should_use_structured_outputs": "OpenAILike",
        },
        None,
        "no counterpart: it is always a chat model that calls tools and gives structured answers",
    ),
    Counterpart(
        {"task": "HuggingFacePipeline, ChatHuggingFace", "backend": "HuggingFacePipeline, ChatHuggingFace"},
        None,
        "no counterpart: always text generation with torch",
    ),
    Counterpart(
        {"stream_usage": "ChatOpenAI, ChatHuggingFace"}, None, "no counterpart: a stream's last chunk has the usage"
    ),
)

FOREIGN_NAMES: Mapping[str, Counterpart] = {name: row for row in COUNTERPARTS for name in row.names}
