"""Does a model fit into memory? Answered from the headers of its files, before anything is loaded."""

import resource
from pathlib import Path

from expoflow.checkpoints.checkpoint import open_checkpoint, read_json_file
from expoflow.checkpoints.header import FLOATS, SIZES, Tensor
from expoflow.checkpoints.pickles import converted
from expoflow.engines.model import Model
from expoflow.errors import CheckpointError
from expoflow.extrapolation.preflight import open_both


def require_memory(model: Model) -> None:
    """Raise CheckpointError, with the remedy, for weights that are larger than the free memory of the device."""
    needed = weight_bytes(model)
    free, device = free_memory()
    if needed > free:
        raise CheckpointError(
            f"{model.folder}: its weights need {needed / 1e9:.1f} GB, {device} has {free / 1e9:.1f} GB free; "
            "take a machine with more memory, or a model saved in bfloat16"
        )


def weight_bytes(model: Model) -> int:
    """Bytes of the model's tensors in the type that its config loads them in."""
    config = read_json_file(model.folder / "config.json")
    dtype = FLOATS.get(config.get("dtype", config.get("torch_dtype")))
    return sum(
        tensor.elements * SIZES[dtype if dtype and tensor.dtype in FLOATS.values() else tensor.dtype]
        for tensor in headers(model).values()
    )


def headers(model: Model) -> dict[str, Tensor]:
    """What is known of the model's tensors before any is read, by name."""
    if model.streamed:
        return open_both(model.streamed.sft, model.streamed.aligned)[1].tensors
    return open_checkpoint(converted(model.folder)).tensors


def free_memory() -> tuple[int, str]:
    """Free bytes, and whose they are: the first GPU's, else this machine's (within the process' limit)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info(0)[0], torch.cuda.get_device_name(0)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    free = limit if limit != resource.RLIM_INFINITY else 1 << 62
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = min(
            free, 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
        )
    except (OSError, StopIteration):
        pass  # another system: only a limit is known
    return free, "this machine"
