"""The hub's cache: which files of a repository are needed, and how they are downloaded
completely."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HTTPError

from expoflow.checkpoints.checkpoint import ADAPTER, INDEX, SINGLE, weight_map
from expoflow.checkpoints.package import LARGEST, NOT_PACKAGE, PACKAGE_FOLDERS
from expoflow.checkpoints.pickles import ADAPTER_BIN, ADAPTER_WEIGHTS, BIN, BIN_INDEX
from expoflow.config.base import COMMIT
from expoflow.errors import CheckpointError
from expoflow.files.atomic import write_text
from expoflow.hub.http import ENDPOINT, explain, patiently
from expoflow.hub.verified_file import ETAG, Arrived, HubFile, cache_folder, link, receive_right
from expoflow.results import File
from expoflow.store import remembered

STREAMS = 4  # number of concurrent downloads
SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
Wanted = Callable[
    [str, Mapping[str, int]], list[str]
]  # (repository, sizes by file name) -> names to download


def fetch(
    repo: str, revision: str | None = None, kind: str = "model", wanted: Wanted | None = None
) -> tuple[str, Path, dict[str, File]]:
    """Download files of a repository into the hub's cache.

    Returns the commit, the snapshot's folder, and the files by name. `kind` is "model" or
    "dataset". `wanted` chooses the files by name, by default those of a checkpoint. With
    HF_HUB_OFFLINE the network is not used. Raises CheckpointError for a lasting failure.
    """
    cache, wanted = cache_folder(repo, kind), wanted or checkpoint_names
    if constants.HF_HUB_OFFLINE:
        return _from_cache(repo, revision, cache, wanted)
    try:
        return _from_hub(repo, revision, kind, wanted)
    except HTTPError as error:
        raise CheckpointError(explain(error, repo, revision, kind)) from None
    except OSError as error:
        reason = f"cannot write into {cache}: {error.strerror}"
        raise CheckpointError(f"{repo}: {reason}; free space, or set HF_HOME to a better place") from error


def describe(repo: str, revision: str | None, kind: str = "model") -> tuple[str, dict[str, HubFile]]:
    """The commit that a revision stands for, and its files by name. Raises the client's errors."""
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        info = patiently(
            lambda: HfApi().repo_info(
                repo, revision=revision, repo_type=kind, files_metadata=True, timeout=timeout
            )
        )
    except (KeyError, TypeError, ValueError):  # not a reply of a hub, or not the name of a repository
        raise CheckpointError(
            f"{repo}: {ENDPOINT} gives no description of it; correct `hub:`, or HF_ENDPOINT"
        ) from None
    if not COMMIT.fullmatch(info.sha or ""):
        raise CheckpointError(f"{repo}: {ENDPOINT} names a commit {info.sha!r}; is it a hub?")
    return info.sha, {
        each.rfilename: HubFile(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else each.blob_id)
        for each in info.siblings or ()
    }


def _from_hub(
    repo: str, revision: str | None, kind: str, wanted: Wanted
) -> tuple[str, Path, dict[str, File]]:
    commit, described = describe(repo, revision, kind)
    names = wanted(repo, {name: each.size for name, each in described.items()})
    snapshot, files = bring(repo, commit, [described[name] for name in names], kind)
    if revision != commit:
        write_text(cache_folder(repo, kind) / "refs" / (revision or "main"), commit)
    return commit, snapshot, files


def bring(repo: str, commit: str, files: list[HubFile], kind: str = "model") -> tuple[Path, dict[str, File]]:
    """Bring `files` of a commit into the cache. Returns the snapshot's folder and the files by
    name."""
    cache, stop = cache_folder(repo, kind), Event()
    for file in files:
        if not ETAG.fullmatch(file.etag or "") or file.name.startswith("/") or ".." in file.name.split("/"):
            raise CheckpointError(
                f"{repo}: {ENDPOINT} has a file {file.name!r} with hash {file.etag!r}; is it a hub?"
            )
    arrived = Arrived(cache, files)
    _require_room(repo, arrived, cache)

    locks = cache.parent / ".locks" / cache.name
    for folder in (cache / "blobs", locks):
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(STREAMS) as pool:
        jobs = [pool.submit(receive_right, repo, kind, commit, file, locks, stop, arrived) for file in files]
        try:
            done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            if failed := next(filter(None, (job.exception() for job in done)), None):
                raise failed
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    snapshot = cache / "snapshots" / commit
    for file in files:
        link(cache / "blobs" / file.etag, snapshot / file.name)
    sums = [job.result() for job in jobs]
    return snapshot, {f.name: File(size=f.size, sha256=s) for f, s in zip(files, sums, strict=True)}


