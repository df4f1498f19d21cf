"""Preflight of a hub model: its headers by HTTP Range, before 2 x 14 GB are downloaded."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from expoflow import hub
from expoflow.adapter import base_source, is_adapter
from expoflow.config import Config, ModelConfig
from expoflow.errors import CheckpointError, ConfigError, ExpoflowError
from expoflow.preflight import Pair, open_pair

FIRST = 1 << 17  # bytes; the header of a shard of 7B has about 40 kB
Source = Mapping[str, str]  # {hub, revision?} or {path}, as in a config


def preflight_sources(sft: Source, aligned: Source, vocabulary: str = "error") -> Pair | None:
    """Compare two models, hub ones by their headers; None where one has only pickles (and they are not both local).

    Raises CheckpointError for what is broken, or is not on the hub.
    """
    if "hub" not in sft and "hub" not in aligned:
        return open_pair(Path(sft["path"]), Path(aligned["path"]), vocabulary)
    with _folder(sft) as theta0, _folder(aligned) as theta1:
        return None if theta0 is None or theta1 is None else open_pair(theta0, theta1, vocabulary)


def base_of(aligned: Source) -> Source:
    """The base that an adapter names; a CheckpointError where `aligned` is none, or names none that is there."""
    with _folder(aligned) as folder:
        return base_source(folder or Path(aligned.get("path", "")))


def check_pairs(config: Config, results: Path = Path("results")) -> None:
    """Preflight of the pairs with a hub model that has no manifest yet; all problems are in one ConfigError."""
    problems = []
    for name, pair in config.pairs.items():
        members = {model: config.models[model] for model in (pair.sft, pair.aligned)}
        coming = [model for model in members if not (results / "models" / f"{model}.json").exists()]
        if any(members[model].hub for model in coming) and not any(each.train for each in members.values()):
            sources = [
                each.model_dump(include={"hub", "revision", "path"}, exclude_none=True)
                for each in members.values()
            ]
            try:
                checked = preflight_sources(*sources, config.extrapolate.vocabulary)
            except ExpoflowError as error:
                problems += [f"pairs.{name}: {line}" for line in str(error).splitlines()]
                continue
            if checked:
                problems += [f"pairs.{name}: {text}" for text in checked.errors]
                problems += _code_problems(members, (checked.sft.config, checked.aligned.config))
    if problems:
        raise ConfigError(problems)


def _code_problems(members: Mapping[str, ModelConfig], configs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Models that only code of their repositories can run, where the config does not allow it."""
    for (name, model), config in zip(members.items(), configs, strict=True):
        if "AutoConfig" in config.get("auto_map", ()) and not model.trust_remote_code:
            from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

            if config.get("model_type") not in CONFIG_MAPPING_NAMES:
                yield (
                    f"models.{name}: {config.get('model_type')} is run by code of its repository; read it, then set "
                    "revision to the commit that you have read and trust_remote_code: true"
                )


@contextmanager
def _folder(source: Source) -> Iterator[Path | None]:
    if "hub" not in source:
        path = Path(source["path"])
        yield path if any(path.glob("*.safetensors")) or is_adapter(path) else None
        return
    with tempfile.TemporaryDirectory(prefix="expoflow-") as folder:
        yield headers(source["hub"], source.get("revision"), Path(folder))


def headers(repo: str, revision: str | None, folder: Path) -> Path | None:
    """Make `folder` like the model's snapshot, its weight files sparse: header and size are right, no weight is.

    None where the model has only pickles, which have no header. Raises CheckpointError.
    """
    if constants.HF_HUB_OFFLINE:
        return hub.fetch(repo, revision)[1]
    try:
        commit, described = hub.describe(repo, revision)
        names = hub.checkpoint_names(repo, {name: each.size for name, each in described.items()})
        if any(hub.PICKLES.fullmatch(name) for name in names):
            return None
        weights = [name for name in names if hub.SAFETENSORS.fullmatch(name)]
        snapshot, _ = hub.bring(repo, commit, [described[name] for name in names if name not in weights])
        for name in set(names) - set(weights):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).symlink_to(snapshot / name)
        for name in weights:
            _write_header(hf_hub_url(repo, name, revision=commit), folder / name, described[name].size)
    except HTTPError as error:
        raise CheckpointError(hub.explain(error, repo, revision)) from None
    return folder


def _write_header(url: str, path: Path, size: int) -> None:
    """Write the first bytes of a safetensors file, to the end of its header, and let the rest be a hole."""
    text = hub.patiently(lambda: _first_bytes(url, FIRST))
    length = 8 + int.from_bytes(text[:8], "little")
    if FIRST < length <= size:
        text = hub.patiently(lambda: _first_bytes(url, length))
    path.write_bytes(text[:length])
    os.truncate(path, size)


def _first_bytes(url: str, count: int) -> bytes:
    request = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes=0-{count - 1}"}
    received = bytearray()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=request, timeout=timeout) as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes():  # a server that does not heed Range sends the whole file
            received += chunk
            if len(received) >= count:
                break
    return bytes(received[:count])
