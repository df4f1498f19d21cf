"""LoRA adapters in peft's format: open and check an adapter folder. Every tensor in it must be
used.

An adapter adds scaling * B @ A to some weights of its base model and stores others whole. Anything
that is not such a sum, or that scaling would not extrapolate, is refused with the reason.
"""

import math
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from expoflow.checkpoints.checkpoint import ADAPTER, INDEX, SINGLE, Checkpoint, read_json_file
from expoflow.checkpoints.findings import ungathered
from expoflow.checkpoints.header import FLOATS, Tensor, read_shard
from expoflow.checkpoints.pickles import ADAPTER_BIN, ADAPTER_WEIGHTS, BIN, BIN_INDEX, converted
from expoflow.errors import CheckpointError

WRAPPED = re.compile(r"(?P<module>.+)\.(?P<kind>modules_to_save|original_module)\.(?P<part>weight|bias)")
MERGE = "merge it with peft (merge_and_unload, save_pretrained) and give the merged model"
PREFIX = "base_model.model."
LORA = re.compile(r"(?P<module>.+)\.(?P<part>lora_[AB]\.weight|lora_B\.bias|lora_embedding_[AB])")
# Keys of peft's adapter_config.json that expoflow follows or may ignore.
KNOWN = frozenset(
    {
        "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
        "inference_mode", "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora",
        "fan_in_fan_out", "bias", "lora_bias", "modules_to_save", "init_lora_weights", "target_modules",
        "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "loftq_config", "eva_config",
        "corda_config", "lora_ga_config", "runtime_config", "qalora_group_size",
    }
)  # fmt: skip
REASONS = {
    "use_dora": "DoRA scales the weights to lengths of its own, so its delta is no sum that could be scaled",
    "layer_replication": "the base's layers are repeated, so the model has more of them than the base",
    "target_parameters": "LoRA on parameters of fused experts is not supported",
    "trainable_token_indices": "single trained rows of the embedding are not supported",
    "alora_invocation_tokens": "the adapter is at work after certain tokens only",
    "ensure_weight_tying": "tied weights with an adapter are not supported",
}
# Initialisations that change the base's weights too; "gaussian", "orthogonal" and "eva" do not.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Module:
    """One layer that LoRA changes. `tensors` by part: lora_A.weight, lora_B.weight, lora_B.bias,
    lora_embedding_A..."""

    name: str
    tensors: dict[str, Tensor]
    rank: int
    scaling: float


