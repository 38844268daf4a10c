"""Foreign names of settings that decide how tokens are drawn."""

from __future__ import annotations

from dgemma_core.api.foreign_names.counterpart import Counterpart, missing, written

_VARIED = "`temperature`, `top_p`, `top_k` and `min_p` set how varied an answer is"

SAMPLING: tuple[Counterpart, ...] = (
    written(
        "temperature",
        "temperature",
        note="0 takes the likeliest token, and is the default except with `decoding='diffusion'`",
    ),
    written("temperature", "do_sample", "temperature=0", "this is `do_sample=False`; leave out `do_sample=True`"),
    written("seed", "seed", note="the answer does not depend on what else runs"),
    missing(
        "typical_p tfs_z top_h epsilon_cutoff eta_cutoff mirostat mirostat_mode mirostat_eta mirostat_tau "
        "repeat_penalty repetition_penalty presence_penalty frequency_penalty repeat_last_n last_n_tokens_size "
        "penalize_newline penalty_alpha no_repeat_ngram_size encoder_no_repeat_ngram_size "
        "encoder_repetition_penalty diversity_penalty guidance_scale dola_layers num_beams num_beam_groups "
        "use_beam_search low_memory renormalize_logits remove_invalid_values logits_processor",
        _VARIED,
    ),
    missing(
        "logit_bias sequence_bias bad_words bad_words_ids suppress_tokens begin_suppress_tokens force_words_ids "
        "constraints allowed_token_ids",
        "a call's `grammar` says which texts an answer may hold",
    ),
    missing(
        "draft_model assistant_confidence_threshold assistant_early_exit assistant_ensemble_weight "
        "assistant_lookbehind target_lookbehind num_assistant_tokens num_assistant_tokens_schedule is_assistant "
        "prompt_lookup_num_tokens max_matching_ngram_size speculation_type use_mtp token_healing spm_infill",
        "`decoding='verified'` drafts with the model's own canvas and looks up prompt and answer",
    ),
    missing(
        "use_cache cache_implementation cache_config max_cache_len prefill_chunk_size continuous_batching_config",
        "the engine keeps keys and values, and shares prefixes among requests",
    ),
    missing("watermark watermarking_config", "answers have no watermark"),
    missing("transformers_version", "it is no setting"),
)
