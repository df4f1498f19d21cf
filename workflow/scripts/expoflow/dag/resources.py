"""What a job asks a cluster for, by the size of its models and by its attempt. Never among a rule's params."""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from expoflow.errors import DataError
from expoflow.files.records import read_json
from expoflow.results import Manifest

WEIGHTS = (".safetensors", ".bin")
GB = 10**9
GPU = 80 * GB  # memory of the GPUs that the default number of GPUs is for
ROOM = 1.3  # memory of a loaded model per byte of its weights: activations and the KV cache come on top
DISK = 200 * 10**6  # bytes that a busy shared file system reads or writes in a second


def size(manifests: Iterable[str]) -> int:
    """Bytes of the largest model's weights; 0 for one whose manifest is not there yet, or broken."""
    return max(map(_weights, manifests), default=0)


def _weights(manifest: str) -> int:
    """Bytes of the weights that a manifest lists; .bin files beside safetensors are copies of them."""
    with suppress(OSError, DataError):
        return _listed(manifest, os.stat(manifest).st_mtime_ns)
    return 0


@cache
def _listed(manifest: str, changed: int) -> int:
    """What `_weights` says of a manifest, read once for all jobs as long as it does not change."""
    files = read_json(Path(manifest), Manifest).files
    return weight_bytes({name: file.size for name, file in files.items()})[0]


def weight_bytes(sizes: Mapping[str, int]) -> tuple[int, str]:
    """Bytes of the weights among files, and their suffix: of the safetensors where there are any; 0 and ""."""
    for suffix in WEIGHTS:
        if total := sum(size for name, size in sizes.items() if name.endswith(suffix)):
            return total, suffix
    return 0, ""


def gpus(weights: int) -> int:
    """GPUs of 80 GB that a model of so many bytes needs: 1, 2, 4, ..., as tensor parallelism wants it."""
    return 2 ** max(0, math.ceil(math.log2(max(1, weights * ROOM) / GPU)))


def threads(weights: int) -> int:
    """Threads that are worth it where weights are read and written: one for every 2 GB, 8 at most."""
    return 1 + min(7, weights // (2 * GB))


def engine_memory(weights: int, attempt: int) -> int:
    """Megabytes of main memory for a job that loads a model, be it to bring it to a GPU."""
    return _grown(8000 + 1.5 * weights / 10**6, attempt)


def engine_minutes(weights: int, attempt: int) -> int:
    """Minutes for a job that generates or scores; what it has finished before a time-out is not done again."""
    return _grown(60 + 4 * weights / GB, attempt)


def file_memory(weights: int, attempt: int) -> int:
    """Megabytes for a job that reads and writes weights piece by piece."""
    return _grown(4000 + 0.1 * weights / 10**6, attempt)


def file_minutes(weights: int, attempt: int) -> int:
    """Minutes for a job that reads two models, and writes and hashes a third."""
    return _grown(15 + 4 * weights / DISK / 60, attempt)


def _grown(amount: float, attempt: int) -> int:
    """Half as much again for every attempt after the first."""
    return math.ceil(amount * (1 + (attempt - 1) / 2))
