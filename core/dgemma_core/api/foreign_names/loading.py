"""Foreign names of settings that decide which weights are loaded, where and how."""

from __future__ import annotations

from dgemma_core.api.foreign_names.counterpart import Counterpart, accepted, missing, otherwise, written

_MODEL = 'model="owner/name"'

LOADING: tuple[Counterpart, ...] = (
    accepted("model", "model_name model_id repo_id"),
    written(
        "model",
        "model_path model_url gguf_file",
        _MODEL,
        "a Hub id or a folder with safetensors; GGUF files are not read",
    ),
    written("model", "llm", _MODEL, "a model object finds its weights by itself"),
    otherwise("pipeline state_dict", "give loaded weights as `engine=Engine.from_model(model, tokenizer)`"),
    accepted("max_context", "num_ctx n_ctx context_window max_model_len", "tokens of prompt plus answer"),
    accepted("dtype", "torch_dtype", 'such as `"bfloat16"`, for all tensors'),
    written("device", "device_map n_gpu_layers num_gpu", 'device="cuda"', 'also `"cpu"`; all layers are on one device'),
    written("device", "main_gpu", 'device="cuda:1"', "the number of the GPU"),
    written("quantization", "load_in_4bit", 'quantization="nf4"'),
    written("quantization", "load_in_8bit", 'quantization="int8"'),
    written("quantization", "quantization_config", 'quantization="nf4"', 'also `"int8"`'),
    written(
        "max_batch_tokens",
        "n_batch n_ubatch num_batch max_num_batched_tokens",
        note="bounds a forward pass over all requests",
    ),
    written("prefix_cache_bytes", "enable_prefix_caching", "prefix_cache_bytes=0", "turns the prefix cache off"),
    missing("batch_size max_num_seqs", "open requests share forward passes by themselves"),
    accepted("threads", "num_thread n_threads"),
    written("threads", "n_threads_batch", "threads=8"),
    missing("trust_remote_code", "code that comes with a checkpoint is never run"),
    otherwise("cache_dir download_dir", "set the variable `HF_HUB_CACHE`, as for any download from the Hub"),
    otherwise("local_files_only", "set the variable `HF_HUB_OFFLINE=1`"),
    otherwise("token use_auth_token huggingfacehub_api_token", "set the variable `HF_TOKEN`"),
    otherwise("proxies", "set the variable `HTTPS_PROXY`"),
    missing(
        "tokenizer tokenizer_name tokenizer_kwargs tokenizer_mode tokenizer_revision skip_tokenizer_init",
        "the checkpoint's own tokenizer is used",
    ),
    missing("chat_template chat_format chat_handler", "the checkpoint's own chat template is used"),
    missing(
        "tensor_parallel_size pipeline_parallel_size tensor_split split_mode tp_plan tp_size device_mesh "
        "distributed_config max_memory",
        "all layers are on one device",
    ),
    missing(
        "use_mmap use_mlock numa low_vram offload_kqv op_offload offload_folder offload_buffers cpu_offload_gb "
        "swap_space gpu_memory_utilization",
        "all weights stay in the memory of one device",
    ),
    missing("f16_kv type_k type_v kv_cache_dtype", "keys and values have the number format of `dtype`"),
    missing(
        "flash_attn attn_implementation experts_implementation enforce_eager use_kernels allow_all_kernels "
        "kernel_config compile_config disable_compile",
        "the engine chooses its kernels",
    ),
    otherwise(
        "lora_path lora_base lora_scale adapter_name adapter_kwargs enable_lora lora_request",
        "merge the adapter into the weights, and give their folder as `model`",
    ),
    missing(
        "rope_freq_base rope_freq_scale rope_scaling_type yarn_ext_factor yarn_attn_factor yarn_beta_fast "
        "yarn_beta_slow yarn_orig_ctx swa_full pooling_type attention_type kv_overrides",
        "the checkpoint's `config.json` sets the architecture",
    ),
    missing("logits_all vocab_only embedding embedding_only", "the whole model is loaded, and it answers with text"),
    missing("n_parts subfolder variant key_mapping", "all safetensors of the folder are read"),
    missing("output_loading_info no_perf", "`Engine.stats()` and the usage of an answer have the numbers"),
    missing("task backend", "always text generation with torch"),
)
