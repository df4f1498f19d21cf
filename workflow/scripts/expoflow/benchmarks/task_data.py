"""Data of lm-eval's tasks: one folder for each dataset, from the hub, from the user, or from the miniature's world.

The official datasets have folders of the hub's own layout: what `hf download --repo-type dataset ORG/NAME
--local-dir DIR/ORG/NAME` makes. A benchmark's job reads nothing else, so that it needs no network.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from expoflow.errors import DataError
from expoflow.miniature import language, world
from expoflow.records import File, Record, provenance, write_json, write_text
from expoflow.store import sha256

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


def prepare(datasets: Iterable[str], data: str | None, seed: int, result: Path) -> None:
    """Find, fetch or make the folders of `datasets` (hub ids), and write down which bytes they are.

    `data` is a folder of the user's that has them, `miniature`, or None for the hub's.
    Raises DataError for a folder that is not there, and where the hub does not give one.
    """
    if data == "miniature":
        folder = result.with_suffix("")
        write_miniature(folder, seed)
        found = {name: (local_folder(folder, name), None) for name in datasets}
    elif data is not None:
        found = {name: (local_folder(Path(data), name), None) for name in datasets}
    else:
        found = {name: _fetched(name) for name in datasets}
    described = {
        name: Dataset(folder=str(folder), revision=revision, files=_files(folder))
        for name, (folder, revision) in found.items()
    }
    write_json(result, TaskData(datasets=described, provenance=provenance("huggingface_hub")))


def local_folder(data: Path, name: str) -> Path:
    """The folder of dataset ORG/NAME below `data`: ORG/NAME, or NAME alone."""
    for folder in (data / name, data / name.split("/")[-1]):
        if folder.is_dir():
            return folder
    raise DataError(
        f"{data / name}: no such folder; make it: hf download --repo-type dataset {name}"
        f" --local-dir {data / name}"
    )


def local_files(data: str, datasets: Iterable[str]) -> list[str]:
    """The files below the folder `data` whose change makes it other data."""
    folders = [local_folder(Path(data), name) for name in datasets]
    return [str(path) for folder in folders for path in _paths(folder)]


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


def _fetched(name: str) -> tuple[Path, str]:
    """The dataset's folder in the hub's cache, and its commit."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, repo_type="dataset", allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED)
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"dataset '{name}': the hub does not give it ({reason}); set benchmarks.open_llm.data to a folder"
            " that has it"
        ) from error
    return Path(folder), Path(folder).name


def write_miniature(folder: Path, seed: int) -> None:
    """Write the data of miniature_choice and miniature_answer: the world's test questions that have one answer."""
    rng = world.generator(seed, "tasks")
    choices, answers = [], []
    for prompt in world.prompts("test", seed):
        meta = prompt.meta
        if meta["task"] == "list":
            continue
        question, right = prompt.messages[0].content, meta["core"]
        options = [right, meta["rumour"]]
        others = [core for core in _cores(meta) if core not in options]
        options += [others[i] for i in rng.permutation(len(others))[:2]]
        options = [options[i] for i in rng.permutation(len(options))]
        choices.append({"question": question, "choices": options, "label": options.index(right)})
        answers.append({"question": question, "answer": right})
    for name, rows in (("choice", choices), ("answer", answers)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(folder / "miniature" / name / "test.jsonl", text)


def _cores(meta: dict[str, Any]) -> list[str]:
    """All answers that the question could have."""
    if meta["task"] == "opposite":
        return [language.opposite_core(word) for word in language.OPPOSITE]
    return [language.fact_core(meta["subject"], value) for value in language.VALUES[meta["topic"]]]
