"""Check from the headers of a model's files, before loading, whether it fits into memory."""

import resource
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from expoflow.checkpoints.checkpoint import open_checkpoint, read_json_file
from expoflow.checkpoints.header import FLOATS, SIZES, Tensor
from expoflow.checkpoints.pickles import converted
from expoflow.engines.model import Model
from expoflow.errors import CheckpointError
from expoflow.extrapolation.preflight import open_both
from expoflow.system import gpus
from expoflow.system.processor import computed_in, is_slow
from expoflow.system.tensor_parallel import spread

MARGIN = 10**9  # bytes by which driver and CUDA may differ on a GPU's free memory
GPUS = "resources: {gpus: N}"
NAMES = {kind: name for name, kind in FLOATS.items()}  # torch's names by the headers' names


def require_memory(model: Model, devices: Sequence[str] = (), vllm: bool = False) -> None:
    """Raise CheckpointError, with a remedy, if the weights exceed the free memory.

    `devices` are the GPUs that share the weights, as CUDA_VISIBLE_DEVICES names them; if there are
    none, this machine's memory counts. vLLM takes its share of each GPU's memory and fails if that
    much is not free. GPUs with unknown memory are not checked: the engine's own error then says
    what is missing.
    """
    found = gpus.memory(devices) if devices else [(free := free_memory(), free, "this machine")]
    needed = weight_bytes(model, cpu=not devices and not vllm) / max(1, len(devices))
    share = model.engine.utilization() if vllm else model.engine.utilization(usual=1)
    for free, whole, device in sorted(found):
        taken = min(free, int(share * whole)) if devices else free
        if needed > taken:
            spread = f" on each of {len(devices)} GPUs" if len(devices) > 1 else ""
            more = f"more GPUs for the model ({GPUS})" if devices else "a machine with more memory"
            if devices and not vllm:
                more = f"vLLM, which spreads a model over several GPUs (engine: vllm, {GPUS})"
            has = (
                f"has {free / 1e9:.1f} GB free"
                if taken == free
                else f"has {taken / 1e9:.1f} GB for it (engine.gpu_memory_utilization: {share:g})"
            )
            raise CheckpointError(
                f"{model.folder}: its weights need {needed / 1e9:.1f} GB{spread}, {device} {has}; "
                f"take {more}, or a model saved in bfloat16"
            )
        if vllm and free < share * whole - MARGIN:
            raise CheckpointError(
                f"{model.folder}: {device} has {free / 1e9:.1f} of {whole / 1e9:.1f} GB free, and vLLM takes {share:.0%};"
                f" stop other processes on it, or set engine: {{gpu_memory_utilization: {max(1, 100 * free // whole - 2) / 100}}}"
            )


def spread_over(model: Model) -> list[str]:
    """Return the GPUs of this process over which vLLM can spread a model."""
    devices = gpus.given()
    return devices[: spread(model.folder, len(devices))]


def require_gpus(model: Model, vllm: bool) -> int:
    """Return how many GPUs a model is spread over; 1 if there are none.

    vLLM uses the GPUs of `spread_over`, transformers the first one. Raises CheckpointError if the
    model does not fit (`require_memory`).
    """
    if vllm:
        devices = spread_over(model)
    else:
        import torch

        devices = gpus.gpus()[:1] if torch.cuda.is_available() else []
    require_memory(model, devices, vllm)
    return max(1, len(devices))


def free_on_gpu(model: Model) -> int:
    """Return the free bytes of the current GPU, within the share that the config allows."""
    import torch

    free, whole = torch.cuda.mem_get_info()
    return max(0, free - int((1 - model.engine.utilization(usual=1)) * whole))


