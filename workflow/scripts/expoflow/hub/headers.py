"""Preflight of a hub model: fetch its headers by HTTP Range before 2 x 14 GB are downloaded."""

import os
from pathlib import Path

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from expoflow.errors import CheckpointError
from expoflow.hub import cache, http

FIRST = 1 << 17  # bytes; the header of a 7B model's shard has about 40 kB


def headers(repo: str, revision: str | None, folder: Path) -> Path | None:
    """Make `folder` look like the model's snapshot, with sparse weight files.

    The headers and sizes of the weight files are right, but the weights are missing. Returns None
    if the model has only pickles, which have no header. Raises CheckpointError.
    """
    if constants.HF_HUB_OFFLINE:
        return cache.fetch(repo, revision)[1]
    try:
        commit, described = cache.describe(repo, revision)
        names = cache.checkpoint_names(repo, {name: each.size for name, each in described.items()})
        if any(cache.PICKLES.fullmatch(name) for name in names):
            return None
        weights = [name for name in names if cache.SAFETENSORS.fullmatch(name)]
        snapshot, _ = cache.bring(repo, commit, [described[name] for name in names if name not in weights])
        for name in set(names) - set(weights):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).symlink_to(snapshot / name)
        for name in weights:
            _write_header(hf_hub_url(repo, name, revision=commit), folder / name, described[name].size)
    except HTTPError as error:
        raise CheckpointError(http.explain(error, repo, revision)) from None
    return folder


def _write_header(url: str, path: Path, size: int) -> None:
    """Write a safetensors file up to the end of its header, and leave the rest as a hole."""
    text = http.patiently(lambda: _first_bytes(url, FIRST))
    length = 8 + int.from_bytes(text[:8], "little")
    if FIRST < length <= size:
        text = http.patiently(lambda: _first_bytes(url, length))
    path.write_bytes(text[:length])
    os.truncate(path, size)


def _first_bytes(url: str, count: int) -> bytes:
    request = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes=0-{count - 1}"}
    received = bytearray()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=request, timeout=timeout) as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes():  # a server that ignores Range sends the whole file
            received += chunk
            if len(received) >= count:
                break
    return bytes(received[:count])
