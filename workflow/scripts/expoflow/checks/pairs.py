"""Check whether the models of a pair fit together. Hub models are checked by their headers, before
any download."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from expoflow.checkpoints.adapter import base_source, is_adapter
from expoflow.config import Config, PairConfig
from expoflow.config.sources import ModelConfig
from expoflow.errors import ConfigError, ExpoflowError
from expoflow.extrapolation.likeness import looked_at
from expoflow.extrapolation.preflight import Pair, open_pair
from expoflow.files.records import read_json
from expoflow.hub.headers import headers
from expoflow.paths import RESULTS, Results
from expoflow.results import Manifest

Source = Mapping[str, str]  # {hub, revision?} or {path}, like in a config


def preflight_sources(sft: Source, aligned: Source, vocabulary: str = "error") -> Pair | None:
    """Compare two models; hub models by their headers.

    Returns None if one of them has only pickles (and they are not both local). Raises
    CheckpointError for a broken model, or for one that is not on the hub.
    """
    if "hub" not in sft and "hub" not in aligned:
        return open_pair(Path(sft["path"]), Path(aligned["path"]), vocabulary)
    with _folder(sft) as theta0, _folder(aligned) as theta1:
        return open_pair(theta0, theta1, vocabulary) if theta0 and theta1 else None


def base_of(aligned: Source) -> Source:
    """The base that an adapter names. Raises CheckpointError if `aligned` is not an adapter or
    names no existing base."""
    with _folder(aligned) as folder:
        return base_source(folder or Path(aligned.get("path", "")))


def check_pairs(config: Config, results: Results = RESULTS, hub: bool = True) -> None:
    """Run the missing preflights of pairs whose models are not trained here. One ConfigError
    reports all problems.

    A pair with a hub model without a manifest is checked only with `hub`, by its headers. For a
    pair with local files, a sample of the weights is read too.
    """
    problems = []
    for name, pair in config.pairs.items():
        members = {model: config.models[model] for model in (pair.sft, pair.aligned)}
        coming = [model for model in members if not results.manifest(model).exists()]
        if any(each.train for each in members.values()) or results.preflight(name).exists():
            continue
        try:
            if not any(members[model].hub for model in coming):
                problems += [f"pairs.{name}: {text}" for text in _local_errors(config, pair, results)]
                continue
            if not hub:
                continue
            sources = [
                each.model_dump(include={"hub", "revision", "path"}, exclude_none=True)
                for each in members.values()
            ]
            checked = preflight_sources(*sources, config.extrapolate.vocabulary)
        except ExpoflowError as error:
            problems += [f"pairs.{name}: {line}" for line in str(error).splitlines()]
            continue
        if checked:
            problems += [f"pairs.{name}: {text}" for text in checked.errors]
            problems += _code_problems(members, (checked.sft.config, checked.aligned.config))
    if problems:
        raise ConfigError(problems)


def _local_errors(config: Config, pair: PairConfig, results: Results) -> list[str]:
    """Errors of a pair with local files; none for pickles, which a job converts, and for missing
    files."""
    folders = [_place(config, model, results) for model in (pair.sft, pair.aligned)]
    if not all(any(folder.glob("*.safetensors")) for folder in folders):
        return []
    found = open_pair(*folders, config.extrapolate.vocabulary)
    return found.errors or looked_at(found, pair.unrelated)[0].errors


def _place(config: Config, model: str, results: Results) -> Path:
    manifest = results.manifest(model)
    return Path(
        read_json(manifest, Manifest).folder if manifest.exists() else config.models[model].path or ""
    )


def _code_problems(members: Mapping[str, ModelConfig], configs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Models that only code from their repositories can run, if the config does not allow it."""
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
