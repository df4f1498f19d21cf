"""Train a model by its recipe, into a checkpoint folder that appears whole or not at all."""

import fcntl
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expoflow import paths
from expoflow.checkpoints import manifests
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checkpoints.pickles import converted
from expoflow.config.sources import ModelConfig
from expoflow.errors import CheckpointError
from expoflow.files.atomic import write_text
from expoflow.files.folder import appearing
from expoflow.files.records import write_json
from expoflow.results import Manifest
from expoflow.system.lean import without_sklearn

PACKAGES = ("torch", "transformers", "accelerate", "trl")  # recorded for TRL models


@dataclass(frozen=True)
class Launch:
    """How TRL is run; no result depends on this."""

    accelerate: Path
    threads: int = 1


def train(
    model: str,
    source: ModelConfig,
    needed: Mapping[str, Manifest],
    seed: int,
    manifest: Path,
    *,
    data: Manifest | None = None,
    usages: Mapping[str, Mapping[str, Any]] | None = None,
    launch: Launch | None = None,
    code: str = "",
    progress: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train `model` into the folder of its name beside `manifest`, which is written last.

    `needed` has the manifests of the models that the recipe names (`base`, `reward_model`);
    `usages` says how they are used. `seed` is that of the miniature's world, and `data` is the
    dataset's manifest. `launch` and `code`, the digest of the training code, are for TRL. Returns
    the trainer's metrics.
    """
    folder = paths.weights(manifest)
    folders = {role: manifests.model_folder(each) for role, each in needed.items()}
    for role, each in folders.items():
        scores = role == "reward_model"
        _require_loadable(each, scores, (usages or {}).get(role, {}), as_named=source.train.recipe == "rlhf")
    if source.train.trainer == "loop":
        with appearing(folder, replace=True) as unfinished:
            metrics = _loop(source, folders, seed, unfinished, progress)
            _require_loadable(unfinished, source.train.SCORES)
        write_json(manifest, manifests.manifest(model, source, folder))
        return metrics
    hashes = [each.sha256s() for each in (*needed.values(), *([data] if data else []))]
    key = json.dumps([json.loads(source.result()), seed, hashes, usages or {}, code], sort_keys=True)
    with resumable(manifest.with_name(f".{model}.training"), key) as work:
        trained, metrics = _trl(source, folders, seed, data, usages or {}, work, launch, progress)
        with appearing(folder, replace=True) as unfinished:
            shutil.copytree(trained, unfinished, copy_function=_link, dirs_exist_ok=True)
            _require_loadable(unfinished, source.train.SCORES, (usages or {}).get("base", {}))
        write_json(manifest, manifests.manifest(model, source, folder, *PACKAGES))
    return metrics


def _require_loadable(
    folder: Path, scores: bool, usage: Mapping[str, Any] | None = None, as_named: bool = False
) -> None:
    """Raise CheckpointError if trainers and engines would initialise a weight at random.

    `scores` marks a reward model. With `as_named`, its head must have transformers' name, as its
    trainer expects.
    """
    from expoflow.checkpoints import loading, reward_heads

    tensors = open_checkpoint(converted(folder)).tensors
    if scores and as_named and (head := next(iter(reward_heads.renamed(tensors)), None)):
        raise CheckpointError(
            f"{folder}: its head is called {head}, where trainers look for {reward_heads.HEAD}.weight; rename that tensor"
        )
    role = "reward model" if scores else "language model"
    loading.require_loadable(folder, tensors, role, (usage or {}).get("trust_remote_code", False))


def _loop(
    source: ModelConfig, folders: Mapping[str, Path], seed: int, out: Path, progress: Callable[[str], None]
) -> dict[str, float]:
    """Train by the miniature's own loop."""
    without_sklearn()
    recipe = source.train
    options = recipe.settings() | {"world": seed, "seed": seed if recipe.seed is None else recipe.seed}
    trainer = importlib.import_module(f"expoflow.training.loop.{recipe.recipe}")
    return trainer.train(out, progress=progress, **options, **folders)


def _trl(
    source: ModelConfig,
    folders: Mapping[str, Path],
    seed: int,
    data: Manifest | None,
    usages: Mapping[str, Mapping[str, Any]],
    work: Path,
    launch: Launch,
    progress: Callable[[str], None],
) -> tuple[Path, dict[str, float]]:
    """Train by TRL; return the result's folder in `work`, and the metrics."""
    trl = importlib.import_module("expoflow.training.trl.recipe")
    recipe = source.train
    if data is None:
        miniature = importlib.import_module("expoflow.training.trl.miniature")
        rows = miniature.Miniature(recipe, seed, seed if recipe.seed is None else recipe.seed)
    else:
        rows = trl.Files(recipe, manifests.dataset_files(data))
    training = trl.Training(
        source=source,
        data=rows,
        folders=folders,
        usages=usages,
        work=work,
        accelerate=launch.accelerate,
        threads=launch.threads,
        progress=progress,
    )
    return training.run()


@contextmanager
def resumable(work: Path, key: str) -> Iterator[Path]:
    """A folder for this process only, which outlives a failure and is removed after success.

    Contents with another `key` are removed. If another process still uses the folder, as after a
    run's head was killed, this one waits for it.
    """
    lock = os.open(work.with_name(f"{work.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"waiting for another process that trains in {work}, perhaps of a run that was killed",
                flush=True,
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        note = work / "key.json"
        if not note.is_file() or note.read_text(encoding="utf-8") != key:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            write_text(note, key)
        yield work
        shutil.rmtree(work)
    finally:
        os.close(lock)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
