"""Check that a checkpoint is whole: does the class that its config.json names find everything it
needs in the files?

Transformers initialises missing weights at random. Asking its class takes seconds, because torch
and transformers are imported. The answer is kept in the store, by the content of config.json, the
names and shapes of the tensors and the versions. The most common classes are checked without these
imports.
"""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from expoflow import store
from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.checkpoints.findings import Finding
from expoflow.checkpoints.loading import load_report, require_whole
from expoflow.checkpoints.tensor_names import constant
from expoflow.errors import CheckpointError
from expoflow.files.records import Record

FORM = 1  # version of the kept reports; raised if their meaning changes
# By model_type: its class for text, and what a layer has in addition to Llama's weights.
PLAIN = {
    "llama": ("LlamaForCausalLM", ""),
    "mistral": ("MistralForCausalLM", ""),
    "qwen2": ("Qwen2ForCausalLM", "biases"),
    "qwen3": ("Qwen3ForCausalLM", "norms"),
}


class Report(Record):
    """Tensors that the class did not find, did not know, or found in another shape.

    `mismatched` has (name, shape in the files, shape by config.json).
    """

    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    errors: list[str]

    @property
    def level(self) -> str:
        """The level of the finding: "error" for a model with random weights, "warning" for one with
        tensors that are left out."""
        return "error" if self.missing or self.mismatched or self.errors else "warning"

    def loading_info(self) -> dict[str, Any]:
        """The report in transformers' form."""
        return {
            "missing_keys": self.missing,
            "unexpected_keys": self.unexpected,
            "mismatched_keys": self.mismatched,
            "error_msgs": self.errors,
        }


def wholeness(checkpoint: Checkpoint, role: str) -> Iterator[Finding]:
    """The problems that a checkpoint's class finds; none if transformers has no such class. `role`
    is for the text."""
    if not checkpoint.config.get("model_type") or plain(checkpoint):
        return
    level, unknown = "warning", "; whether the model is whole is not known"
    try:
        report = _report(checkpoint)
        level, unknown = report.level, ""
        require_whole(report.loading_info(), checkpoint.folder, "any model")
    except CheckpointError as error:
        yield Finding(level, "class", f"{error}{unknown}".replace(str(checkpoint.folder), role))


def _report(checkpoint: Checkpoint) -> Report:
    versions = [version(package) for package in ("torch", "transformers")]
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    key = [FORM, checkpoint.config, shapes, versions]
    return store.kept("whole", key, Report, lambda: _asked(checkpoint))


def _asked(checkpoint: Checkpoint) -> Report:
    _, said = load_report(checkpoint.folder, checkpoint.tensors, "any model") or (None, {})
    return Report(
        missing=sorted(said.get("missing_keys", ())),
        unexpected=sorted(said.get("unexpected_keys", ())),
        mismatched=sorted(said.get("mismatched_keys", ())),
        errors=[str(each) for each in said.get("error_msgs") or ()],
    )


def plain(checkpoint: Checkpoint) -> bool:
    """Whether the tensors are exactly those that a class of `PLAIN` needs by this config.json;
    False for other classes."""
    try:
        if checkpoint.config["num_hidden_layers"] > len(checkpoint.tensors):
            return False
        needed = _needed(checkpoint.config)
    except (KeyError, TypeError, ZeroDivisionError):  # an entry is missing or not a number
        return False
    found = {name: tensor.shape for name, tensor in checkpoint.tensors.items() if not constant(tensor)}
    if checkpoint.config.get("tie_word_embeddings") is True:
        found.setdefault("lm_head.weight", needed["lm_head.weight"])
    return found == needed


def _needed(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes by name. Raises KeyError for a config that relies on the class' defaults, or that is
    not in `PLAIN`."""
    architecture, beside = PLAIN[config["model_type"]]
    if config["architectures"] != [architecture] or config.get("attention_bias") or config.get("mlp_bias"):
        raise KeyError(architecture)
    hidden, inner, tokens = (config[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config["head_dim"] if beside == "norms" else config.get("head_dim") or hidden // heads
    if heads % key_heads or hidden % heads:
        raise KeyError("num_attention_heads")
    layer = {
        "self_attn.q_proj.weight": (heads * head, hidden),
        "self_attn.k_proj.weight": (key_heads * head, hidden),
        "self_attn.v_proj.weight": (key_heads * head, hidden),
        "self_attn.o_proj.weight": (hidden, heads * head),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    if beside == "biases":
        layer |= {f"self_attn.{each}_proj.bias": layer[f"self_attn.{each}_proj.weight"][:1] for each in "qkv"}
    if beside == "norms":
        layer |= {f"self_attn.{each}_norm.weight": (head,) for each in "qk"}
    layers = {
        f"model.layers.{number}.{name}": shape
        for number in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    return {
        "model.embed_tokens.weight": (tokens, hidden),
        **layers,
        "model.norm.weight": (hidden,),
        "lm_head.weight": (tokens, hidden),
    }
