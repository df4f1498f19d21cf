"""sha256 of weight files, computed once and remembered for as long as a file does not change."""

import hashlib
import json
import re
import threading
from contextlib import suppress
from pathlib import Path

from expoflow import store
from expoflow.errors import CheckpointError
from expoflow.records import write_json
from expoflow.store import sha256

BLOB = re.compile(r"[0-9a-f]{64}")


def remembered(path: Path, stop: threading.Event | None = None, *, anew: bool = False) -> str:
    """sha256 of a file: remembered by place, size and time of change, else (or `anew`) computed and kept.

    The hub's cache names a large file's link target by its sha256; another content is a CheckpointError.
    """
    real = path.resolve()
    state = real.stat()
    key = {"path": str(real), "size": state.st_size, "mtime_ns": state.st_mtime_ns, "inode": state.st_ino}
    note = store.root() / "sha256" / f"{hashlib.sha256(str(real).encode()).hexdigest()}.json"
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
