"""Manifests: the files of a model or a dataset, and its complete folder when a job needs it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.errors import CheckpointError, DataError
from expoflow.files.hashing import sha256
from expoflow.files.records import provenance
from expoflow.paths import RESULTS
from expoflow.results import File, Manifest
from expoflow.system import progress

if TYPE_CHECKING:
    from expoflow.config.sources import DataConfig, ModelConfig


MODEL_FILES = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py")


def manifest(model: str, source: "ModelConfig", folder: Path, *packages: str) -> Manifest:
    """Describe the checkpoint in `folder`, made by `packages`: the size and sha256 of every
    file."""
    sizes = {path: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    done, total, files = 0, sum(sizes.values()), {}
    for path, size in sizes.items():
        progress.report(done, total, "bytes", path.name)
        files[path.name] = File(size=size, sha256=sha256(path))
        done += size
    return Manifest(
        model=model,
        source=json.loads(source.canonical()),
        folder=str(folder),
        files=files,
        provenance=provenance(*packages),
    )


def dataset(name: str, source: "DataConfig", commit: str | None, files: Sequence[Path]) -> Manifest:
    """Describe a dataset's files, in their order."""
    folder = os.path.commonpath([path.parent for path in files])
    return Manifest(
        model=name,
        source=json.loads(source.canonical()),
        revision=commit,
        folder=folder,
        files={
            os.path.relpath(path, folder): File(size=path.stat().st_size, sha256=sha256(path))
            for path in files
        },
        provenance=provenance(),
    )


def dataset_files(manifest: Manifest) -> list[Path]:
    """A dataset's files in their order. Raises DataError if one is missing or has changed in
    size."""
    paths = [Path(manifest.folder) / name for name in manifest.files]
    for path, file in zip(paths, manifest.files.values(), strict=True):
        if not path.is_file() or path.stat().st_size != file.size:
            remedy = f"run: snakemake --forcerun {RESULTS.dataset(manifest.model)}"
            raise DataError(f"dataset '{manifest.model}': {path} is gone or has changed; {remedy}")
    return paths


def model_folder(manifest: Manifest) -> Path:
    """The folder of a model's files. Raises CheckpointError if one is missing or has changed in
    size.

    If files of a hub model are missing from the cache, they are downloaded again.
    """
    folder = Path(manifest.folder)
    if "hub" in manifest.source and any(
        not (folder / name).is_file() or (folder / name).stat().st_size != file.size
        for name, file in manifest.files.items()
    ):
        return _restored(manifest)
    remedy = f"run: snakemake --forcerun {RESULTS.manifest(manifest.model)}"
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"model '{manifest.model}': {path} is gone; {remedy}")
        if path.stat().st_size != file.size:
            raise CheckpointError(
                f"model '{manifest.model}': {path} has {path.stat().st_size} bytes instead of {file.size}; {remedy}"
            )
    return folder


def _restored(manifest: Manifest) -> Path:
    """Download a hub model again in a separate process, since this one may belong to a job, which
    is offline."""
    offline = os.environ.get("EXPOFLOW_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
    run = subprocess.run(
        [sys.executable, "-m", "expoflow.hub.download"],
        input=manifest.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": offline},
    )
    if run.returncode:
        reason = run.stdout.strip() or "the log says why"
        raise CheckpointError(f"model '{manifest.model}': is gone and cannot be downloaded again: {reason}")
    return Path(run.stdout.strip())


def checkpoint_files(folder: str) -> list[str]:
    """The files whose change makes a checkpoint folder another model: weights, config, tokenizer,
    code."""
    return sorted(str(path) for path in Path(folder).glob("*") if path.suffix in MODEL_FILES)
