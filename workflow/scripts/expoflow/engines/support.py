"""Check from a model's class and config, before loading, whether an engine can run it."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

from expoflow.checkpoints.loading import architectures, model_class, sees
from expoflow.errors import CheckpointError

UNLIMITED = 1 << 30  # context, in tokens, of a model without a limit on positions
# Arguments that the transformers engine gives to a plain decoder in every step.
GIVEN = {"input_ids", "attention_mask", "position_ids", "past_key_values"}
# Layers whose cache is keys and values, as in `DynamicCache`; other layers carry a state.
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
EXTRAPOLATE = "`expoflow extrapolate` makes its checkpoints"
TRANSFORMERS = "set generate.engine: transformers"
# Types with Mamba-1 layers: vLLM has their scan only for GPUs.
SCANNED = {"mamba", "falcon_mamba", "jamba"}


def context(config: Any) -> int:
    """Return the most tokens that prompt and response may have together."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or UNLIMITED


def pads(architecture: type, config: Any) -> bool:
    """Whether a class is a plain decoder, for which padding on the left changes nothing."""
    layers = set(getattr(config.get_text_config(), "layer_types", None) or ())
    return (
        layers <= ATTENTION
        and not getattr(architecture, "_is_stateful", False)
        and not sees(architecture)
        and inspect.signature(architecture.forward).parameters.keys() >= GIVEN
    )


def require_supported(config: Any, folder: Path, engine: str, remote: bool = False) -> None:
    """Raise CheckpointError for a language model that `engine` cannot run.

    `config` is as transformers reads it. For `auto`, which a job resolves by its GPUs, only models
    that neither engine can run are refused.
    """
    if config.is_encoder_decoder:
        raise CheckpointError(
            f"{folder}: {config.model_type} has an encoder and a decoder, and the sweep of ExPO is only for decoders;"
            f" {EXTRAPOLATE}"
        )
    if engine == "vllm" and importlib.util.find_spec("vllm"):
        _require_served(config, folder, remote)
    if engine != "transformers":
        return
    architecture = model_class(config, folder, "language model", remote)
    if not pads(architecture, config) and (reason := _unlike_others(architecture)):
        raise CheckpointError(
            f"{folder}: the transformers engine cannot run {architecture.__name__}: {reason}; set generate.engine: vllm if"
            f" vLLM serves it, else {EXTRAPOLATE}"
        )


def _require_served(config: Any, folder: Path, remote: bool) -> None:
    """Raise CheckpointError if this machine's vLLM has no class or no kernel for a model."""
    import transformers
    from vllm import ModelRegistry
    from vllm.platforms import current_platform

    known = ModelRegistry.get_supported_archs()
    names = architectures(config)
    classes = [getattr(transformers, name) for name in names if hasattr(transformers, name)]
    # classes that vLLM may run through transformers' own code
    lent = any(each.is_backend_compatible() or each._can_set_attn_implementation() for each in classes)
    if not remote and not lent and known.isdisjoint(names):
        raise CheckpointError(f"{folder}: vLLM has no class {', '.join(names)}; {TRANSFORMERS}")
    if current_platform.is_cpu() and config.model_type in SCANNED:
        raise CheckpointError(
            f"{folder}: vLLM's CPU build has no kernel for the Mamba layers of {config.model_type}; {TRANSFORMERS}, or take a GPU"
        )


def _unlike_others(architecture: type) -> str | None:
    """Return why a class cannot be fed as transformers' `generate` does; None if it can."""
    from transformers import GenerationMixin

    own = getattr(architecture, "generate", None)
    if own is None or not architecture.can_generate():
        return "it does not generate"
    if own is not GenerationMixin.generate:
        return "it has its own way of generating"
    if "input_ids" not in inspect.signature(architecture.forward).parameters:
        return "it takes no token ids"
    return None
