"""Foreign names of settings that decide how long an answer is, where it ends and what form it has."""

from __future__ import annotations

from dgemma_core.api.foreign_names.counterpart import Counterpart, accepted, missing, options, otherwise, written

_SCHEMA = (
    "use `with_structured_output(...)` (LangChain), `as_structured_llm(...)` (LlamaIndex), or a call's "
    "`response_format`"
)

ANSWERS: tuple[Counterpart, ...] = (
    accepted(
        "max_tokens",
        "max_new_tokens num_predict max_completion_tokens max_output_tokens",
        "an exact bound, not rounded up to canvases",
    ),
    written("max_tokens", "max_length", "max_tokens=256", "counts the answer alone, not the prompt"),
    missing(
        "min_length min_new_tokens min_tokens ignore_eos length_penalty early_stopping "
        "exponential_decay_length_penalty",
        "an answer ends where the model ends it, at a `stop`, or after `max_tokens`",
    ),
    written("stop", "stop", note="strings, exact across canvases"),
    accepted("stop", "stop_sequences stop_strings"),
    written(
        "stop", "stopping_ids stop_token_ids stopping_criteria", 'stop=["END"]', "strings, no token ids or functions"
    ),
    missing(
        "eos_token_id pad_token_id bos_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id",
        "the checkpoint's own tokens are used",
    ),
    accepted("timeout", "request_timeout", "seconds, of a whole request"),
    written("timeout", "stream_chunk_timeout max_time", "timeout=60", "seconds, of a whole request; then an error"),
    otherwise("n best_of num_return_sequences", "make several calls, each with its own `seed`"),
    missing(
        "return_full_text echo tokenizer_outputs_to_remove skip_special_tokens",
        "an answer holds neither the prompt nor control tokens",
    ),
    otherwise("suffix", 'call `engine.infill(["before", Hole(), "after"])`'),
    missing("truncate truncation truncate_prompt_tokens num_keep", "a prompt that is too long is an error"),
    otherwise("format json_mode structured_outputs guided_decoding guided_json", _SCHEMA),
    otherwise("grammar grammar_path guided_grammar", "give `grammar=Grammar.lark(...)` with a call"),
    otherwise("guided_regex", "give `grammar=Grammar.regex(...)` with a call"),
    otherwise("guided_choice", "give `grammar=Grammar.choice([...])` with a call"),
    otherwise("response_format", "give `response_format` with a call"),
    missing("strict", "calls and structured answers always fit their schema"),
    written("thinking", "reasoning reasoning_effort think enable_thinking", "thinking=True", "also `False`"),
    missing(
        "is_chat_model is_function_calling_model should_use_structured_outputs",
        "it is always a chat model that calls tools and gives structured answers",
    ),
    otherwise(
        "tools tool_choice functions function_call parallel_tool_calls",
        "use `bind_tools(...)` (LangChain) or `chat_with_tools(...)` (LlamaIndex)",
    ),
    missing("stream_usage stream_options", "a stream's last chunk has the usage"),
    missing("verbosity", "say in the prompt how long the answer should be"),
    missing(
        "output_scores output_logits output_attentions output_hidden_states return_dict_in_generate prompt_logprobs",
        "an answer is text with its usage",
    ),
    options(
        "model_kwargs pipeline_kwargs generate_kwargs generation_config additional_kwargs options extra_body "
        "vllm_kwargs chat_template_kwargs"
    ),
)
