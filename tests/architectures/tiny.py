"""Every class of transformers for language, made tiny: a config of small sizes by the names of its entries.

A config class says its sizes in its defaults. `SIZES` makes each of them small by its name, in the configs inside it too;
`SPECIAL` has the few that need more than that.
"""

import re
from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto

KINDS = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "SEQ_TO_SEQ_CAUSAL_LM")
VOCABULARY = 128

# Small sizes by what an entry's name ends with; the first that matches counts.
SIZES = {
    r"(vocab_size|num_embeddings|codebook_size)(_per_layer_input)?": VOCABULARY,
    r"(num_hidden_layers|num_layers|n_layers?|(encoder|decoder)_layers|depth|num_blocks)": 2,
    r"(num_key_value_heads|num_kv_heads|n_head_kv|attn_kv_heads)": 2,
    r"(heads|n_head)": 4,
    r"(head_dim|d_kv|head_size|kv_channels)": 8,
    r"(lora_rank)": 16,
    r"(intermediate_size|ffn_dim|d_ff|n_inner|mlp_dim|ffn_hidden_size)": 64,
    r"(hidden_size|d_model|n_embd|embed_dim|emb_dim|hidden_dim|width|embedding_size|output_dim|projection_dim|output_size)": 32,
    r"(n_routed_experts|num_experts|num_local_experts|moe_num_experts)": 4,
    r"(num_experts_per_tok|moe_k|moe_top_k|top_k)": 2,
    r"(n_group|topk_group|num_expert_group)": 1,
    r"(image_size)": 28,
    r"(patch_size)": 14,
    r"(max_position_embeddings|n_positions|max_source_positions|max_target_positions|max_seq_len)": 64,
    r"(layer_period|full_attention_interval|sliding_window_pattern)": 2,
    r"(first_k_dense_replace|layer_offset|num_res_blocks)": 1,
    r"(base_channels|latent_channels|output_channels|(in|mid|out)_channels)": 32,
    r"(expert_num)": 2,
}
SIZES = {re.compile(f"(?:^|.*_){name}"): size for name, size in SIZES.items()}
DEPTHS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
TOKEN = re.compile(r".*token_(id|index)")

ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
COMPASS = {
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {"sliding_attention": ROPE, "full_attention": None},
}
QSA = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
    "ngram_vocab_size_base": 64,
    "split_ngram_parts": 2,
}

# By class: entries of its config that its defaults lack, that belong together, or that make layers of all kinds.
SPECIAL: dict[str, dict[str, Any]] = {
    "BltForCausalLM": {"encoder_hash_byte_group_vocab": 64},
    "ChameleonForConditionalGeneration": {"vocabulary_map": {"<image>": 5}},
    "CohereCompassForCausalLM": COMPASS,
    "CohereCompassForConditionalGeneration": {"text_config": COMPASS},
    "Cosmos3EdgeForConditionalGeneration": {"text_config": {"head_dim": 8, "rope_parameters": ROPE}},
    "DbrxForCausalLM": {"attn_config": {"rope_theta": 1e4}},
    "DeepseekOcr2ForConditionalGeneration": {
        "vision_config": {"sam_config": {"downsample_channels": [32, 32]}},
        "text_config": {"num_experts_per_tok": 2, "mlp_layer_types": ["dense", "sparse"]},
    },
    "Dots1ForCausalLM": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "Emu3ForConditionalGeneration": {"vocabulary_map": {"<image>": 5}},
    "EncoderDecoderModel": {
        "encoder": {"model_type": "bert"},
        "decoder": {"model_type": "bert", "is_decoder": True, "add_cross_attention": True},
    },
    "DiffusionGemmaForBlockDiffusion": {
        "vision_config": {"model_type": "gemma4_vision"},
        "text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 64},
    },
    "Ernie4_5_VLMoeForConditionalGeneration": {
        "text_config": {
            "moe_intermediate_size": [64, 64],
            "rope_parameters": ROPE,
            "mlp_layer_types": ["dense", "sparse"],
        }
    },
    "Gemma3nForCausalLM": {"intermediate_size": 64, "num_kv_shared_layers": 1},
    "Gemma3nForConditionalGeneration": {"text_config": {"intermediate_size": 64, "num_kv_shared_layers": 1}},
    "Gemma4AssistantForCausalLM": {
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        }
    },
    "Gemma4UnifiedAssistantForCausalLM": {"text_config": {"model_type": "gemma4_unified_text"}},
    "Glm5NextForConditionalGeneration": {"text_config": {"num_key_value_heads": 4}},
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 1]]},
    "Granite4VisionForConditionalGeneration": {
        "text_config": {"model_type": "granite"},
        "deepstack_layer_map": [[0, 0]],
        "downsample_rate": "1/2",
    },
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "NemotronForCausalLM": {"num_key_value_heads": 2},
    **dict.fromkeys(("Qwen4ExpForCausalLM",), QSA),
    "Qwen4ExpForConditionalGeneration": {"text_config": QSA},
    "Mamba2ForCausalLM": {"num_heads": 8},
    "ReformerModelWithLMHead": {
        "is_decoder": True,
        "axial_pos_shape": (8, 8),
        "axial_pos_embds_dim": (16, 16),
    },
    "VibeVoiceAsrForConditionalGeneration": {
        "acoustic_tokenizer_encoder_config": {"num_filters": 2},
        "semantic_tokenizer_encoder_config": {"num_filters": 2},
    },
    "VisionEncoderDecoderModel": {
        "encoder": {"model_type": "vit"},
        "decoder": {"model_type": "bert", "is_decoder": True, "add_cross_attention": True},
    },
    "ZambaForCausalLM": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "hybrid"]},
    "Zamba2ForCausalLM": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "hybrid"]},
    "ZayaForCausalLM": {"num_experts_per_tok": 1},
}


