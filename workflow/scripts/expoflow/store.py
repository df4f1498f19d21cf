"""The store of expensive intermediate results, which later runs can use again.

The store is `$EXPOFLOW_STORE`, by default `expoflow` next to HF_HOME. Emptying it never invalidates
a result: its entries are found by content, or are made again.
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
    """sha256 of a file: remembered by path, size and modification time, else (or if `anew`)
    computed and kept.

    The hub's cache names a large file's link target by its sha256. If the content has another
    sha256, a CheckpointError is raised.
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
        pass  # not seen before, or changed: compute it
    value = sha256(path, stop)
    if path.is_symlink() and BLOB.fullmatch(real.name) and real.name != value:
        raise CheckpointError(
            f"{path}: has sha256 {value}, the hub says {real.name}; delete {real}, download again"
        )
    with suppress(OSError):  # with a read-only store the file is hashed again next time
        write_json(note, {**key, "sha256": value})
    return value


def root() -> Path:
    """The store's folder; it may not exist yet."""
    if chosen := os.environ.get("EXPOFLOW_STORE"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("HF_HOME", f"{cache}/huggingface")).expanduser().parent / "expoflow"


def use() -> None:
    """Keep the store from being emptied while this process, the head of a run, is alive."""
    _IN_USE.append(_lock(fcntl.LOCK_SH))


@contextmanager
def claimed() -> Iterator[None]:
    """Claim the store for this process alone. Raises BlockingIOError while a run uses it."""
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
    """The rows that `key` stands for, and whether the store had them. If not, `make` them and keep
    them.

    `key` is plain JSON data with everything the rows depend on. If several jobs need the same rows
    at the same time, one makes them and the others wait.
    """
    path = place(kind, json_digest(key), ".jsonl")
    with locked(path):
        with suppress(DataError):  # absent or broken: make it
            return read_jsonl(path, record), True
        rows = make()
        write_jsonl(path, rows)
    return rows, False


def kept(kind: str, key: Any, record: type[Row], make: Callable[[], Row]) -> Row:
    """The record that `key` stands for. If the store lacks it, `make` it, and keep it if the store
    is writable.

    `key` is plain JSON data with everything the record depends on.
    """
    path = place(kind, json_digest(key))
    with suppress(OSError, DataError):  # absent or broken: make it
        return read_json(path, record)
    made = make()
    with suppress(OSError):
        write_json(path, made)
    return made


def place(kind: str, name: str, suffix: str = ".json") -> Path:
    """The path in the store of the entry with the digest `name`."""
    return root() / kind / name[:2] / f"{name}{suffix}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Make other processes that want `path` of the store wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.stem}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