def checkpoint_names(repo: str, sizes: Mapping[str, int]) -> list[str]:
    """Names of config, tokenizer, code and weights: safetensors, or pickles if there is nothing
    else.

    In an adapter's repository, which has no full weights: the adapter and its tokenizer.
    """
    for pattern, single, index in ((SAFETENSORS, SINGLE, INDEX), (PICKLES, BIN, BIN_INDEX)):
        weights = [name for name in sizes if pattern.fullmatch(name)]
        if single in weights:
            weights = [single]
        elif weights and index in sizes:
            weights.append(index)
        if weights:
            break
    adapter = [name for name in (ADAPTER_WEIGHTS, ADAPTER_BIN) if name in sizes]
    if ADAPTER in sizes and adapter and not weights:
        package = (name for name, size in sizes.items() if _in_package(name, size))
        return sorted([ADAPTER, adapter[0], *package])
    missing = [
        what
        for what, there in ((f"{SINGLE} or {BIN}", weights), ("config.json", "config.json" in sizes))
        if not there
    ]
    if missing:
        has = ", ".join(sorted(sizes)[:8]) or "nothing"
        raise CheckpointError(
            f"{repo}: no {' and no '.join(missing)} (has: {has}); name a repository with a whole model"
        )
    return sorted([*weights, *(name for name, size in sizes.items() if _in_package(name, size))])


def _in_package(name: str, size: int) -> bool:
    folder, _, file = name.rpartition("/")
    return folder in ("", *PACKAGE_FOLDERS) and not NOT_PACKAGE.fullmatch(file) and size <= LARGEST


def _require_room(repo: str, arrived: Arrived, cache: Path) -> None:
    needs = arrived.total - arrived.done
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free
    print(f"{repo}: {needs / 1e9:.2f} GB to download into {cache}", file=sys.stderr, flush=True)
    if needs > free:
        raise CheckpointError(
            f"{repo}: {needs / 1e9:.2f} GB are missing in {cache}, {free / 1e9:.2f} GB are free; "
            "free space or set HF_HOME to a larger disk"
        )


def _from_cache(
    repo: str, revision: str | None, cache: Path, wanted: Wanted
) -> tuple[str, Path, dict[str, File]]:
    ref = cache / "refs" / (revision or "main")
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision or "main"
    snapshot = cache / "snapshots" / commit
    sizes = {
        str(path.relative_to(snapshot)): path.stat().st_size for path in snapshot.rglob("*") if path.is_file()
    }
    again = "unset HF_HUB_OFFLINE to download it"
    if not sizes:
        raise CheckpointError(f"{repo}: revision '{revision or 'main'}' is not in the cache {cache}; {again}")
    names = wanted(repo, sizes)
    for index in {INDEX, BIN_INDEX} & set(names):
        if absent := set(weight_map(snapshot / index).values()) - set(names):
            raise CheckpointError(f"{repo}: {min(absent)} is not in the cache {cache}; {again}")
    files = {}
    for name in names:
        path = snapshot / name
        etag = Path(os.readlink(path)).name if path.is_symlink() else ""
        file = HubFile(name, sizes[name], etag if ETAG.fullmatch(etag) else "")
        value = file.sha256_if_right(path.resolve(), remembered)
        if value is None:
            raise CheckpointError(
                f"{repo}: {name} in the cache does not have the hash {etag} of the hub; {again}"
            )
        files[name] = File(size=file.size, sha256=value)
    return commit, snapshot, files
