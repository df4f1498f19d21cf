"""What a check of checkpoints found, and which tensors are quantised."""

from collections.abc import Iterator
from dataclasses import dataclass

from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.checkpoints.header import FLOATS, INTEGERS
from expoflow.checkpoints.tensor_names import QUANTISED


@dataclass(frozen=True)
class Finding:
    """One line of the table: `level` is "error", "warning" or "note"."""

    level: str
    check: str
    message: str


def quantised(checkpoint: Checkpoint, role: str) -> Iterator[Finding]:
    """Errors for weights that are codes rather than numbers, by config, type or name; `role` is for the text."""
    remedy = "give the bf16, fp16 or fp32 checkpoint it was made from"
    if quantisation := checkpoint.config.get("quantization_config"):
        method = quantisation.get("quant_method", "?") if isinstance(quantisation, dict) else quantisation
        yield Finding("error", "quantised", f"{role} is quantised ({method}) by its config; {remedy}")
    for tensor in checkpoint.tensors.values():
        weight = tensor.name.endswith(".weight") and len(tensor.shape) > 1
        usable = tensor.dtype in FLOATS.values() or (tensor.dtype in INTEGERS and not weight)
        if not usable or QUANTISED.search(tensor.name):
            text = (
                f"tensor {tensor.name} is {tensor.dtype} in {role}: quantised weights cannot be extrapolated"
            )
            yield Finding("error", "quantised", f"{text}; {remedy}")
            return  # one of hundreds says it all
