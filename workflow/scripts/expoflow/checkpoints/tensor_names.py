"""The kind of a tensor, recognised by its name, in the conventions of the architectures on the
hub."""

import re
from collections.abc import Iterable

from expoflow.checkpoints.header import COMPLEX, Tensor
from expoflow.errors import first_of

EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|tok_embeddings|word_embeddings|embed_in|shared)\.weight$")
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.(weight|bias)$|(^|\.)final_logits_bias$")
# Tensors that are not trained: rotary tables and causal masks, which some versions of transformers
# store and others compute, and the counters and statistics of BatchNorm.
MASK = re.compile(r"(^|\.)(h\.\d+\.attn|attention)\.bias$")
BUFFER = re.compile(
    r"(^|\.)(inv_freq|cos_cached|sin_cached|masked_bias|position_ids|rotary_emb\..*|causal_mask|freqs_cis|"
    rf"running_mean|running_var|num_batches_tracked)$|{MASK.pattern}"
)
QUANTISED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|SCB|absmax|quant_map|weight_scale(_inv)?|weight_format)$"
)
KINDS = {
    "norms": re.compile(r"norm|(^|\.)ln_", re.IGNORECASE),
    "embeddings": re.compile(EMBEDDING.pattern + r"|(^|\.)wpe\.|position_embeddings"),
    "head": re.compile(HEAD.pattern + r"|(^|\.)score\.weight$"),
    "attention": re.compile(r"attn|attention|[qkvo]_proj|query|\.w[qkvo]\b"),
    "mlp": re.compile(r"mlp|feed_forward|ffn|expert|moe|(gate|up|down)_proj|\.(fc|w)\d"),
}


def constant(tensor: Tensor) -> bool:
    """Whether a tensor is not a weight but a buffer or a table of complex numbers. These are never
    extrapolated."""
    if MASK.search(tensor.name):  # with one dimension it is the bias of a layer with the same name
        return len(tensor.shape) == 4
    return tensor.dtype == COMPLEX or bool(BUFFER.search(tensor.name))


def kind(name: str) -> str:
    """The kind of module that a tensor belongs to: embeddings, attention, mlp, norms, head or
    other."""
    return next((label for label, pattern in KINDS.items() if pattern.search(name)), "other")


# Wrappers of models in training, by the prefix that they add to every name.
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel or DeepSpeed",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "base_model.model.": "peft",
    "pretrained_model.": "TRL's value head",
}


# Wrappers that may also wrap parts of a model. No model uses their names itself.
INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
AGAIN = "load the model with transformers (from_pretrained) and save it again (save_pretrained), which leaves them out"
# Tensors that trainings leave beside a model's own: a pattern of their names, what they are, and
# the remedy.
LEFTOVERS = (
    (re.compile(r"^v_head\."), "the value head of TRL's PPO", AGAIN),
    (
        re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer|modules_to_save)\."),
        "layers of an adapter that was not merged",
        "merge it (peft: merge_and_unload) and save the model",
    ),
)


def unwrapped(name: str) -> str:
    """The name of a tensor without the prefixes of training wrappers around the model or parts of
    the model."""
    while prefix := next((each for each in WRAPPERS if name.startswith(each)), None):
        name = name.removeprefix(prefix)
    for each in (*INSIDE, "base_layer."):
        name = name.replace(each, "")
    return name


def leftover(names: Iterable[str]) -> str | None:
    """Leftovers of a training among the names, with an example and the remedy; None if there are
    none."""
    names = list(names)
    for prefix, what in WRAPPERS.items():
        inside = next((name for name in names if prefix in name), None) if prefix in INSIDE else None
        if inside or 2 * sum(name.startswith(prefix) for name in names) > len(names):
            example = inside or next(name for name in names if name.startswith(prefix))
            return (
                f"tensors are named {prefix}..., as in {example}: {what} wrapped the model that was saved; save the model"
                " inside it (unwrap it, then save_pretrained)"
            )
    for pattern, what, remedy in LEFTOVERS:
        if found := [name for name in names if pattern.search(name)]:
            return f"tensor {first_of(found)}: {what}; {remedy}"
    return None
