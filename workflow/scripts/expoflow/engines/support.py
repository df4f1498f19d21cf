"""Can an engine run a model? Answered by the model's class and config, before anything is made or loaded."""

import inspect
from pathlib import Path
from typing import Any

from expoflow.checkpoints.loading import model_class
from expoflow.errors import CheckpointError

UNLIMITED = 1 << 30  # tokens of a model whose positions have no end
# What the transformers engine gives to a model in every step.
GIVEN = {"input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}
# Layers whose past is keys and values, as `DynamicCache` keeps them; others carry a state.
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def context(config: Any) -> int:
    """Tokens that prompt and response may have together by a config of transformers."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or UNLIMITED


def require_supported(config: Any, folder: Path, engine: str, remote: bool = False) -> None:
    """Raise CheckpointError for a language model that `engine` cannot run; `config` as transformers reads it."""
    if config.is_encoder_decoder:
        raise CheckpointError(
            f"{folder}: {config.model_type} has an encoder and a decoder, and a sweep generates with decoders alone;"
            " `expoflow extrapolate` makes its checkpoints"
        )
    if engine == "vllm":  # which has classes of its own
        return
    architecture = model_class(config, folder, "language model", remote)
    layers = set(getattr(config.get_text_config(), "layer_types", None) or ()) - ATTENTION
    lacking = GIVEN - inspect.signature(architecture.forward).parameters.keys()
    reason = None
    if getattr(architecture, "_is_stateful", False) or layers:
        reason = f"its layers carry a state ({', '.join(sorted(layers)) or 'stateful'}), the engine keeps keys and values"
    elif lacking:
        reason = f"its class takes no {', '.join(sorted(lacking))}"
    if reason:
        raise CheckpointError(
            f"{folder}: the transformers engine cannot run {architecture.__name__}: {reason}; set generate.engine: vllm, or"
            " make its checkpoints with `expoflow extrapolate`"
        )
