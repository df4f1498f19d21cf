"""Checkpoints and datasets from the Hugging Face hub, in the hub's own cache.

The client's own download (huggingface_hub 2.4) names partial files at random, so that a killed process
loses them, and takes wrong bytes of the right length. So files are received here, through the client's
session, into its cache: resumed where they ended, and admitted only with the hash that the hub says. That
is plain HTTP, which the hub offers for Xet files too; with Xet neither could be promised.

`python -m expoflow.hub` reads a manifest from stdin, brings its files back and prints their folder.
"""

import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TypeVar

from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # of httpx or of httpx2, whichever the client uses
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status

from expoflow import licence
from expoflow.checkpoint import ADAPTER, INDEX, SINGLE, read_json_file
from expoflow.config import COMMIT, DataConfig, ModelConfig
from expoflow.conversion import ADAPTER_BIN, ADAPTER_WEIGHTS, BIN, BIN_INDEX
from expoflow.dataset import CARD, split_files
from expoflow.errors import CheckpointError, ExpoflowError
from expoflow.hashes import remembered
from expoflow.package import LARGEST, NOT_PACKAGE, PACKAGE_FOLDERS
from expoflow.records import File, Manifest, provenance, write_json, write_text
from expoflow.store import sha256

WAITS = (1, 2, 4, 8, 16)  # seconds between tries of one request; bytes received begin them anew
LONGEST = 300  # seconds; the hub counts requests over five minutes
STREAMS = 4  # files that are received at a time
SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
ENDPOINT = re.sub("//[^/@]*@", "//", constants.ENDPOINT)  # as it may be shown
ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Result = TypeVar("Result")
Wanted = Callable[[str, Mapping[str, int]], list[str]]  # (repository, sizes by file name) -> names to bring


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it: `etag` is the sha256 of a large (LFS, Xet) file, else git's sha1."""

    name: str
    size: int
    etag: str

    def sha256_if_right(self, path: Path, hashed: Callable[[Path], str] = sha256) -> str | None:
        """sha256 of the file at `path`, None where size or hash are not what the hub says."""
        if path.stat().st_size != self.size:
            return None
        if len(self.etag) == 40:
            content = path.read_bytes()
            if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != self.etag:
                return None
        value = hashed(path)
        return None if len(self.etag) == 64 and value != self.etag else value


def download(model: str, source: ModelConfig, note: Path, say: Callable[[str], None] = print) -> Manifest:
    """Bring a hub model into the cache and describe it, its revision resolved to a commit.

    `note` remembers that commit for the next time, to tell by `say` where a branch has moved since.
    """
    commit, folder, files = fetch(source.hub, source.revision, wanted=_with_card)
    files.pop(CARD, None)  # states the licence, and is no part of the model
    remember_commit(note, f"model '{model}'", source.hub, source.revision, commit, say)
    return Manifest(
        model=model,
        source={"hub": source.hub, "revision": source.revision or "main"},
        revision=commit,
        folder=str(folder),
        files=files,
        license=licence.stated(folder / CARD),
        provenance=provenance("huggingface_hub"),
    )


def remember_commit(
    note: Path, what: str, repo: str, revision: str | None, commit: str, say: Callable[[str], None]
) -> None:
    """Write to `note` which commit the revision stands for, and tell where it was another one before."""
    asked = {"hub": repo, "revision": revision or "main"}
    before = read_json_file(note) if note.is_file() else {}
    if asked.items() <= before.items() and before["commit"] != commit:
        say(
            f"{what}: {repo} has moved: {asked['revision']} was {before['commit']} and is now {commit}; "
            f"to stay with the old one set revision: {before['commit']}"
        )
    write_json(note, {**asked, "commit": commit})


