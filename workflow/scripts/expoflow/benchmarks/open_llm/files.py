"""Data of lm-eval's tasks: one folder for each dataset, from the hub, from the user, or from the miniature's world.

The official datasets have folders of the hub's own layout: what `hf download --repo-type dataset ORG/NAME
--local-dir DIR/ORG/NAME` makes. A benchmark's job reads nothing else, so that it needs no network.
"""

import importlib.util
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from expoflow.benchmarks.open_llm.tasks import TASKS
from expoflow.config.base import MINIATURE
from expoflow.config.benchmarks import OpenLlmBenchmark
from expoflow.errors import CheckpointError, DataError
from expoflow.files.hashing import sha256
from expoflow.files.records import Record, provenance, write_json
from expoflow.results import File

# Of the hub's folders: what the tasks read, without MMLU's large training set.
WANTED = ("README.md", "*.parquet", "*.jsonl", "*.json", "*.csv")
UNWANTED = ("auxiliary_train/*", "*.tar", ".cache/*", ".git/*")


class Dataset(Record):
    """A dataset's folder, the commit where it came from the hub, and its files."""

    folder: str
    revision: str | None = None
    files: dict[str, File]


class TaskData(Record):
    """results/benchmarks/{benchmark}.data.json: the datasets that the benchmark's tasks read, by hub id."""

    datasets: dict[str, Dataset]
    provenance: dict[str, Any]

    def content(self) -> dict[str, dict[str, str]]:
        """What makes it other data: sha256s, by dataset and file."""
        return {
            name: {file: each.sha256 for file, each in dataset.files.items()}
            for name, dataset in self.datasets.items()
        }


def gather(config: OpenLlmBenchmark, seed: int, result: Path) -> None:
    """Find, fetch or make the datasets of the tasks, and write down which bytes they are.

    `seed` is the miniature's. Raises DataError for a folder that is not there, and where the hub gives none.
    """
    names = [TASKS[task].dataset for task in config.tasks]
    if config.data == MINIATURE:
        miniature = importlib.import_module("expoflow.miniature.open_llm")  # no dependency of others' data
        miniature.write(result.with_suffix(""), seed)
        found = {name: (local_folder(result.with_suffix(""), name), None) for name in names}
    elif config.data is not None:
        found = {name: (local_folder(Path(config.data), name), None) for name in names}
    else:
        found = {name: fetch(name) for name in names}
    described = {
        name: Dataset(folder=str(folder), revision=revision, files=_files(folder))
        for name, (folder, revision) in found.items()
    }
    write_json(result, TaskData(datasets=described, provenance=provenance("huggingface_hub")))


def problems(config: OpenLlmBenchmark) -> Iterator[str]:
    """Folders and packages that the benchmark needs and that are not there, each with its remedy."""
    for task in config.tasks if config.data not in (None, MINIATURE) else ():
        try:
            local_folder(Path(config.data), TASKS[task].dataset)
        except DataError as error:
            yield f"benchmarks.open_llm.data: {error}"
    if config.backend == "vllm" and importlib.util.find_spec("vllm") is None:
        yield "benchmarks.open_llm.backend: vllm is not installed; pip install 'expoflow[gpu]', or take hf"


def local_files(config: OpenLlmBenchmark) -> list[str]:
    """The files of a folder of the user's; none where the data come from elsewhere. Raises DataError."""
    if config.data in (None, MINIATURE):
        return []
    folders = [local_folder(Path(config.data), TASKS[task].dataset) for task in config.tasks]
    return [str(path) for folder in folders for path in _paths(folder)]


def local_folder(data: Path, name: str) -> Path:
    """The folder of dataset ORG/NAME below `data`: ORG/NAME, or NAME alone."""
    for folder in (data / name, data / name.split("/")[-1]):
        if folder.is_dir():
            return folder
    raise DataError(
        f"{data / name}: no such folder; make it: hf download --repo-type dataset {name}"
        f" --local-dir {data / name}"
    )


def _paths(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in below.parts)
        if path.is_file() and not hidden and any(path.match(pattern) for pattern in WANTED):
            yield path


def _files(folder: Path) -> dict[str, File]:
    files = {
        path.relative_to(folder).as_posix(): File(size=path.stat().st_size, sha256=sha256(path))
        for path in _paths(folder)
    }
    if not files:
        raise DataError(f"{folder}: has no data; it needs the dataset's {', '.join(WANTED[1:])} files")
    return files


def fetch(name: str) -> tuple[Path, str]:
    """A dataset's folder in the hub's cache, and its commit. Raises DataError."""
    from expoflow.hub import cache

    try:
        commit, folder, _ = cache.fetch(
            name, kind="dataset", wanted=lambda _, sizes: list(filter(_wanted, sizes))
        )
    except CheckpointError as error:
        raise DataError(
            f"dataset '{name}': the hub does not give it ({error}); correct its name, or give a local copy"
        ) from None
    return folder, commit


def _wanted(name: str) -> bool:
    """Whether a file of a dataset is read."""
    return any(fnmatch(name, pattern) for pattern in WANTED) and not any(
        fnmatch(name, pattern) for pattern in UNWANTED
    )
