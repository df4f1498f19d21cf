"""One file of the hub: downloaded, resumed after an interruption, and accepted only with the right
hash."""

import hashlib
import os
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status

from expoflow.errors import CheckpointError
from expoflow.files.hashing import sha256
from expoflow.hub.http import patiently
from expoflow.store import remembered
from expoflow.system import progress

ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it: `etag` is the sha256 of a large (LFS, Xet) file, else git's
    sha1."""

    name: str
    size: int
    etag: str

    def sha256_if_right(self, path: Path, hashed: Callable[[Path], str] = sha256) -> str | None:
        """sha256 of the file at `path`; None if its size or hash is not what the hub states."""
        if path.stat().st_size != self.size:
            return None
        if len(self.etag) == 40:
            content = path.read_bytes()
            if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != self.etag:
                return None
        value = hashed(path)
        return None if len(self.etag) == 64 and value != self.etag else value


def cache_folder(repo: str, kind: str = "model") -> Path:
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"


def partial_place(cache: Path, file: HubFile) -> Path:
    return cache / "blobs" / f"{file.etag}.expoflow.incomplete"


class Arrived:
    """A thread-safe count of the bytes received of some files of a repository."""

    def __init__(self, cache: Path, files: Iterable[HubFile]):
        sizes = {file.etag: file.size for file in files}
        self.total = sum(sizes.values())
        self._bytes = {
            file.etag: size_of(cache / "blobs" / file.etag) + size_of(partial_place(cache, file))
            for file in files
        }
        self.done = sum(self._bytes.values())
        self._counting = threading.Lock()
        progress.report(self.done, self.total, "bytes")

    def now(self, file: HubFile, size: int) -> None:
        """Record that `size` bytes of `file` have been received."""
        with self._counting:
            self.done += size - self._bytes[file.etag]
            self._bytes[file.etag] = size
        progress.report(self.done, self.total, "bytes", file.name)


def receive_right(
    repo: str, kind: str, commit: str, file: HubFile, locks: Path, stop: Event, arrived: Arrived
) -> str:
    """Bring the file into the cache's blobs and return its sha256. It is downloaded unless it is
    already there and right.

    A second process that wants the file waits for the lock, which is the client's own.
    """
    cache = cache_folder(repo, kind)
    blob, partial = cache / "blobs" / file.etag, partial_place(cache, file)
    url = hf_hub_url(repo, file.name, revision=commit, repo_type=kind)
    with WeakFileLock(locks / f"{file.etag}.lock"):
        if blob.is_file() and (value := file.sha256_if_right(blob.resolve(), remembered)):
            arrived.now(file, file.size)
            return value
        for _ in range(2):  # the bytes that an earlier process left may be wrong
            patiently(lambda: _receive(url, partial, file, stop, arrived), stop, lambda: size_of(partial))
            if value := file.sha256_if_right(partial):
                os.replace(partial, blob)
                print(f"{repo}: {file.name}, {file.size:,} bytes", file=sys.stderr, flush=True)
                return value
            found = f"{size_of(partial)} bytes, sha256 {sha256(partial)}"
            partial.unlink()
    algorithm = "sha256" if len(file.etag) == 64 else "git sha1"
    raise CheckpointError(
        f"{repo}: {file.name} came with {found}, the hub says {file.size} bytes, {algorithm} {file.etag}; "
        "try again later, and tell the owner of the repository if it happens again"
    )


def _receive(url: str, partial: Path, file: HubFile, stop: Event, arrived: Arrived) -> None:
    """Append to `partial` the missing bytes of the file at `url`."""
    with open(partial, "ab") as out:
        if 0 < file.size <= out.tell():
            return
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if out.tell():
            headers["Range"] = f"bytes={out.tell()}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code == 416:  # the hub's file is shorter; the caller notices that
                return
            hf_raise_for_status(response)
            if response.status_code != 206:
                out.truncate(0)
            for chunk in response.iter_bytes():
                if stop.is_set():
                    raise CheckpointError(f"{url}: stopped; run again to go on")
                out.write(chunk)
                arrived.now(file, out.tell())
                if out.tell() > file.size:
                    return
        out.flush()
        os.fsync(out.fileno())


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def link(blob: Path, pointer: Path) -> None:
    if not (pointer.is_file() and pointer.samefile(blob)):
        pointer.parent.mkdir(parents=True, exist_ok=True)
        temporary = pointer.with_name(f".{pointer.name}.{secrets.token_hex(4)}.tmp")
        os.symlink(os.path.relpath(blob, pointer.parent), temporary)
        os.replace(temporary, pointer)
