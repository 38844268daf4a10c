"""Foreign names of settings of servers and their clients."""

from __future__ import annotations

from dgemma_core.api.foreign_names.counterpart import Counterpart, missing, otherwise

SERVICES: tuple[Counterpart, ...] = (
    missing(
        "base_url api_base openai_api_base api_url endpoint_url inference_server_url provider api_version "
        "api_key openai_api_key organization openai_organization openai_proxy headers default_headers default_query "
        "extra_headers extra_query "
        "client async_client root_client root_async_client openai_client async_openai_client http_client "
        "http_async_client async_http_client http_socket_options client_kwargs sync_client_kwargs "
        "async_client_kwargs server_kwargs reuse_client max_retries include_response_headers",
        "in this version the model runs in this process, without a server",
    ),
    missing(
        "service_tier store include use_responses_api use_previous_response_id context_management "
        "prompt_cache_options prompt_cache_key prompt_cache_retention safety_identifier user moderation prediction "
        "web_search_options disabled_params tiktoken_model_name allowed_special disallowed_special prompt_key",
        "it belongs to another service",
    ),
    missing("modalities audio audio_config", "answers are text"),
    missing("metadata tags", "only LangChain's classes have it, for traces"),
    otherwise("verbose", "the loggers `dgemma_core` and `dgemma_integrations` have the messages"),
    missing("keep_alive", "weights stay until the process ends, or until you call `engine.close()` on your own engine"),
    otherwise("streaming stream", "call the methods whose names begin with `stream`"),
    missing("messages prompt", "give it as the call's first argument"),
)
