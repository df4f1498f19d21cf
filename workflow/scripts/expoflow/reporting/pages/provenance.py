"""Provenance of a run: models and commits, versions, config, and the command to reproduce it."""

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
    """Facts about a run that the page cannot read from any result.

    `figures` has the captions by name. `tables` are those in the paper's form. `note` is the text
    below the rows of reproduction.csv. `pairs` has for every pair `sft` and `aligned`, and `by` and
    `judge` of `select`. It may have `plan`, the file that says for each metric of lm-eval whether
    more is better. `confidence` has the level of the intervals by pair; it is empty in a rehearsal.
    `config` is the config as it was read, and `again` is the command.
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
        """The roles of the models, by name."""
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
    """The models of the pairs and the reward model, if their manifests exist."""
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
    """The versions that made this page.

    They also made the results, unless something was upgraded in between.
    """
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def made(files: Iterable[Path]) -> str:
    """The day (UTC) on which the newest of these results was written."""
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
    """Convert to plain dictionaries and lists, which YAML writes without tags."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
