"""One safetensors file: its header is read and checked, its bytes are mapped. Nothing is copied."""

import errno
import json
import math
import mmap
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from expoflow.errors import CheckpointError

# Bytes per element, for types with a whole number of bytes.
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
FLOATS = {
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}  # torch's name: the header's name
COMPLEX = "C64"
INTEGERS = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
# Python names it from 3.13 on. Without it the kernel refuses to map a file larger than memory.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
POPULATE_READ = getattr(mmap, "MADV_POPULATE_READ", 22)  # Python names it from 3.14 on
AGAIN = "download or save the file again"
POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's entry in a header. `start` and `stop` are byte offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a 0-d tensor."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """One safetensors file: `tensors` in header order, and `metadata`, the header's free text."""

    path: Path
    data_start: int
    size: int
    tensors: tuple[Tensor, ...]
    metadata: dict[str, str] | None
    header: bytes | None = None  # of a file that is not written yet, from `relaid`

    @cached_property
    def bytes(self) -> mmap.mmap:
        """The whole file, mapped. The mapping is private, so writing to it cannot change the file.

        It is writable only because torch.frombuffer warns about read-only buffers.
        """
        with open(self.path, "rb") as file:
            mapped = mmap.mmap(
                file.fileno(),
                0,
                flags=mmap.MAP_PRIVATE | NO_RESERVE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        if len(mapped) != self.size:
            raise CheckpointError(
                f"{self.path}: has {len(mapped)} bytes, {self.size} when opened; let its writer finish"
            )
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        return mapped

    @contextmanager
    def scattered(self) -> Iterator[None]:
        """Within the block, read only the pages that are accessed.

        Otherwise read-ahead would load most of the file, even if only one in a few hundred pages is
        accessed.
        """
        self.bytes.madvise(mmap.MADV_RANDOM)
        try:
            yield
        finally:
            self.bytes.madvise(mmap.MADV_SEQUENTIAL)

    def fetch(self, start: int, stop: int) -> None:
        """Load bytes [start, stop) into memory with one call, which is cheaper than a page fault
        for every few pages.

        Raises CheckpointError if the file has become shorter; reading on would kill the process.
        """
        start -= start % mmap.PAGESIZE
        try:
            self.bytes.madvise(POPULATE_READ, start, stop - start)
        except OSError as error:
            if error.errno == errno.EFAULT:
                raise CheckpointError(
                    f"{self.path}: cannot be read to its end, or was cut off; {AGAIN}"
                ) from None
            # Kernels before 5.14 do not support this call; page faults then load the pages.

    def raw_header(self) -> bytes:
        """The bytes of the file before the data: length prefix and header, unchanged."""
        if self.header is not None:
            return self.header
        with open(self.path, "rb") as file:
            return file.read(self.data_start)


def is_pointer(path: Path) -> bool:
    """Whether a file is a pointer of Git LFS: the three lines of text that Git leaves in place of
    the file."""
    with open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER


def not_downloaded(path: Path) -> CheckpointError:
    """The error for a pointer of Git LFS."""
    return CheckpointError(
        f"{path}: is the pointer of Git LFS, not the file itself; run `git lfs pull` in {path.parent}, or download the"
        " model with `hf download`"
    )


def read_shard(path: Path) -> Shard:
    """Read and check the header of one safetensors file. Raises CheckpointError for any problem."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        prefix = file.read(8)
        if POINTER.startswith(prefix) and is_pointer(path):
            raise not_downloaded(path)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if len(prefix) < 8 or length < 2 or length > size - 8:
            raise CheckpointError(
                f"{path}: not a safetensors file, or cut off (header of {length} bytes, file of {size}); {AGAIN}"
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
        metadata = header.pop("__metadata__", None)
        entries = [_entry(name, **entry) for name, entry in header.items()]
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: broken header ({error}); {AGAIN}") from None
    tensors = tuple(
        Tensor(each.name, each.dtype, each.shape, each.start + 8 + length, each.stop + 8 + length)
        for each in entries
    )
    _check_offsets(path, tensors, 8 + length, size)
    return Shard(path, 8 + length, size, tensors, metadata)


def relaid(shard: Shard, change: Callable[[Tensor], Tensor]) -> Shard:
    """`shard` with types or shapes changed by `change`, in the same order, as a file that is not
    written yet."""
    places, at = {}, 0
    for tensor in sorted(shard.tensors, key=lambda tensor: tensor.start):
        new = change(tensor)
        stop = at + new.elements * SIZES[new.dtype]
        places[tensor.name] = replace(new, start=at, stop=stop)
        at = stop
    header = {"__metadata__": shard.metadata} if shard.metadata else {}
    for place in (places[tensor.name] for tensor in shard.tensors):
        offsets = [place.start, place.stop]
        header[place.name] = {"dtype": place.dtype, "shape": place.shape, "data_offsets": offsets}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    data = 8 + len(text)
    tensors = (places[tensor.name] for tensor in shard.tensors)
    moved = tuple(replace(each, start=each.start + data, stop=each.stop + data) for each in tensors)
    return Shard(
        shard.path, data, data + at, moved, shard.metadata, header=struct.pack("<Q", len(text)) + text
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} occurs twice")
    return result


def _entry(name: str, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    if dtype not in SIZES:
        raise ValueError(f"tensor {name} has the type {dtype}, which expoflow cannot extrapolate")
    start, stop = data_offsets
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)):
        raise ValueError(f"tensor {name} has shape {shape} at {data_offsets}")
    if stop - start != math.prod(shape) * SIZES[dtype]:
        raise ValueError(f"tensor {name} is {dtype} {shape}, which does not fit into {stop - start} bytes")
    return Tensor(name, dtype, tuple(shape), start, stop)


def _check_offsets(path: Path, tensors: tuple[Tensor, ...], data_start: int, size: int) -> None:
    at = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != at:
            what = (
                "overlaps the tensor before it"
                if tensor.start < at
                else f"leaves a gap of {tensor.start - at} bytes"
            )
            raise CheckpointError(f"{path}: tensor {tensor.name} {what}; {AGAIN}")
        at = tensor.stop
    if at != size:
        what = f"cut off, {at - size} bytes are missing" if at > size else f"{size - at} bytes too long"
        raise CheckpointError(f"{path}: {what}; {AGAIN}")
