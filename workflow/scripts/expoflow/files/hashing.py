"""sha256 of files and of plain data."""

import hashlib
import json
from pathlib import Path
from threading import Event
from typing import Any

from expoflow.errors import CheckpointError

STEP = 4 << 20  # bytes hashed at a time, without holding Python's global lock


def json_digest(key: Any) -> str:
    """sha256 over plain JSON data. The order of keys does not matter."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def sha256(path: Path, stop: Event | None = None) -> str:
    """sha256 of a file in hexadecimal. Raises CheckpointError if `stop` is set before the end."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(STEP))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stop and stop.is_set():
                raise CheckpointError(f"{path}: hashing was stopped; run again")
            digest.update(buffer[:count])
    return digest.hexdigest()