def dataset(source: DataConfig) -> tuple[str, list[Path]]:
    """Bring the files of a split into the cache: the commit, and the files in the split's order.

    Raises CheckpointError for what the hub does not give, DataError for a split that is not there.
    """
    repo = source.hub
    commit, folder, card = fetch(
        repo, source.revision, "dataset", lambda _, sizes: [CARD] if CARD in sizes else []
    )
    text = (folder / CARD).read_text(encoding="utf-8") if card else ""

    def wanted(_: str, sizes: Mapping[str, int]) -> list[str]:
        return split_files(text, list(sizes), source.config, source.split, repo)

    _, folder, files = fetch(repo, commit, "dataset", wanted)
    return commit, [folder / name for name in files]


def restore(manifest: Manifest) -> Path:
    """Bring the files of a manifest back from the hub; another content than then is a CheckpointError."""
    _, folder, files = fetch(manifest.source["hub"], manifest.revision)
    for name, file in manifest.files.items():
        if files.get(name) != file:
            raise CheckpointError(
                f"model '{manifest.model}': {name} of {manifest.source['hub']} at {manifest.revision} has "
                f"sha256 {files[name].sha256 if name in files else 'of no file'}, the manifest {file.sha256}; "
                f"run: snakemake --forcerun results/models/{manifest.model}.json"
            )
    return folder


def fetch(
    repo: str, revision: str | None = None, kind: str = "model", wanted: Wanted | None = None
) -> tuple[str, Path, dict[str, File]]:
    """Bring files of a repository into the hub's cache: the commit, the snapshot's folder, the files by name.

    `kind` is "model" or "dataset"; `wanted` chooses among the file names, by default those of a checkpoint.
    Nothing is asked of the network with HF_HUB_OFFLINE. What goes wrong for good is a CheckpointError.
    """
    cache, wanted = _cache(repo, kind), wanted or checkpoint_names
    if constants.HF_HUB_OFFLINE:
        return _from_cache(repo, revision, cache, wanted)
    try:
        return _from_hub(repo, revision, kind, wanted)
    except HTTPError as error:
        raise CheckpointError(explain(error, repo, revision, kind)) from None
    except OSError as error:
        reason = f"cannot write into {cache}: {error.strerror}"
        raise CheckpointError(f"{repo}: {reason}; free space, or set HF_HOME to a better place") from error


def _cache(repo: str, kind: str = "model") -> Path:
    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"


def describe(repo: str, revision: str | None, kind: str = "model") -> tuple[str, dict[str, HubFile]]:
    """The commit that a revision stands for, and its files by name; raises the client's errors."""
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        info = patiently(
            lambda: HfApi().repo_info(
                repo, revision=revision, repo_type=kind, files_metadata=True, timeout=timeout
            )
        )
    except (KeyError, TypeError, ValueError):  # not what a hub sends, or no name of a repository
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
        write_text(_cache(repo, kind) / "refs" / (revision or "main"), commit)
    return commit, snapshot, files


def bring(repo: str, commit: str, files: list[HubFile], kind: str = "model") -> tuple[Path, dict[str, File]]:
    """Have `files` of a commit in the cache: the snapshot's folder, the files by name."""
    cache, stop = _cache(repo, kind), Event()
    for file in files:
        if not ETAG.fullmatch(file.etag or "") or file.name.startswith("/") or ".." in file.name.split("/"):
            raise CheckpointError(
                f"{repo}: {ENDPOINT} has a file {file.name!r} of hash {file.etag!r}; is it a hub?"
            )
    _require_room(repo, files, cache)

    locks = cache.parent / ".locks" / cache.name
    for folder in (cache / "blobs", locks):
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(STREAMS) as pool:
        jobs = [pool.submit(_receive_right, repo, kind, commit, file, locks, stop) for file in files]
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
        _link(cache / "blobs" / file.etag, snapshot / file.name)
    sums = [job.result() for job in jobs]
    return snapshot, {f.name: File(size=f.size, sha256=s) for f, s in zip(files, sums, strict=True)}


