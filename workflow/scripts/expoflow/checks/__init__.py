"""Checks of a config. All problems are reported at once, each on one line with the thing, the value
and the remedy."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from expoflow.checkpoints.adapter import base_source, is_adapter
from expoflow.checks.explain import explain
from expoflow.checks.plain_yaml import check_files
from expoflow.checks.references import name_problems, reference_problems, source_problems
from expoflow.config import Config
from expoflow.errors import CheckpointError, ConfigError


def load(data: Mapping[str, Any], files: Iterable[str | Path], folder: Path = Path()) -> Config:
    """Check a config that was read from `files`. Repeated keys are visible only in the files.

    Relative paths in the config start at `folder`.
    """
    check_files(files)
    return parse(data, folder)


def parse(data: Mapping[str, Any], folder: Path = Path()) -> Config:
    """Check a config as read from YAML. One ConfigError reports all of its problems."""
    try:
        config = Config.model_validate(_with_bases(data, folder))
    except ValidationError as error:
        raise ConfigError([explain(problem) for problem in error.errors(include_url=False)]) from None
    problems = [*reference_problems(config), *name_problems(config), *source_problems(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _with_bases(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`data` with one more model, ADAPTER-base, for every aligned adapter in a pair without
    `sft`."""
    models, pairs = data.get("models"), data.get("pairs")
    if not isinstance(models, dict) or not isinstance(pairs, dict):
        return dict(data)
    models, pairs = dict(models), dict(pairs)
    for name, pair in pairs.items():
        aligned = pair.get("aligned") if isinstance(pair, dict) and "sft" not in pair else None
        source = models.get(aligned) if isinstance(aligned, str) else None
        path = source.get("path") if isinstance(source, dict) else None
        if isinstance(path, str) and is_adapter(folder / path):
            try:
                models.setdefault(f"{aligned}-base", base_source(folder / path))
            except CheckpointError as error:
                raise ConfigError([f"pairs.{name}.sft: {error}"]) from None
            pairs[name] = pair | {"sft": f"{aligned}-base"}
    return {**data, "models": models, "pairs": pairs}
