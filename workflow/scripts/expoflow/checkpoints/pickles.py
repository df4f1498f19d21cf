"""Checkpoints that only have pickles (pytorch_model.bin): converted to safetensors once and kept in
the store.

Only tensors are unpickled (`weights_only=True`). A file that needs to run anything else is refused.
"""

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow import store
from expoflow.checkpoints.checkpoint import (
    ADAPTER,
    INDEX,
    LEFT_OUT,
    SINGLE,
    SOURCE,
    read_json_file,
    weight_map,
)
from expoflow.checkpoints.header import is_pointer, not_downloaded
from expoflow.checkpoints.package import copy_package, package_files
from expoflow.errors import CheckpointError
from expoflow.files.folder import appearing
from expoflow.files.hashing import sha256
from expoflow.files.records import write_json
from expoflow.store import remembered
from expoflow.system import progress

if TYPE_CHECKING:
    import torch


BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_BIN = "adapter_model.bin"
FORM = 2  # version of converted folders; raised if the result of a conversion changes


def converted(folder: Path) -> Path:
    """`folder` itself if it has safetensors, else a folder in the store with its weights converted.

    Names, values, types and shards stay the same. Tensors that share memory are stored once if the
    config ties them, else separately. If several files have a tensor with the same values, it is
    taken from the file that the index names. Values that are not tensors, such as
    TransformerEngine's `_extra_state`, are left out; opening the folder reports them. Raises
    CheckpointError for a file that is broken or contains anything else.
    """
    folder = Path(folder)
    if any((folder / name).is_file() for name in (SINGLE, INDEX, ADAPTER_WEIGHTS)) or not folder.is_dir():
        return folder
    if (folder / ADAPTER).is_file() and (folder / ADAPTER_BIN).is_file():
        names = [ADAPTER_BIN]
    elif (folder / BIN).is_file():
        names = [BIN]
    elif (folder / BIN_INDEX).is_file():
        names = sorted(set(weight_map(folder / BIN_INDEX).values()))
    else:
        return folder
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: {BIN_INDEX} names {name}, which is not there; download the model again"
            )
    source = {name: remembered(folder / name) for name in names}
    package = package_files(folder) + [ADAPTER] * (names == [ADAPTER_BIN])
    source |= {name: sha256(folder / name) for name in package}
    key = hashlib.sha256(json.dumps([FORM, source], sort_keys=True).encode()).hexdigest()[:16]
    target = store.root() / "converted" / f"{folder.resolve().name}-{key}"
    if not (target / SOURCE).is_file():
        with appearing(
            target, replace=True, needs=sum((folder / name).stat().st_size for name in names)
        ) as new:
            left_out = _convert(folder, names, new)
            copy_package(folder, new, "keep", package)
            write_json(new / SOURCE, source | {LEFT_OUT: left_out})
    return target


def _convert(folder: Path, names: list[str], target: Path) -> list[str]:
    """Write the tensors of the files `names` to `target`. Returns the names of values that are left
    out."""
    tied = read_json_file(folder / "config.json").get("tie_word_embeddings") is True
    placed = weight_map(folder / BIN_INDEX) if len(names) > 1 else {}
    files, total, seen, left_out = {}, 0, {}, []
    for number, name in enumerate(names, start=1):
        progress.report(number - 1, len(names), "files", name)
        tensors = load_pickle(folder / name, left_out)
        if left_out and name == ADAPTER_BIN:
            raise CheckpointError(f"{folder / name}: {left_out[0]} is not a tensor; save the adapter again")
        _require_placed(folder, name, tensors, placed)
        for again in [key for key in tensors if placed.get(key, name) != name]:
            if not _equal(tensors.pop(again), load_pickle(folder / placed[again]).get(again)):
                raise CheckpointError(
                    f"{folder}: tensor {again} has other values in {name} than in {placed[again]}; save the model again"
                )
        if tied:
            tensors = {
                key: each for key, each in tensors.items() if seen.setdefault(_place(each), key) == key
            }
            seen = {}  # memory is shared only within a file
        single = ADAPTER_WEIGHTS if name == ADAPTER_BIN else SINGLE
        file = single if len(names) == 1 else f"model-{number:05d}-of-{len(names):05d}.safetensors"
        total += write_safetensors(target / file, tensors)
        files |= dict.fromkeys(tensors, file)
    if len(names) > 1:
        write_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": files})
    return left_out


def _require_placed(
    folder: Path, file: str, tensors: "dict[str, torch.Tensor]", placed: dict[str, str]
) -> None:
    """Raise CheckpointError for a tensor that the index places in `file`, but that is missing
    there."""
    if absent := [name for name, place in placed.items() if place == file and name not in tensors]:
        raise CheckpointError(
            f"{folder}: {BIN_INDEX} has tensor {absent[0]} in {file}, it is not there; download the model again"
        )


def _equal(one: "torch.Tensor", two: "torch.Tensor | None") -> bool:
    return two is not None and one.dtype == two.dtype and one.shape == two.shape and one.equal(two)


def _place(tensor: "torch.Tensor") -> object:
    if tensor.numel() == 0:
        return object()  # empty tensors all have address 0 but share nothing
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def load_pickle(path: Path, left_out: list[str] | None = None) -> "dict[str, torch.Tensor]":
    """Tensors by name from one .bin file, mapped if its format allows it. Nothing in the file is
    run.

    The names of values that are not tensors, and contain none, are added to `left_out`.
    """
    import pickle

    import torch

    if is_pointer(path):
        raise not_downloaded(path)
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before torch 1.6 cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: refused, it is broken or contains more than tensors ({reason}); get the model as safetensors"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: is not a dictionary of tensors; get the model as safetensors")
    tensors = {name: each for name, each in state.items() if isinstance(each, torch.Tensor)}
    others = [name for name in state if name not in tensors]
    nested = [name for name in others if isinstance(state[name], dict | list | tuple) and state[name]]
    if nested or not tensors:
        held = f"holds {', '.join(map(repr, nested[:3]))} instead of tensors" if nested else "holds no tensor"
        raise CheckpointError(
            f"{path}: {held}: it is a state of training, not a model; load it there and save the model (save_pretrained)"
        )
    if left_out is not None:
        left_out += map(str, others)
    return tensors


def write_safetensors(path: Path, tensors: "dict[str, torch.Tensor]") -> int:
    """Write one file to disk, tensor by tensor in the given order. Returns the number of bytes of
    the tensors."""
    import torch

    from expoflow.checkpoints.torch_types import TORCH

    codes = {kind: code for code, kind in TORCH.items()}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        if tensor.dtype not in codes:
            raise CheckpointError(
                f"{path.name}: tensor {name} is {tensor.dtype}, which expoflow cannot extrapolate"
            )
        stop = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            if tensor.numel():
                file.write(memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy()))
        file.flush()
        os.fsync(file.fileno())
    return at