def classes() -> list[str]:
    """Names of all classes for language, for images and text, and of encoders with decoders."""
    mappings = (getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES") for kind in KINDS)
    return sorted({name for mapping in mappings for name in mapping.values()})


def tiny(name: str) -> PreTrainedConfig:
    """The class' config with small sizes."""
    kind = getattr(transformers, name).config_class
    special = SPECIAL.get(name, {})
    inside = {
        entry: each for entry, each in special.items() if isinstance(each, dict) and "model_type" in each
    }
    return kind(**merged(small(kind(**inside)), special))


def small(config: PreTrainedConfig) -> dict[str, Any]:
    """Entries of a config of that class, with small sizes."""
    entries: dict[str, Any] = layers(config)
    for name, value in vars(config).items():
        if name in entries:
            continue
        if isinstance(value, PreTrainedConfig):
            entries[name] = {**small(value), "model_type": value.model_type}
        elif (number := size(name, value)) is not None:
            entries[name] = number
    return entries


def layers(config: PreTrainedConfig) -> dict[str, Any]:
    """A layer of each kind, if the config names the kinds of its layers."""
    depth = next((each for each in DEPTHS if each in vars(config)), None)
    if depth is None:
        return {}
    count = vars(config)[depth]
    kinds = {
        name: list(each)
        for name, each in vars(config).items()
        if isinstance(each, list | tuple) and len(each) == count
    }
    if not any(kinds.values()):
        return {}
    first = {kind: at for at, kind in reversed(list(enumerate(zip(*kinds.values(), strict=True))))}
    chosen = sorted(first.values()) if len(first) > 1 else [0, 1]
    return {depth: len(chosen), **{name: [each[at] for at in chosen] for name, each in kinds.items()}}


def size(name: str, value: Any) -> Any:
    """A small value for an entry; None if it stays as it is."""
    if isinstance(value, list | tuple):
        numbers = [size(name, each) for each in value]
        return type(value)(numbers) if numbers and None not in numbers else None
    if value is None and name == "head_dim":
        return 8
    if not isinstance(value, int) or isinstance(value, bool) or not value:
        return None
    if TOKEN.fullmatch(name):
        return value if value < VOCABULARY else 64 + sum(name.encode()) % 64
    return next((number for pattern, number in SIZES.items() if pattern.fullmatch(name)), None)


def merged(entries: dict[str, Any], special: dict[str, Any]) -> dict[str, Any]:
    """`entries` with those of `special` over them, at every depth."""
    both = {
        name: merged(entries.get(name) or {}, more) if isinstance(more, dict) else more
        for name, more in special.items()
    }
    return entries | both
