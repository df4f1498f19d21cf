"""Where a run's results come from: models and their commits, versions, the config, and the command that makes them again."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from expoflow.files.records import read_json
from expoflow.paths import Results
from expoflow.results import Manifest

PACKAGES = ("expoflow", "torch", "transformers", "vllm", "snakemake")


@dataclass(frozen=True)
class Told:
    """What the page must be told of a run, since no result says it.

    `figures` are captions by name; `tables` those in the paper's form, and `note` what stands below the rows of reproduction.csv. `pairs` says
    of every pair `sft`, `aligned`, perhaps `plan` (the file that knows of lm-eval's figures whether more is better); of `select` it has `by`
    and `judge`. `confidence` is that of the intervals, by pair; in a rehearsal there is none. `config` is the config as it was read, `again`
    the command.
    """

    figures: Mapping[str, str] = field(default_factory=dict)
    tables: Iterable[Path] = ()
    note: str = ""
    pairs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reward_model: str | None = None
    confidence: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    again: str = ""

    def roles(self) -> dict[str, list[str]]:
        """What models are for, by their name."""
        found: dict[str, list[str]] = {}
        for pair, entry in self.pairs.items():
            found.setdefault(entry["sft"], []).append(f"SFT of {pair}")
            found.setdefault(entry["aligned"], []).append(f"aligned of {pair}")
        if self.reward_model:
            found.setdefault(self.reward_model, []).append("reward model")
        return found

    def config_text(self) -> str:
        """The config as YAML."""
        if self.config is None:
            return ""
        return yaml.safe_dump(_plain(self.config), sort_keys=False, allow_unicode=True, width=100)


@dataclass(frozen=True)
class Model:
    """A model as the page shows it."""

    name: str
    roles: str
    source: str
    commit: str
    size: str
    licence: str
    made_by: str


def models(told: Told, results: Results) -> list[Model]:
    """The models of the pairs, and the reward model, as far as their manifests are there."""
    found = []
    for name, roles in told.roles().items():
        path = results.manifest(name)
        if path.exists():
            manifest = read_json(path, Manifest)
            found.append(
                Model(
                    name,
                    ", ".join(roles),
                    _source(manifest.source),
                    manifest.revision or "",
                    _size(sum(file.size for file in manifest.files.values())),
                    _licence(manifest.license),
                    " ".join(
                        f"{key} {manifest.provenance[key]}"
                        for key in ("expoflow", "python")
                        if key in manifest.provenance
                    ),
                )
            )
    return found


def versions() -> dict[str, str]:
    """The versions of what made this page and, unless something was upgraded since, the results."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def made(files: Iterable[Path]) -> str:
    """The day (UTC) on which the last of these results was written."""
    last = max((path.stat().st_mtime for path in files if path.exists()), default=None)
    return "" if last is None else datetime.datetime.fromtimestamp(last, datetime.UTC).date().isoformat()


def _source(source: Mapping[str, Any]) -> str:
    if source.get("hub"):
        return f"hub: {source['hub']}"
    if source.get("path"):
        return f"folder: {source['path']}"
    recipe = source.get("train") or {}
    parts = [("recipe", "recipe"), ("from", "from"), ("on", "data")]
    return "trained here: " + ", ".join(f"{word} {recipe[key]}" for word, key in parts if recipe.get(key))


def _licence(licence: Mapping[str, str] | None) -> str:
    return licence.get("license_name", licence.get("license", "")) if licence else "not stated"


def _size(count: int) -> str:
    """`14.5 GB`, `0.47 MB`."""
    return (
        f"{count / 1e9:.1f} GB"
        if count >= 1e9
        else f"{count / 1e6:.2g} MB"
        if count < 1e7
        else f"{count / 1e6:.0f} MB"
    )


def _plain(value: Any) -> Any:
    """Plain dictionaries and lists, which YAML writes without tags."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
