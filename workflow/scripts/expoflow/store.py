"""Where things lie: the folder of a model, and the store of heavy work that outlives a rerun.

The store is `$EXPOFLOW_STORE`, by default `expoflow` beside HF_HOME. Emptying it never invalidates a
result: what it holds is found there by content, or made again.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from expoflow.errors import CheckpointError, DataError
from expoflow.records import File, Manifest, Row, provenance, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from expoflow.config import DataConfig, ModelConfig

MODEL_FILES = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py")
STEP = 4 << 20  # bytes that are hashed at a time, outside of Python's lock


def root() -> Path:
    """The store's folder; it may not exist yet."""
    if chosen := os.environ.get("EXPOFLOW_STORE"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("HF_HOME", f"{cache}/huggingface")).expanduser().parent / "expoflow"


def use() -> None:
    """Keep the store from being emptied as long as this process, a run's head, lives."""
    _IN_USE.append(_lock(fcntl.LOCK_SH))


@contextmanager
def claimed() -> Iterator[None]:
    """The store for this process alone; a BlockingIOError while a run uses it."""
    descriptor = _lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        os.close(descriptor)


_IN_USE: list[int] = []


def _lock(how: int) -> int:
    root().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root() / "in-use.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def cached(
    kind: str, key: dict[str, Any], make: Callable[[], list[Row]], record: type[Row]
) -> tuple[list[Row], bool]:
    """The rows that `key` stands for, and whether the store had them; else `make` them and keep them.

    `key` is plain JSON data that says everything the rows depend on. Jobs that want the same rows at the same
    time wait for the one that makes them.
    """
    name = digest(key)
    path = root() / kind / name[:2] / f"{name}.jsonl"
    with locked(path):
        with suppress(DataError):  # absent, or broken: made anew
            return read_jsonl(path, record), True
        rows = make()
        write_jsonl(path, rows)
    return rows, False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that want `path` of the store waiting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.stem}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest(key: Any) -> str:
    """sha256 over plain JSON data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def manifest(model: str, source: "ModelConfig", folder: Path, *packages: str) -> Manifest:
    """Describe the checkpoint in `folder`, which `packages` made: every file's size and sha256."""
    files = {
        path.name: File(size=path.stat().st_size, sha256=sha256(path))
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    return Manifest(
        model=model,
        source=json.loads(source.canonical()),
        folder=str(folder),
        files=files,
        provenance=provenance(*packages),
    )


def dataset(name: str, source: "DataConfig", commit: str | None, files: Sequence[Path]) -> Manifest:
    """Describe a dataset's files, in their order."""
    folder = os.path.commonpath([path.parent for path in files])
    return Manifest(
        model=name,
        source=json.loads(source.canonical()),
        revision=commit,
        folder=folder,
        files={
            os.path.relpath(path, folder): File(size=path.stat().st_size, sha256=sha256(path))
            for path in files
        },
        provenance=provenance(),
    )


def dataset_files(manifest: Manifest) -> list[Path]:
    """A dataset's files in their order; one that is gone or changed in size is a DataError."""
    paths = [Path(manifest.folder) / name for name in manifest.files]
    for path, file in zip(paths, manifest.files.values(), strict=True):
        if not path.is_file() or path.stat().st_size != file.size:
            remedy = f"run: snakemake --forcerun results/datasets/{manifest.model}.json"
            raise DataError(f"dataset '{manifest.model}': {path} is gone or has changed; {remedy}")
    return paths


def sha256(path: Path, stop: Event | None = None) -> str:
    """sha256 of a file in hexadecimal; a CheckpointError where `stop` is set before the end."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(STEP))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stop and stop.is_set():
                raise CheckpointError(f"{path}: hashing was stopped; run again")
            digest.update(buffer[:count])
    return digest.hexdigest()


def model_folder(manifest: Manifest) -> Path:
    """The folder of a model's files; one that is gone or changed in size is a CheckpointError.

    Files of a hub model that are gone from the cache are downloaded again.
    """
    folder = Path(manifest.folder)
    if "hub" in manifest.source and any(
        not (folder / name).is_file() or (folder / name).stat().st_size != file.size
        for name, file in manifest.files.items()
    ):
        return _restored(manifest)
    remedy = f"run: snakemake --forcerun results/models/{manifest.model}.json"
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"model '{manifest.model}': {path} is gone; {remedy}")
        if path.stat().st_size != file.size:
            raise CheckpointError(
                f"model '{manifest.model}': {path} has {path.stat().st_size} bytes instead of {file.size}; {remedy}"
            )
    return folder


def _restored(manifest: Manifest) -> Path:
    """Download a hub model again, in a process of its own: this one may be a job's, which is offline."""
    offline = os.environ.get("EXPOFLOW_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
    run = subprocess.run(
        [sys.executable, "-m", "expoflow.hub"],
        input=manifest.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": offline},
    )
    if run.returncode:
        reason = run.stdout.strip() or "the log says why"
        raise CheckpointError(f"model '{manifest.model}': is gone and does not come back: {reason}")
    return Path(run.stdout.strip())


def checkpoint_files(folder: str) -> list[str]:
    """The files whose change makes a checkpoint folder another model: weights, config, tokenizer, code."""
    return sorted(str(path) for path in Path(folder).glob("*") if path.suffix in MODEL_FILES)
