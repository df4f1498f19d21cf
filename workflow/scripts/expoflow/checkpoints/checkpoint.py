"""Checkpoints on disk: headers of safetensors are read, and tensor bytes are mapped by mmap.

A checkpoint is a folder as saved by transformers: config.json, tokenizer files, and weights in
`model.safetensors` or in shards listed in `model.safetensors.index.json`. Opening one reads only
the headers and checks everything that they say. Symlinks (the hub cache) are followed.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expoflow.checkpoints.foreign import explained
from expoflow.checkpoints.header import SIZES, Shard, Tensor, is_pointer, not_downloaded, read_shard
from expoflow.errors import CheckpointError, first_of

if TYPE_CHECKING:
    import torch


INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
SOURCE = ".source.json"  # the sources of a converted folder; hidden, so it is not part of a model
LEFT_OUT = "left out"  # its key with the names of values that are not tensors


@dataclass(frozen=True)
class Checkpoint:
    """A folder opened by `open_checkpoint`: its shards, its tensors by name, and its parsed
    config.json."""

    folder: Path
    shards: tuple[Shard, ...]
    config: dict[str, Any]
    notes: tuple[str, ...] = ()
    shard_of: dict[str, Shard] = field(repr=False, default_factory=dict)
    tensors: dict[str, Tensor] = field(repr=False, default_factory=dict)
    pieces: dict[str, Tensor] = field(repr=False, default_factory=dict)  # from `piece`, by name
    given: Path | None = None  # the user's folder, if `folder` was converted from it into the store

    def __post_init__(self):
        for shard in self.shards:
            for tensor in shard.tensors:
                if tensor.name in self.tensors:
                    raise CheckpointError(
                        f"{self.folder}: tensor {tensor.name} is in {self.shard_of[tensor.name].path.name} "
                        f"and in {shard.path.name}; save the model again"
                    )
                self.tensors[tensor.name] = tensor
                self.shard_of[tensor.name] = shard

    @property
    def users(self) -> Path:
        """The folder that the user gave, to be named in messages."""
        return self.given or self.folder

    def in_users(self, text: str) -> str:
        """`text`, with `folder` replaced by the user's folder."""
        return text.replace(str(self.folder), str(self.users))

    @property
    def weight_files(self) -> list[str]:
        """Names of the weight files, in order."""
        return [shard.path.name for shard in self.shards]

    @property
    def sources(self) -> list[Path]:
        """The files that hold the values of the tensors."""
        return [self.folder / name for name in self.weight_files]

    @property
    def index(self) -> dict[str, Any]:
        """The parsed index of the shards; {} if there is none."""
        return read_json_file(self.folder / INDEX)

    @property
    def parameters(self) -> int:
        """Total number of elements of all tensors."""
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def weight_bytes(self) -> int:
        """Total size of all weight files."""
        return sum(shard.size for shard in self.shards)

    def piece(self, name: str, first: int, count: int) -> Tensor:
        """`count` elements of a stored tensor, from `first` on, as a one-dimensional tensor that is
        read like any other."""
        tensor = self.tensors[name]
        start = tensor.start + first * SIZES[tensor.dtype]
        piece = Tensor(
            f"{name}[{first}:{first + count}]",
            tensor.dtype,
            (count,),
            start,
            start + count * SIZES[tensor.dtype],
        )
        self.pieces[piece.name] = piece
        self.shard_of[piece.name] = self.shard_of[name]
        return piece

    def at(self, name: str) -> Tensor:
        """A tensor or a piece of one, by name."""
        return self.tensors[name] if name in self.tensors else self.pieces[name]

    def fetch(self, name: str, first: int, last: int) -> None:
        """Load elements [first, last) of one tensor into memory."""
        tensor = self.at(name)
        if first < last <= tensor.elements:
            size = SIZES[tensor.dtype]
            self.shard_of[name].fetch(tensor.start + first * size, tensor.start + last * size)

    @contextmanager
    def scattered(self) -> Iterator[None]:
        """Optimise reading for small, distant pieces within the block; see `Shard.scattered`."""
        with ExitStack() as stack:
            for shard in self.shards:
                stack.enter_context(shard.scattered())
            yield

    def view(self, name: str) -> memoryview:
        """The bytes of one tensor, without a copy."""
        tensor = self.at(name)
        return memoryview(self.shard_of[name].bytes)[tensor.start : tensor.stop]

    def stores(self, name: str) -> bool:
        """Whether a file contains the values of a tensor unchanged."""
        return name in self.tensors or name in self.pieces

    def values(self, name: str, first: int = 0, last: int | None = None) -> "torch.Tensor":
        """Elements [first, last) of one tensor, one-dimensional, without a copy."""
        from expoflow.checkpoints.torch_types import tensor_of

        return tensor_of(self.view(name), self.at(name).dtype)[first:last]


