"""Datasets of lm-eval's tasks: one folder each, from the hub, the user, or the miniature's world.

The folders have the hub's own layout, which `hf download --repo-type dataset ORG/NAME --local-dir
DIR/ORG/NAME` makes. A benchmark's job reads nothing else, so it needs no network.
"""

import importlib.util
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from expoflow.errors import CheckpointError, DataError
from expoflow.files.hashing import sha256
from expoflow.files.records import Record
from expoflow.results import File

# Files of the hub's folders that the leaderboard's tasks read, without MMLU's large training set.
WANTED = ("README.md", "*.parquet", "*.jsonl", "*.json", "*.csv")
UNWANTED = ("auxiliary_train/*", "*.tar", ".cache/*", ".git/*")


class Dataset(Record):
    """A dataset's folder, its files, and its commit if it came from the hub."""

    folder: str
    revision: str | None = None
    files: dict[str, File]


class TaskData(Record):
    """results/benchmarks/{benchmark}.data.json: the datasets that the tasks read, by hub id."""

    datasets: dict[str, Dataset]
    provenance: dict[str, Any]

    def content(self) -> dict[str, dict[str, str]]:
        """The identity of the data: sha256s by dataset and file."""
        return {
            name: {file: each.sha256 for file, each in dataset.files.items()}
            for name, dataset in self.datasets.items()
        }


def definitions() -> Path:
    """The folder of lm-eval's own tasks. Raises DataError if lm-eval is not installed."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None:
        raise DataError("lm_eval is not installed; pip install 'expoflow[bench]'")
    return Path(spec.submodule_search_locations[0]) / "tasks"


def local_folder(data: Path, name: str) -> Path:
    """The folder of dataset ORG/NAME below `data`: ORG/NAME, or NAME alone."""
    for folder in (data / name, data / name.split("/")[-1]):
        if folder.is_dir():
            return folder
    raise DataError(
        f"{data / name}: no such folder; make it: hf download --repo-type dataset {name}"
        f" --local-dir {data / name}"
    )


def described(folder: Path, revision: str | None = None, wanted: tuple[str, ...] = WANTED) -> Dataset:
    """A dataset's folder and its files. Raises DataError if it has none."""
    files = {
        path.relative_to(folder).as_posix(): File(size=path.stat().st_size, sha256=sha256(path))
        for path in paths(folder, wanted)
    }
    if not files:
        raise DataError(f"{folder}: has no data; it needs the dataset's {', '.join(wanted[1:])} files")
    return Dataset(folder=str(folder), revision=revision, files=files)


def paths(folder: Path, wanted: tuple[str, ...] = WANTED) -> Iterator[Path]:
    """The files of a dataset's folder that are read."""
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in below.parts)
        if path.is_file() and not hidden and any(path.match(pattern) for pattern in wanted):
            yield path


def fetch(name: str, wanted: tuple[str, ...] = WANTED, revision: str | None = None) -> tuple[Path, str]:
    """Fetch a dataset; return its folder in the hub's cache, and its commit. Raises DataError."""
    from expoflow.hub import cache

    def chosen(_: Any, sizes: Any) -> list[str]:
        return [each for each in sizes if _wanted(each, wanted)]

    try:
        commit, folder, _ = cache.fetch(name, revision, kind="dataset", wanted=chosen)
    except CheckpointError as error:
        raise DataError(
            f"dataset '{name}': cannot be fetched from the hub ({error}); correct its name, or give a local copy"
        ) from None
    return folder, commit


def _wanted(name: str, wanted: tuple[str, ...]) -> bool:
    """Whether a task reads this file of a dataset."""
    return any(fnmatch(name, pattern) for pattern in wanted) and not any(
        fnmatch(name, pattern) for pattern in UNWANTED
    )
