"""Do two config.json describe one architecture? Differences, sorted into errors and warnings."""

import re
from collections.abc import Iterator
from typing import Any

# Another value here means another model: nothing can be extrapolated.
STRUCTURE = frozenset(
    {
        "architectures", "model_type", "hidden_size", "n_embd", "num_hidden_layers", "n_layer",
        "num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "intermediate_size", "n_inner",
        "num_local_experts", "num_experts", "tie_word_embeddings",
    }
)  # fmt: skip
# Entries that say nothing about what the weights mean, or that have a check of their own.
SILENT = re.compile(
    r"(.*\.)?(_name_or_path|transformers_version|torch_dtype|dtype|use_cache|(bos|eos|pad|unk)_token_id|"
    r"vocab_size|auto_map|quantization_config|pretraining_tp|_?attn_implementation.*|.*dropout|"
    r"(router_)?aux_loss_coef|output_attentions|output_hidden_states|return_dict|id2label.*|label2id.*)"
)


def differences(sft: dict[str, Any], aligned: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(level, message) for every entry that both have with another value, nested ones too."""
    if not sft or not aligned:
        lacking = " and ".join(role for role, config in (("sft", sft), ("aligned", aligned)) if not config)
        yield "warning", f"{lacking} has no config.json: the architectures cannot be compared"
        return
    ours, theirs = dict(_flat(sft)), dict(_flat(aligned))
    for key in sorted(ours.keys() & theirs.keys()):
        if ours[key] == theirs[key] or SILENT.fullmatch(key):
            continue
        name = key.rsplit(".", 1)[-1]
        text = f"config {key} is {ours[key]} in sft and {theirs[key]} in aligned"
        if name == "tie_word_embeddings":
            yield "error", f"{text}: one shares its input and output embeddings; save both models untied"
        elif name in STRUCTURE:
            yield (
                "error",
                f"{text}: the two are not one model before and after alignment; give its own SFT model",
            )
        else:
            yield "warning", f"{text}; aligned's is kept"


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and not SILENT.fullmatch(prefix + key):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