@dataclass(frozen=True)
class Adapter:
    """An adapter folder: its settings, its tensors as a checkpoint, its LoRA modules and its whole
    tensors.

    `whole` maps a tensor's name in the base, as peft spells it, to the name of the tensor in the
    adapter that replaces it. `copies` maps the adapter's name of a second copy to the name in the
    base. `originals` are the adapter's names of tensors from before the training, which peft saves
    but does not use.
    """

    folder: Path
    settings: dict[str, Any]
    file: Checkpoint
    modules: tuple[Module, ...]
    whole: dict[str, str]
    copies: dict[str, str]
    originals: tuple[str, ...]

    @cached_property
    def ranks(self) -> list[int]:
        """The ranks in use, in ascending order."""
        return sorted({module.rank for module in self.modules})

    @cached_property
    def scalings(self) -> list[float]:
        """The scalings in use, in ascending order."""
        return sorted({module.scaling for module in self.modules})

    def describe(self) -> str:
        """A short description of rank, scaling and size."""
        parts = []
        if self.modules:
            ranks, scalings = (
                ", ".join(f"{each:g}" for each in some) for some in (self.ranks, self.scalings)
            )
            parts.append(f"rank {ranks}, scaling {scalings}, {len(self.modules)} modules")
        if self.whole:
            parts.append(f"{len(self.whole)} tensors stored whole")
        return "LoRA adapter, " + ", ".join(parts)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter instead of a model; False for an impossible path."""
    try:
        return (Path(folder) / ADAPTER).is_file()
    except (OSError, ValueError):
        return False


def require_alone(folder: Path) -> None:
    """Raise CheckpointError for an adapter next to a whole model, as left by torchtune or by a
    merge into the folder."""
    if whole := next((name for name in (SINGLE, INDEX, BIN, BIN_INDEX) if (folder / name).is_file()), None):
        raise CheckpointError(
            f"{folder}: has {ADAPTER} and {whole}, an adapter and a whole model, so it is not clear which is meant;"
            f" for the model move {ADAPTER} and adapter_model.* to another folder, for the adapter the model's files"
        )


def open_adapter(folder: Path) -> Adapter:
    """Open an adapter folder. A CheckpointError names everything that is missing, refused or
    unknown."""
    folder = Path(folder)
    settings = read_json_file(folder / ADAPTER)
    require_alone(folder)
    if refused := _refusals(settings):
        raise CheckpointError("\n".join(f"{folder}: {each}; {MERGE}" for each in refused))
    weights = converted(folder) / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise CheckpointError(
            f"{folder}: neither {ADAPTER_WEIGHTS} nor {ADAPTER_BIN}; save the adapter again"
        )
    file = Checkpoint(weights.parent, (read_shard(weights),), {})
    if text := ungathered({name: tensor.shape for name, tensor in file.tensors.items()}):
        raise CheckpointError(f"{folder}: {text}")
    parts, whole, wrapped, problems = _sorted(file)
    copies, originals = {}, []
    for (target, kind), name in sorted(wrapped.items()):  # modules_to_save come before original_module
        if kind == "original_module" and target in whole:
            originals.append(name)
        elif kind == "modules_to_save" and target not in whole:
            whole[target] = name
        elif kind == "modules_to_save" and file.view(name) == file.view(whole[target]):
            copies[name] = target
        else:
            problems.append(
                f"tensor {name}: does not fit to the others of its module; save the adapter again"
            )
    problems += filter(None, (_wrong(settings, name, tensors) for name, tensors in parts.items()))
    if problems:
        raise CheckpointError("\n".join(f"{folder}: {each}" for each in problems))
    if not parts and not whole:
        raise CheckpointError(f"{folder}: holds no tensor; save the adapter again")
    modules = tuple(
        Module(name, tensors, rank(settings, name), scaling(settings, name))
        for name, tensors in parts.items()
    )
    return Adapter(folder, settings, file, modules, whole, copies, tuple(originals))


def _refusals(settings: dict[str, Any]) -> list[str]:
    kind = settings.get("peft_type")
    if kind != "LORA":
        return [f"{ADAPTER} has peft_type {kind}, and only LORA is a sum that can be extrapolated"]
    refused = [
        f"{ADAPTER} has {key}: {REASONS.get(key, 'an option that expoflow does not know')}"
        for key, value in settings.items()
        if value and key not in KNOWN
    ]
    start = str(settings.get("init_lora_weights", "")).lower()
    if start.startswith(CHANGES_BASE):
        refused.append(f"{ADAPTER} has init_lora_weights {start}: training began with a changed base")
    return refused


Sorted = tuple[dict[str, dict[str, Tensor]], dict[str, str], dict[tuple[str, str], str], list[str]]


def _sorted(file: Checkpoint) -> Sorted:
    """Sort every tensor of the file into LoRA (by module and part), whole, wrapped by
    modules_to_save, or problems."""
    parts: dict[str, dict[str, Tensor]] = {}
    whole, wrapped, problems = {}, {}, []
    for name, tensor in file.tensors.items():
        inside = name.removeprefix(PREFIX)
        if tensor.dtype not in FLOATS.values():
            problems.append(f"tensor {name} is {tensor.dtype}; save the adapter in bf16, fp16 or fp32")
        elif found := LORA.fullmatch(inside):
            parts.setdefault(found["module"], {})[found["part"]] = tensor
        elif found := WRAPPED.fullmatch(inside):
            wrapped[f"{found['module']}.{found['part']}", found["kind"]] = name
        elif re.search(r"\.(lora_|token_adapter|modules_to_save|original_module|ia3_|vera_|prompt)", inside):
            problems.append(f"tensor {name}: unknown, and nothing may be left out; {MERGE}")
        elif (target := inside.replace(".base_layer.", ".")) in whole:
            problems.append(f"tensor {name}: there twice, also as {whole[target]}; save the adapter again")
        else:
            whole[target] = name
    return parts, whole, wrapped, problems


def _wrong(settings: dict[str, Any], name: str, tensors: dict[str, Tensor]) -> str | None:
    return _incomplete(name, tensors) or _wrong_rank(settings, name, tensors)


def _incomplete(name: str, tensors: dict[str, Tensor]) -> str | None:
    pairs = ({"lora_A.weight", "lora_B.weight"}, {"lora_embedding_A", "lora_embedding_B"})
    if set(tensors) - {"lora_B.bias"} not in pairs:
        return f"module {name} has {' and '.join(sorted(tensors))} instead of an A and a B; save the adapter again"
    if bad := next(
        (each for part, each in tensors.items() if len(each.shape) != 2 - (part == "lora_B.bias")), None
    ):
        return f"tensor {bad.name} has {len(bad.shape)} dimensions: only linear layers and embeddings are supported; {MERGE}"
    return None


def _wrong_rank(settings: dict[str, Any], name: str, tensors: dict[str, Tensor]) -> str | None:
    one, other = (each for part, each in sorted(tensors.items()) if part != "lora_B.bias")
    expected = rank(settings, name)
    if not one.shape[0] == other.shape[1] == expected:
        return (
            f"module {name} has factors of rank {one.shape[0]} and {other.shape[1]}, {ADAPTER} says {expected}; "
            "give the two files of one adapter"
        )
    return None


def rank(settings: dict[str, Any], module: str) -> int:
    """The rank of a module according to the settings."""
    return _pattern(settings.get("rank_pattern"), module, settings.get("r", 8))


def scaling(settings: dict[str, Any], module: str) -> float:
    """The factor of B @ A: lora_alpha / r, or lora_alpha / sqrt(r) with rsLoRA."""
    alpha, r = (
        _pattern(settings.get("alpha_pattern"), module, settings.get("lora_alpha", 8)),
        rank(settings, module),
    )
    return alpha / (math.sqrt(r) if settings.get("use_rslora") else r)


def _pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first key that matches the end of the module's name, as in peft."""
    matches = (value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matches, default)