def open_checkpoint(folder: Path, given: Path | None = None) -> Checkpoint:
    """Open a folder. Raises CheckpointError, which names what is missing, broken or refused.

    `given` is as in `Checkpoint`. If both `model.safetensors` and an index exist, the single file
    is used, as in transformers.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give the folder that holds the model's config.json")
    names, notes = _weight_files(folder)
    shards = []
    for name in names:
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise CheckpointError(
                f"{folder}: {INDEX} names {name}, which is not there; download the model again"
            )
        shards.append(read_shard(path))
    if left_out := read_json_file(folder / SOURCE).get(LEFT_OUT):
        notes += (f"{folder.name}: {first_of(left_out)} of its pickles is no tensor and is left out",)
    checkpoint = Checkpoint(folder, tuple(shards), read_json_file(folder / "config.json"), notes, given=given)
    if names != [SINGLE]:
        _check_index(checkpoint)
    return checkpoint


def _weight_files(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    if (folder / ADAPTER).is_file():
        raise CheckpointError(
            f"{folder}: is an adapter; give it as the aligned model, or merge it (peft: merge_and_unload)"
        )
    if (folder / SINGLE).is_file():
        both = (folder / INDEX).is_file()
        return [SINGLE], (f"{folder} has {SINGLE} and {INDEX}; {SINGLE} is used",) if both else ()
    if (folder / INDEX).is_file():
        return sorted(set(weight_map(folder / INDEX).values())), ()
    if reason := explained(folder):
        raise CheckpointError(f"{folder}: neither {SINGLE} nor {INDEX}; {reason}")
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in {".safetensors", ".bin", ".pt", ".pth", ".gguf"}
    )
    found = f"found {', '.join(others[:3])}" if others else "found no weights at all"
    raise CheckpointError(
        f"{folder}: neither {SINGLE} nor {INDEX} ({found}); save the model there as safetensors"
    )


def weight_map(index: Path) -> dict[str, str]:
    """The files of an index, by tensor name. Raises CheckpointError for an index without them."""
    found = read_json_file(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{index}: has no weight_map; download the file again")
    if wrong := [name for name, file in found.items() if not isinstance(file, str)]:
        raise CheckpointError(
            f"{index}: has {found[wrong[0]]!r} as the file of {wrong[0]}; download the file again"
        )
    return found


def _check_index(checkpoint: Checkpoint) -> None:
    for name, file in weight_map(checkpoint.folder / INDEX).items():
        shard = checkpoint.shard_of.get(name)
        if shard is None or shard.path.name != file:
            where = f"it is in {shard.path.name}" if shard else "it is in none of the files"
            raise CheckpointError(
                f"{checkpoint.folder}: {INDEX} has tensor {name} in {file}, {where}; download the model again"
            )


def read_json_file(path: Path) -> dict[str, Any]:
    """Parse a JSON object of a checkpoint; {} if the file is absent. Raises CheckpointError if it
    is broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        if is_pointer(path):
            raise not_downloaded(path) from None
        raise CheckpointError(f"{path}: not JSON ({error}); download the file again") from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path}: holds a {type(value).__name__}, not an object; download the file again"
        )
    return value
