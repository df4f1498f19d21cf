"""Compare two config.json: do they describe one architecture? Differences are errors or
warnings."""

import re
from collections.abc import Iterator
from typing import Any

# If one of these values differs, the models differ, and nothing can be extrapolated.
STRUCTURE = frozenset(
    {
        "architectures", "model_type", "hidden_size", "n_embd", "num_hidden_layers", "n_layer",
        "num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "intermediate_size", "n_inner",
        "num_local_experts", "num_experts", "tie_word_embeddings",
    }
)  # fmt: skip
# Entries that do not affect the meaning of the weights, or that have a check of their own.
SILENT = re.compile(
    r"(.*\.)?(_name_or_path|transformers_version|torch_dtype|dtype|use_cache|(bos|eos|pad|unk)_token_id|"
    r"vocab_size|auto_map|quantization_config|pretraining_tp|_?attn_implementation.*|.*dropout|"
    r"(router_)?aux_loss_coef|output_attentions|output_hidden_states|return_dict|id2label.*|label2id.*)"
)


def alike(sft: dict[str, Any], aligned: dict[str, Any]) -> bool:
    """Whether two config.json say literally the same about their models.

    If they do not, their classes may still read the same from both.
    """
    return _said(sft) == _said(aligned)


def _said(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flat(config) if not SILENT.fullmatch(key)}


def differences(sft: dict[str, Any], aligned: dict[str, Any], unread: str = "") -> Iterator[tuple[str, str]]:
    """(level, message) for every entry that differs, nested ones included, in two configs as read
    by their classes.

    An entry that only one config has means nothing to the class, unless both have its parent.
    `unread` says why the classes cannot be asked. The configs are then the literal config.json, and
    only one of them may state a default.
    """
    ours, theirs = _said(sft), _said(aligned)
    why = f" (their classes cannot be asked what it means: {unread})" if unread else ""
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = (str(each[key]) if key in each else "not set" for each in (ours, theirs))
        if key in ours and key in theirs and ours[key] == theirs[key]:
            continue
        whole, name = key in ours and key in theirs, key.rsplit(".", 1)[-1]
        if one == other:
            one, other = repr(ours[key]), repr(theirs[key])
        text = f"config {key} is {one} in sft and {other} in aligned"
        if name == "tie_word_embeddings" and not unread:
            continue  # reported for the tensors that are tied
        if name == "type" and f"{key.removesuffix('type')}rope_type" in ours.keys() & theirs.keys():
            continue  # an older name of rope_type
        if not whole and name in STRUCTURE and unread:
            yield (
                "error",
                f"{text}, and the default is not known ({unread}); write {key} into both config.json",
            )
        elif not whole and (unread or not {key.partition(".")[0]} <= sft.keys() & aligned.keys()):
            continue
        elif name == "tie_word_embeddings":
            yield "error", f"{text}: one shares its input and output embeddings; save both models untied{why}"
        elif key == "architectures" and ours.get("model_type") == theirs.get("model_type"):
            yield (
                "error",
                f"{text}: two classes, of which one may lack what the other has; save both models as one",
            )
        elif name in STRUCTURE:
            yield (
                "error",
                f"{text}: the two are not one model before and after alignment; give its own SFT model{why}",
            )
        else:
            yield "warning", f"{text}; aligned's is kept"


def flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of all entries. Nested keys are joined to their parents by dots."""
    for key, value in config.items():
        if isinstance(value, dict) and not SILENT.fullmatch(prefix + key):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
