"""Where things lie: the folder of a model, and the store of heavy work that outlives a rerun.

The store is `$EXPOFLOW_STORE`, by default `expoflow` beside HF_HOME. Emptying it never invalidates a
result: what it holds is found there by content, or made again.
"""

import fcntl
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from expoflow.errors import CheckpointError, DataError
from expoflow.files.hashing import json_digest, sha256
from expoflow.files.records import Row, read_json, read_jsonl, write_json, write_jsonl

BLOB = re.compile(r"[0-9a-f]{64}")


def remembered(path: Path, stop: threading.Event | None = None, *, anew: bool = False) -> str:
    """sha256 of a file: remembered by place, size and time of change, else (or `anew`) computed and kept.

    The hub's cache names a large file's link target by its sha256; another content is a CheckpointError.
    """
    real = path.resolve()
    state = real.stat()
    key = {"path": str(real), "size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
    note = root() / "sha256" / f"{hashlib.sha256(str(real).encode()).hexdigest()}.json"
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        if not anew and {name: kept[name] for name in key} == key:
            return str(kept["sha256"])
    except (OSError, ValueError, KeyError):
        pass  # not seen before, or changed: computed anew
    value = sha256(path, stop)
    if path.is_symlink() and BLOB.fullmatch(real.name) and real.name != value:
        raise CheckpointError(
            f"{path}: has sha256 {value}, the hub says {real.name}; delete {real}, download again"
        )
    with suppress(OSError):  # a read-only store costs the hashing next time
        write_json(note, {**key, "sha256": value})
    return value


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
    path = place(kind, json_digest(key), ".jsonl")
    with locked(path):
        with suppress(DataError):  # absent, or broken: made anew
            return read_jsonl(path, record), True
        rows = make()
        write_jsonl(path, rows)
    return rows, False


def kept(kind: str, key: Any, record: type[Row], make: Callable[[], Row]) -> Row:
    """The record that `key` stands for in the store; else what `make` gives, which is kept if the store can be written.

    `key` is plain JSON data that says everything the record depends on.
    """
    path = place(kind, json_digest(key))
    with suppress(OSError, DataError):  # absent, or broken: made anew
        return read_json(path, record)
    made = make()
    with suppress(OSError):
        write_json(path, made)
    return made


def place(kind: str, name: str, suffix: str = ".json") -> Path:
    """Where the store has what is called by this digest."""
    return root() / kind / name[:2] / f"{name}{suffix}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that want `path` of the store waiting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.stem}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
