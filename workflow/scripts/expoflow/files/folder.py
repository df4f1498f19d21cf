"""Folders that appear complete or not at all."""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from expoflow.errors import CheckpointError


@contextmanager
def appearing(target: Path, *, replace: bool, needs: int = 0) -> Iterator[Path]:
    """Provide a temporary folder that becomes `target` when the block ends without an exception.

    `needs` bytes must be free on its disk. The files must be on disk (fsync) when the block ends.
    The rename is one step if `target` is absent or an empty folder. An existing `target` is an
    error unless `replace`. After an exception nothing remains. The next writer removes what a
    killed process left.
    """
    target = Path(os.path.abspath(target))
    _remove_abandoned(target)
    require_room(target, needs=needs, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    temporary.mkdir()
    held = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield temporary
        _as_others(temporary)
        sync_folder(temporary)
        _move(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CheckpointError(
                f"{target}: the disk is full; free space there, or write to another disk"
            ) from error
        raise
    finally:
        os.close(held)
        shutil.rmtree(temporary, ignore_errors=True)


def _as_others(folder: Path) -> None:
    """Give the files of a new folder the folder's permissions: safetensors makes them readable by
    their owner only."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600:
            path.chmod(mode)


def _remove_abandoned(target: Path) -> None:
    for old in target.parent.glob(f".{target.name}.*.partial"):
        with suppress(OSError):
            descriptor = os.open(old, os.O_RDONLY)
            try:
                # The writer holds this lock while it is alive. If the lock is free, the folder is
                # abandoned.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old)
            finally:
                os.close(descriptor)


def require_room(target: Path, *, needs: int, replace: bool) -> None:
    """Raise CheckpointError if `target` exists (unless `replace`) or its disk has less than `needs`
    bytes free."""
    if not replace and (target.exists() or target.is_symlink()):
        raise CheckpointError(f"{target}: exists; give another --out or remove it")
    there = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needs:
        raise CheckpointError(
            f"{target}: needs {needs / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; free space there, or write to another disk"
        )


def _move(temporary: Path, target: Path) -> None:
    try:
        os.rename(temporary, target)  # also onto an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
