"""Does a model fit into memory? Answered from the headers of its files, before anything is loaded."""

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

MARGIN = 10**9  # bytes by which the driver and CUDA may differ on what is free of a GPU
GPUS = "resources: {gpus: N}"
NAMES = {kind: name for name, kind in FLOATS.items()}  # torch's, by the headers' names


def require_memory(model: Model, devices: Sequence[str] = (), vllm: bool = False) -> None:
    """Raise CheckpointError, with the remedy, for weights that are larger than the free memory of what runs them.

    `devices` are the GPUs over which they are spread, as CUDA_VISIBLE_DEVICES names them; without any this machine's memory
    counts. `vllm` takes its share of each GPU's memory, and fails if so much is not free. What is not known of the GPUs is left to
    the engine, whose own error says what is lacking.
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
                f" end what else is on it, or set engine: {{gpu_memory_utilization: {max(1, 100 * free // whole - 2) / 100}}}"
            )


def spread_over(model: Model) -> list[str]:
    """The GPUs that this process was given and over which vLLM can spread a model: perhaps not all of them."""
    devices = gpus.given()
    return devices[: spread(model.folder, len(devices))]


def require_gpus(model: Model, vllm: bool) -> int:
    """How many GPUs a model is spread over, 1 without any. Raises CheckpointError if it does not fit there (`require_memory`).

    vLLM takes what `spread_over` says, transformers the first one.
    """
    if vllm:
        devices = spread_over(model)
    else:
        import torch

        devices = gpus.gpus()[:1] if torch.cuda.is_available() else []
    require_memory(model, devices, vllm)
    return max(1, len(devices))


def free_on_gpu(model: Model) -> int:
    """Bytes of the current GPU that are free for what runs `model`, within the share of its memory that the config says."""
    import torch

    free, whole = torch.cuda.mem_get_info()
    return max(0, free - int((1 - model.engine.utilization(usual=1)) * whole))


def room(config: Any, itemsize: int, free: int) -> int:
    """Tokens whose keys and values a GPU with `free` bytes beside the weights can hold: a power of two.

    A third of the memory stays for copies of what grows, and for logits. Arguments as of `token_bytes`.
    """
    return 1 << max(0, (2 * free // 3 // token_bytes(config, itemsize)).bit_length() - 1)


def token_bytes(config: Any, itemsize: int) -> int:
    """Bytes that a token of a batch takes: keys and values of all layers, and the activations of one.

    `config` as transformers reads it, `itemsize` in bytes of a number.
    """
    text = config.get_text_config()
    hidden, heads = text.hidden_size, getattr(text, "num_attention_heads", None)
    head = getattr(text, "head_dim", None) or hidden // (heads or 1)
    keys = (getattr(text, "num_key_value_heads", None) or heads or 1) * head
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    widest = max(inner) if isinstance(inner, list | tuple) else inner
    return itemsize * (2 * text.num_hidden_layers * keys + 8 * hidden + 4 * widest)


def loaded_in(config: Any, tensors: Iterable[Any], what: object, device: str) -> str:
    """The type, by torch's name, in which transformers loads a model without a word on it: its config's, else its first numbers'.

    A CPU (`device`: "cpu") that is slow in that type loads it as float32, and the log says so of `what`. `config` is as
    transformers reads it, `tensors` are its weights or their headers.
    """
    own = str(config.dtype or "auto").removeprefix("torch.")
    if device != "cpu":
        return own
    names = NAMES | {f"torch.{name}": name for name in FLOATS}
    found = (names[str(each.dtype)] for each in tensors if str(each.dtype) in names)
    return computed_in(next(found, own) if own == "auto" else own, what)


def weight_bytes(model: Model, cpu: bool = False) -> int:
    """Bytes of the model's tensors in the type that its config loads them in, or as its engine quantises them, at least.

    With `cpu` as `loaded_in` has them there.
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
    """What is known of the model's tensors before any is read, by name."""
    if model.streamed:
        return open_both(model.streamed.sft, model.streamed.aligned)[1].tensors
    return open_checkpoint(converted(model.folder)).tensors


def free_memory() -> int:
    """Free bytes of this machine, within the process' limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    free = limit if limit != resource.RLIM_INFINITY else 1 << 62
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = min(
            free, 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
        )
    except (OSError, StopIteration):
        pass  # another system: only a limit is known
    return free


def allowed_memory(root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that this process' control groups, those of a cluster's job or a container, leave it; a huge number without a limit.

    Files that were read are counted there as well, as the weights of both models; they make room when it is needed.
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
                    with suppress(OSError, ValueError):  # the topmost has none, and "max" is none
                        taken = int((each / used).read_text()) - _cached_files(each / "memory.stat")
                        left = min(left, int((each / limit).read_text()) - taken)
                    if each == top:
                        break
    return left


def _cached_files(state: Path) -> int:
    """Bytes of files in memory that a control group counts, itself and those below it; 0 where it does not say."""
    with suppress(OSError, ValueError):
        found = dict(line.split() for line in state.read_text().splitlines())
        whole = "total_" if "total_inactive_file" in found else ""  # the first version
        return sum(
            int(found[f"{whole}{kind}_file"])
            for kind in ("inactive", "active")
            if f"{whole}{kind}_file" in found
        )
    return 0
