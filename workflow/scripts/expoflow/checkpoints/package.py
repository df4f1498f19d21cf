"""The package around a model's weights: config, tokenizer, templates, code, licence."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from expoflow.checkpoints.checkpoint import read_json_file
from expoflow.files.folder import sync_folder
from expoflow.files.hashing import sha256

# Files next to a model that are not part of its package: weights of any format, traces of training,
# its card.
NOT_PACKAGE = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|h5|msgpack|ot|gguf|onnx|npz|distcp|index\.json|lock|log)|\..*|README\.md|"
    r"recipe\.json|adapter_config\.json|optimizer.*|scheduler.*|rng_state.*|trainer_state\.json|training_args.*|"
    r"(all|train|eval|test)_results\.json|trainer_log\.jsonl|zero_to_fp32\.py|latest|events\.out.*|consolidated.*",
    re.IGNORECASE,
)
PACKAGE_FOLDERS = ("additional_chat_templates",)
LARGEST = 256 << 20  # bytes; the largest tokenizer.json in use has 34 MB


def package_files(folder: Path) -> list[str]:
    """Names, relative to `folder`, of everything except weights and traces of training."""
    folders = [folder, *(folder / name for name in PACKAGE_FOLDERS if (folder / name).is_dir())]
    files = [path for each in folders for path in each.iterdir() if path.is_file()]
    return sorted(
        str(path.relative_to(folder))
        for path in files
        if not NOT_PACKAGE.fullmatch(path.name) and path.stat().st_size <= LARGEST
    )


def copy_package(source: Path, target: Path, dtype: str, names: list[str] | None = None) -> dict[str, str]:
    """Copy the package of `source`, or only its files `names`. Returns the copies' sha256 by name.

    The copied config gets `dtype`, unless that is "keep".
    """
    names = package_files(source) if names is None else names
    for name in names:
        copy = target / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, copy)
        if name == "config.json" and dtype != "keep":
            config = _retyped(read_json_file(copy), dtype)
            if not {"dtype", "torch_dtype"} & config.keys():
                config["dtype"] = dtype
            copy.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        with open(copy, "rb+") as file:
            os.fsync(file.fileno())
        sync_folder(copy.parent)
    return {name: sha256(target / name) for name in names}


def _retyped(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A config with all its types replaced by `dtype`, in both spellings and in nested configs."""
    return {
        key: dtype
        if key in ("dtype", "torch_dtype")
        else _retyped(value, dtype)
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }
