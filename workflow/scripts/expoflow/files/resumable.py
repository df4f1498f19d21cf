"""Part files: the finished rows of a long job, kept while it runs so that a rerun can continue."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic

from expoflow.files.records import Row


class Part(Generic[Row]):
    """An append-only file of JSON lines. The first line says what the rows depend on.

    `rows` are the rows that were already there. A file for another `key` is started again, and a
    truncated last line is dropped. The caller removes the file when the rows have been written
    elsewhere.
    """

    def __init__(self, path: Path, key: str, record: type[Row]):
        self.path = Path(path)
        self.rows: list[Row] = []
        self.synced = 0.0
        good = 0
        with suppress(FileNotFoundError, ValueError):
            first, *lines = self.path.read_bytes().splitlines(keepends=True)
            if json.loads(first) == {"key": key}:
                good = len(first)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self.rows.append(record.model_validate_json(line))
                    good += len(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "ab")  # noqa: SIM115 (open until the job is done)
        self.file.truncate(good)
        if not good:
            self._append(json.dumps({"key": key}) + "\n")

    def add(self, rows: Sequence[Row]) -> None:
        """Append finished rows. They are flushed at once, and synced to disk at most once per
        second."""
        self.rows += rows
        self._append("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))

    def _append(self, text: str) -> None:
        self.file.write(text.encode())
        self.file.flush()
        if time.monotonic() > self.synced + 1:
            os.fdatasync(self.file.fileno())
            self.synced = time.monotonic()