def base_source(folder: Path) -> dict[str, str]:
    """The adapter's base in the form of a config: `path`, or `hub` and `revision`.

    Raises CheckpointError if the adapter names no base, or if the folder is not an adapter.
    """
    folder = Path(folder)
    if not is_adapter(folder):
        raise CheckpointError(
            f"sft is missing, and {folder} is not an adapter, which would name its base; give sft"
        )
    settings = read_json_file(folder / ADAPTER)
    name = settings.get("base_model_name_or_path")
    for place in (folder / str(name), Path(str(name))):
        if name and (place / "config.json").is_file():
            return {"path": os.path.normpath(place)}
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(name)):
        where = f"its base model '{name}' is not there" if name else "names no base model"
        raise CheckpointError(f"{folder}: {where}; give the base as sft")
    return {"hub": name} | ({"revision": settings["revision"]} if settings.get("revision") else {})


def base_folder(folder: Path) -> Path:
    """The folder of the adapter's base model on this machine. Raises CheckpointError if it is not
    found."""
    source = base_source(folder)
    if "path" in source:
        return Path(source["path"])
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source["hub"], "config.json", revision=source.get("revision"))
    if isinstance(found, str):
        return Path(found).parent
    raise CheckpointError(
        f"{folder}: its base model {source['hub']} is not in the hub's cache; download it, or give the base as sft"
    )