def checkpoint_names(repo: str, sizes: Mapping[str, int]) -> list[str]:
    """Names of config, tokenizer, code and weights: safetensors, or pickles where there is nothing else.

    Of an adapter's repository, which has no model's weights: the adapter and its tokenizer.
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


def _with_card(repo: str, sizes: Mapping[str, int]) -> list[str]:
    return [*checkpoint_names(repo, sizes), *({CARD} & set(sizes))]


def _in_package(name: str, size: int) -> bool:
    folder, _, file = name.rpartition("/")
    return folder in ("", *PACKAGE_FOLDERS) and not NOT_PACKAGE.fullmatch(file) and size <= LARGEST


def _require_room(repo: str, files: Iterable[HubFile], cache: Path) -> None:
    files = {file.etag: file for file in files}.values()
    needs = sum(file.size for file in files)
    for file in files:
        for there in (cache / "blobs" / file.etag, _partial(cache, file)):
            with suppress(FileNotFoundError):
                needs -= there.stat().st_size
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free
    print(f"{repo}: {needs / 1e9:.2f} GB to download into {cache}", file=sys.stderr, flush=True)
    if needs > free:
        raise CheckpointError(
            f"{repo}: {needs / 1e9:.2f} GB are missing in {cache}, {free / 1e9:.2f} GB are free; "
            "free space or set HF_HOME to a larger disk"
        )


def _partial(cache: Path, file: HubFile) -> Path:
    return cache / "blobs" / f"{file.etag}.expoflow.incomplete"


def _receive_right(repo: str, kind: str, commit: str, file: HubFile, locks: Path, stop: Event) -> str:
    """Have the file in the cache's blobs, received unless it is there and right; its sha256.

    A second process that wants it waits at the lock, which is the client's own.
    """
    cache = _cache(repo, kind)
    blob, partial = cache / "blobs" / file.etag, _partial(cache, file)
    url = hf_hub_url(repo, file.name, revision=commit, repo_type=kind)
    with WeakFileLock(locks / f"{file.etag}.lock"):
        if blob.is_file() and (value := file.sha256_if_right(blob.resolve(), remembered)):
            return value
        for _ in range(2):  # what an earlier process left may be wrong
            patiently(lambda: _receive(url, partial, file.size, stop), stop, lambda: _size(partial))
            if value := file.sha256_if_right(partial):
                os.replace(partial, blob)
                print(f"{repo}: {file.name}, {file.size:,} bytes", file=sys.stderr, flush=True)
                return value
            found = f"{_size(partial)} bytes, sha256 {sha256(partial)}"
            partial.unlink()
    algorithm = "sha256" if len(file.etag) == 64 else "git sha1"
    raise CheckpointError(
        f"{repo}: {file.name} came with {found}, the hub says {file.size} bytes, {algorithm} {file.etag}; "
        "try again later, and tell the owner of the repository if it stays so"
    )


def _receive(url: str, partial: Path, size: int, stop: Event) -> None:
    """Append to `partial` what it lacks of the file at `url`."""
    with open(partial, "ab") as out:
        if 0 < size <= out.tell():
            return
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if out.tell():
            headers["Range"] = f"bytes={out.tell()}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code == 416:  # the hub's file is shorter, which the caller sees
                return
            hf_raise_for_status(response)
            if response.status_code != 206:
                out.truncate(0)
            for chunk in response.iter_bytes():
                if stop.is_set():
                    raise CheckpointError(f"{url}: stopped; run again to go on")
                out.write(chunk)
                if out.tell() > size:
                    return
        out.flush()
        os.fsync(out.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def patiently(
    call: Callable[[], Result], stop: Event | None = None, progress: Callable[[], int] = lambda: 0
) -> Result:
    """The result of `call`, tried again after what may pass: a lost connection, 408, 429, 5xx."""
    waits, reached = iter(WAITS), progress()
    while True:
        try:
            return call()
        except HTTPError as error:
            if progress() > reached:
                waits, reached = iter(WAITS), progress()
            pause, asked = next(waits, None), asked_pause(error)
            if pause is None or asked > LONGEST or not _may_pass(error):
                raise
            pause = max(pause, asked)
            print(f"{happened(error)}; trying again in {pause:g} s", file=sys.stderr, flush=True)
            if (stop or Event()).wait(pause):
                raise


def _may_pass(error: HTTPError) -> bool:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 500
    return status in (408, 429) or status >= 500


def asked_pause(error: HTTPError) -> int:
    """Seconds that the server asks to wait, 0 where it does not say."""
    if not isinstance(error, HfHubHTTPError):
        return 0
    headers = error.response.headers
    seconds = re.fullmatch(r"\d+", headers.get("Retry-After", "")) or re.search(
        r"(?<=\bt=)\d+", headers.get("RateLimit", "")
    )
    return int(seconds[0]) if seconds else 0


def happened(error: HTTPError) -> str:
    """What happened, without texts from outside, which may hold secrets."""
    return f"HTTP {error.response.status_code}" if isinstance(error, HfHubHTTPError) else type(error).__name__


def token_name() -> str:
    """Where the token comes from, for messages."""
    return "the token in HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token of `hf auth login`"


def explain(error: HTTPError, repo: str, revision: str | None, kind: str = "model") -> str:
    """What went wrong for good, and the remedy; never the token."""
    token = token_name()
    account = f"{token} belongs to an account without access" if get_token() else "HF_TOKEN is not set"
    if isinstance(error, GatedRepoError):
        return (
            f"{repo}: is gated, and {account}; accept its terms at {ENDPOINT}/{repo}, "
            "then set HF_TOKEN to a token of that account"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo}: has no revision '{revision}'; correct `revision:` (a branch, a tag or a commit)"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{repo}: {ENDPOINT} has no such {kind} (HTTP {status}), or it is private and {account}; "
            "correct `hub:`, or set HF_TOKEN to a token that may read it"
        )
    if status == 401:
        return f"{repo}: {token} is refused (HTTP 401); set HF_TOKEN to a valid one, or unset it"
    if status == 403:
        return f"{repo}: access is forbidden (HTTP 403), {account}; set HF_TOKEN to a token that may read it"
    if status == 404:
        return f"{repo}: a file is gone at revision '{revision or 'main'}' (HTTP 404); correct `revision:`"
    if asked := asked_pause(error):
        return f"{repo}: {happened(error)}, {ENDPOINT} asks to wait {asked} s; run again after that"
    return (
        f"{repo}: {ENDPOINT} does not answer as it should ({happened(error)}), {len(WAITS) + 1} tries; "
        "what came is kept: run again, or set HF_HUB_OFFLINE=1 if all is in the cache"
    )


def _link(blob: Path, pointer: Path) -> None:
    if not (pointer.is_file() and pointer.samefile(blob)):
        pointer.parent.mkdir(parents=True, exist_ok=True)
        temporary = pointer.with_name(f".{pointer.name}.{secrets.token_hex(4)}.tmp")
        os.symlink(os.path.relpath(blob, pointer.parent), temporary)
        os.replace(temporary, pointer)


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
        if absent := set(read_json_file(snapshot / index)["weight_map"].values()) - set(names):
            raise CheckpointError(f"{repo}: {min(absent)} is not in the cache {cache}; {again}")
    files = {}
    for name in names:
        path = snapshot / name
        etag = Path(os.readlink(path)).name if path.is_symlink() else ""
        file = HubFile(name, sizes[name], etag if ETAG.fullmatch(etag) else "")
        value = file.sha256_if_right(path.resolve(), remembered)
        if value is None:
            raise CheckpointError(f"{repo}: {name} in the cache has not the hash {etag} of the hub; {again}")
        files[name] = File(size=file.size, sha256=value)
    return commit, snapshot, files


if __name__ == "__main__":
    try:
        print(restore(Manifest.model_validate_json(sys.stdin.read())))
    except ExpoflowError as problem:
        sys.exit(print(problem) or 1)
