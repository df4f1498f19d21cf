"""Describe a checkpoint folder, and find weights that are not finite."""

from collections import Counter
from pathlib import Path

import numpy as np

from expoflow.checkpoints.adapter import Adapter, is_adapter, open_adapter
from expoflow.checkpoints.checkpoint import Checkpoint, open_checkpoint, read_json_file
from expoflow.checkpoints.findings import not_whole, quantised
from expoflow.checkpoints.header import Tensor
from expoflow.checkpoints.tensor_names import constant, leftover

# The bits of the exponent by floating-point type. All of them are set in NaN and Inf.
EXPONENT = {
    "BF16": np.uint16(0x7F80),
    "F16": np.uint16(0x7C00),
    "F32": np.uint32(0x7F800000),
    "F64": np.uint64(0x7FF0000000000000),
}
PIECE = 1 << 22  # elements


def describe(folder: Path) -> list[tuple[str, str]]:
    """(label, text) lines about a folder with weights: architecture, size, types, tokenizer and
    problems."""
    if is_adapter(folder):
        return _describe_adapter(open_adapter(folder))
    checkpoint = open_checkpoint(folder)
    config = checkpoint.config
    types = Counter(tensor.dtype for tensor in checkpoint.tensors.values())
    files = {
        name for name in ("tokenizer.json", "tokenizer.model", "vocab.json") if (folder / name).is_file()
    }
    template = read_json_file(folder / "tokenizer_config.json").get("chat_template")
    template = template or (folder / "chat_template.jinja").is_file()
    return [
        ("architecture", ", ".join(config.get("architectures") or ["unknown (no config.json)"])),
        ("parameters", f"{checkpoint.parameters:,} in {len(checkpoint.tensors)} tensors"),
        ("types", _counts(types)),
        (
            "weights",
            f"{checkpoint.weight_bytes / 1e9:.3f} GB in {len(checkpoint.shards)} files, headers are whole",
        ),
        (
            "vocabulary",
            f"{config.get('vocab_size', '?')}{', tied' if config.get('tie_word_embeddings') else ''}",
        ),
        ("tokenizer", f"{', '.join(sorted(files)) or 'none'}{', with chat template' if template else ''}"),
        *_problems(checkpoint),
    ]


def _describe_adapter(adapter: Adapter) -> list[tuple[str, str]]:
    types = Counter(tensor.dtype for tensor in adapter.file.tensors.values())
    return [
        ("adapter", adapter.describe()),
        ("base", adapter.settings.get("base_model_name_or_path") or "not named"),
        ("parameters", f"{adapter.file.parameters:,} in {len(adapter.file.tensors)} tensors"),
        ("types", _counts(types)),
        *(("whole", name) for name in adapter.whole),
    ]


def _counts(types: Counter) -> str:
    return ", ".join(f"{dtype} x {count}" for dtype, count in types.most_common())


def _problems(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    notes = [("note", note) for note in checkpoint.notes]
    found = [*quantised(checkpoint, "the model"), *not_whole(checkpoint, "the model")]
    problems = [(each.level, each.message) for each in found]
    left = leftover(checkpoint.tensors)
    return notes + problems + ([("error", left)] if left else [])


def not_finite(checkpoint: Checkpoint) -> list[str]:
    """Names of the weights that contain NaN or Inf. All weights are read, piece by piece.

    Constant masks may contain them and are skipped.
    """
    tensors = checkpoint.tensors.items()
    return [name for name, each in tensors if not constant(each) and _has_bad(checkpoint, each)]


def _has_bad(checkpoint: Checkpoint, tensor: Tensor) -> bool:
    """Whether an element has all bits of its exponent set."""
    if tensor.dtype not in EXPONENT:
        return False
    exponent, view = EXPONENT[tensor.dtype], checkpoint.view(tensor.name)
    step = PIECE * exponent.itemsize
    pieces = (np.frombuffer(view[at : at + step], exponent.dtype) for at in range(0, len(view), step))
    return any(((piece & exponent) == exponent).any() for piece in pieces)
