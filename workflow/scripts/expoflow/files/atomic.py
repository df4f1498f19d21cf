"""Files that appear complete or not at all."""

import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path` when the block ends without an exception.

    The data is on disk (fsync) before the rename. After an exception nothing remains. The next
    writer removes what a killed process left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary, file = _temporary(path, mode)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path, mode: str) -> tuple[Path, IO[Any]]:
    """A new file next to `path`, locked while it is open, and its name."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        file = open(temporary, mode, **({} if "b" in mode else {"encoding": "utf-8", "newline": ""}))  # noqa: SIM115
        with suppress(OSError):  # on a file system without locks nothing is removed
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, file
        file.close()  # another process removed it as abandoned before it was locked


def _remove_abandoned(path: Path) -> None:
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), open(old, "ab") as file:
            # The writer holds this lock while it is alive. If the lock is free, the file is
            # abandoned.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            old.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` completely or not at all."""
    with replacing(path) as file:
        file.write(text)
