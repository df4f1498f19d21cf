"""Findings of checks on checkpoints: quantised or empty tensors, and files that were not
downloaded."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.checkpoints.header import COMPLEX, FLOATS, INTEGERS, Tensor, is_pointer, not_downloaded
from expoflow.checkpoints.package import package_files
from expoflow.checkpoints.tensor_names import QUANTISED
from expoflow.errors import first_of


@dataclass(frozen=True)
class Finding:
    """One line of the table: `level` is "error", "warning" or "note"."""

    level: str
    check: str
    message: str


def quantised(checkpoint: Checkpoint, role: str) -> Iterator[Finding]:
    """Errors for quantised weights, recognised by config, type or name. `role` is for the text."""
    remedy = "give the bf16, fp16 or fp32 checkpoint it was made from"
    if quantisation := checkpoint.config.get("quantization_config"):
        method = quantisation.get("quant_method", "?") if isinstance(quantisation, dict) else quantisation
        yield Finding("error", "quantised", f"{role} is quantised ({method}) by its config; {remedy}")
    beside = [tensor for name, tensor in checkpoint.tensors.items() if QUANTISED.search(name)]
    codes = [tensor for tensor in checkpoint.tensors.values() if _is_code(tensor)] or beside
    if codes:  # one example of hundreds is enough
        text = f"tensor {codes[0].name} is {codes[0].dtype} in {role}"
        text += f", with {beside[0].name} beside it" if beside and beside != codes else ""
        yield Finding("error", "quantised", f"{text}: quantised weights cannot be extrapolated; {remedy}")


def _is_code(tensor: Tensor) -> bool:
    """Whether a tensor's elements cannot be used in arithmetic: 8-bit floats, and matrices of
    integers."""
    if tensor.dtype in INTEGERS:
        return tensor.name.endswith(".weight") and len(tensor.shape) > 1
    return tensor.dtype not in FLOATS.values() and tensor.dtype != COMPLEX


def ungathered(shapes: Mapping[str, Iterable[int]]) -> str | None:
    """The problem of a model with empty weights, with the remedy, from the shapes of its tensors;
    None if it has none."""
    names = [name for name, shape in shapes.items() if is_ungathered(name, shape)]
    if not names:
        return None
    return (
        f"tensor {first_of(names)} has no elements: DeepSpeed ZeRO-3 saved the model without gathering its weights; make it"
        " of the training's checkpoint (python zero_to_fp32.py . OUT, in its folder), or save it again with"
        " stage3_gather_16bit_weights_on_model_save: true"
    )


def is_ungathered(name: str, shape: Iterable[int]) -> bool:
    """Whether a tensor is an empty remainder of a weight, as ZeRO-3 leaves it."""
    shape = tuple(shape)
    return shape == (0,) or (0 in shape and name.endswith(".weight"))


def not_whole(checkpoint: Checkpoint, role: str) -> Iterator[Finding]:
    """Errors for weights without elements, and for package files that are pointers of Git LFS."""
    if text := ungathered({name: tensor.shape for name, tensor in checkpoint.tensors.items()}):
        yield Finding("error", "elements", f"{role}: {text}")
    for name in package_files(checkpoint.folder):
        if is_pointer(checkpoint.folder / name):
            own = checkpoint.users / name
            pointer = own if is_pointer(own) else checkpoint.folder / name
            yield Finding("error", "files", f"{role}: {not_downloaded(pointer)}")