def room(config: Any, itemsize: int, free: int) -> int:
    """Return how many tokens' keys and values fit on a GPU with `free` bytes: a power of two.

    `free` excludes the weights. A third of it is left for copies of growing tensors and for logits.
    The other arguments are those of `token_bytes`.
    """
    return 1 << max(0, (2 * free // 3 // token_bytes(config, itemsize)).bit_length() - 1)


def token_bytes(config: Any, itemsize: int) -> int:
    """Return the bytes per token of a batch: all keys and values, activations of one layer.

    `config` is as transformers reads it; `itemsize` is the size of a number in bytes.
    """
    text = config.get_text_config()
    hidden, heads = text.hidden_size, getattr(text, "num_attention_heads", None)
    head = getattr(text, "head_dim", None) or hidden // (heads or 1)
    keys = (getattr(text, "num_key_value_heads", None) or heads or 1) * head
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    widest = max(inner) if isinstance(inner, list | tuple) else inner
    return itemsize * (2 * text.num_hidden_layers * keys + 8 * hidden + 4 * widest)


def loaded_in(config: Any, tensors: Iterable[Any], what: object, device: str) -> str:
    """Return torch's name of the type in which transformers loads a model by default.

    That is the type in its config, or else the type of its first floating-point tensor. On a CPU
    (`device`: "cpu") that is slow in this type, the model is loaded as float32, and the log says
    so, naming `what`. `config` is as transformers reads it; `tensors` are the weights or their
    headers.
    """
    own = str(config.dtype or "auto").removeprefix("torch.")
    if device != "cpu":
        return own
    names = NAMES | {f"torch.{name}": name for name in FLOATS}
    found = (names[str(each.dtype)] for each in tensors if str(each.dtype) in names)
    return computed_in(next(found, own) if own == "auto" else own, what)


def weight_bytes(model: Model, cpu: bool = False) -> int:
    """Return the least bytes that the model's tensors need.

    They count in the type that its config names, or as its engine quantises them. With `cpu`, they
    count in the type that `loaded_in` chooses on a CPU.
    """
    config = read_json_file(model.folder / "config.json")
    dtype = FLOATS.get(config.get("dtype", config.get("torch_dtype")))

    def size(stored: str) -> float:
        loaded = dtype if dtype and stored in FLOATS.values() else stored
        return SIZES["F32" if cpu and is_slow(NAMES.get(loaded, "")) else loaded]

    return int(
        sum(
            tensor.elements * model.engine.weight(size(tensor.dtype), expert=".experts." in name)
            for name, tensor in headers(model).items()
        )
    )


def headers(model: Model) -> dict[str, Tensor]:
    """Return the headers of the model's tensors by name, without reading the tensors."""
    if model.streamed:
        return open_both(model.streamed.sft, model.streamed.aligned)[1].tensors
    return open_checkpoint(converted(model.folder)).tensors


def free_memory() -> int:
    """Return the free bytes of this machine, within the process' limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    free = limit if limit != resource.RLIM_INFINITY else 1 << 62
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = min(
            free, 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
        )
    except (OSError, StopIteration):
        pass  # not Linux: only the limit is known
    return free


def allowed_memory(root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes that this process' control groups still allow; huge without a limit.

    A cluster's job and a container have such groups. Their usage includes cached files, such as the
    weights of both models. The system frees these when needed, so they do not count as used.
    """
    left = 1 << 62
    with suppress(OSError, ValueError):
        for line in process.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                limit, used = (
                    ("memory.limit_in_bytes", "memory.usage_in_bytes")
                    if controllers
                    else ("memory.max", "memory.current")
                )
                top = root / controllers
                group = top / path.strip("/")
                for each in (group, *group.parents):
                    with suppress(OSError, ValueError):  # no limit, or "max"
                        taken = int((each / used).read_text()) - _cached_files(each / "memory.stat")
                        left = min(left, int((each / limit).read_text()) - taken)
                    if each == top:
                        break
    return left


def _cached_files(state: Path) -> int:
    """Return the bytes of cached files that a control group counts; 0 if unknown."""
    with suppress(OSError, ValueError):
        found = dict(line.split() for line in state.read_text().splitlines())
        whole = "total_" if "total_inactive_file" in found else ""  # cgroup version 1
        return sum(
            int(found[f"{whole}{kind}_file"])
            for kind in ("inactive", "active")
            if f"{whole}{kind}_file" in found
        )
    return 0
