"""The inputs of the tasks in the section `lm_eval`: their definitions and datasets.

Datasets come from the hub or from the user.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from expoflow.benchmarks.lm_eval.data import (
    Dataset,
    TaskData,
    definitions,
    described,
    fetch,
    local_folder,
    paths,
)
from expoflow.benchmarks.lm_eval.definitions import Definitions, Figure, Leaf
from expoflow.config.harness import LmEvalBenchmark
from expoflow.errors import DataError
from expoflow.files.hashing import sha256
from expoflow.files.records import Record, provenance, write_json
from expoflow.results import File

# Readers of files that a definition names itself.
READERS = frozenset({"json", "csv", "parquet", "text", "arrow"})
PACKED = ("gz", "zst", "xz", "zip")
WANTED = ("README.md", "*.parquet", "*.jsonl", "*.json", "*.csv", "*.tsv", "*.txt", "*.arrow")
WANTED += tuple(f"*.{suffix}" for suffix in PACKED)
NLTK = "tokenizers/punkt_tab"


class Asking(Record):
    """A task in the request to lm-eval: its name, and the settings that override its definition."""

    task: str
    settings: dict[str, object]


class Plan(TaskData):
    """results/benchmarks/lm_eval.*.json: tasks, their figures, and the hashes of tasks and data."""

    tasks: list[Asking]
    told: list[Figure]
    higher: dict[str, bool | None]
    """Whether more is better, by FIGURE.METRIC; None if it is not known."""
    folders: list[str]
    """The folders of the definitions."""
    definitions: dict[str, File]
    """The user's own definitions, and the code beside them."""


def gather(config: LmEvalBenchmark, seed: int, result: Path) -> None:
    """Find or fetch the datasets of the tasks; write down the request and all hashes.

    Raises DataError.
    """
    known, figures = _resolved(config)
    datasets: dict[str, Dataset] = {}
    tasks = []
    for leaf in known.leaves.values():
        if problem := leaf.problem():
            raise DataError(f"lm-eval's task '{leaf.name}' {problem}; leave it out of tasks")
        settings = dict(leaf.overrides)
        if leaf.dataset in READERS:
            datasets[leaf.name] = _named(leaf)
        else:
            if leaf.dataset not in datasets:
                datasets[leaf.dataset] = _dataset(config, leaf)
            settings["dataset_path"] = str(Path(datasets[leaf.dataset].folder).absolute())
        tasks.append(Asking(task=leaf.name, settings=settings))
    own, library = _own(config), definitions()
    folders = {leaf.path.parent for leaf in known.leaves.values()}
    plan = Plan(
        datasets=datasets,
        tasks=tasks,
        told=figures,
        higher=_higher(known, figures),
        # a later entry replaces an earlier one of the same name
        folders=[str(f) for f in sorted(folders, key=lambda each: (not each.is_relative_to(library), each))],
        definitions={str(path): File(size=path.stat().st_size, sha256=sha256(path)) for path in own},
        provenance=provenance("huggingface_hub", "lm_eval"),
    )
    write_json(result, plan)


def _higher(known: Definitions, figures: list[Figure]) -> dict[str, bool | None]:
    """`Plan.higher`; a group's metric has None also if its parts do not agree."""
    found: dict[str, bool | None] = {}
    for figure in figures:
        said = [known.leaves[part].higher() for part in figure.parts]
        for metric in (
            [figure.metric] if figure.metric else dict.fromkeys(name for each in said for name in each)
        ):
            ways = {each.get(metric) for each in said}
            found[f"{figure.name}.{metric}"] = ways.pop() if len(ways) == 1 else None
    return found


def problems(config: LmEvalBenchmark) -> Iterator[str]:
    """Problems of tasks, packages and folders, each with its remedy."""
    where = "benchmarks.lm_eval"
    if config.backend == "vllm" and importlib.util.find_spec("vllm") is None:
        yield f"{where}.backend: vllm is not installed; pip install 'expoflow[gpu]', or take hf"
    if importlib.util.find_spec("lm_eval") is None:
        return  # which is reported already
    if config.include is not None and not Path(config.include).is_dir():
        yield f"{where}.include: no folder '{config.include}'; correct the path"
        return
    known = Definitions(_include(config))
    for name in config.tasks:
        try:
            known.figures(name)
        except DataError as error:
            yield f"{where}.tasks: {error}"
    for leaf in known.leaves.values():
        yield from (f"{where}{each}" for each in _leaf_problems(config, leaf))


def local_files(config: LmEvalBenchmark) -> list[str]:
    """The user's own files that the tasks read: definitions and data. Raises DataError."""
    if config.include is None and config.data is None:
        return []
    found = [str(path) for path in _own(config)]
    known, _ = _resolved(config)
    for leaf in known.leaves.values():
        if leaf.dataset in READERS:
            found += leaf.data_files
        elif folder := _local(config, leaf):
            found += [str(path) for path in paths(folder, WANTED)]
    return list(dict.fromkeys(found))


def _resolved(config: LmEvalBenchmark) -> tuple[Definitions, list[Figure]]:
    known = Definitions(_include(config))
    return known, [figure for name in config.tasks for figure in known.figures(name)]


def _include(config: LmEvalBenchmark) -> Path | None:
    return Path(config.include).absolute() if config.include is not None else None


def _own(config: LmEvalBenchmark) -> list[Path]:
    """The user's definitions, and the code beside them."""
    folder = Path(config.include) if config.include is not None else None
    found = folder.rglob("*") if folder else ()
    return sorted(path for path in found if path.suffix in (".yaml", ".py"))


def _leaf_problems(config: LmEvalBenchmark, leaf: Leaf) -> Iterator[str]:
    if problem := leaf.problem():
        yield f".tasks: lm-eval's task '{leaf.name}' {problem}; leave it out of tasks"
        return
    if packages := leaf.packages():
        yield f".tasks: '{leaf.name}' needs {', '.join(packages)}; pip install {' '.join(packages)}"
    elif leaf.uses("nltk") and not _nltk_data():
        yield f".tasks: '{leaf.name}' needs nltk's {NLTK}, because jobs download nothing; python -m nltk.downloader punkt_tab"
    try:
        if leaf.dataset in READERS:
            _named(leaf)
        else:
            _local(config, leaf)
    except DataError as error:
        yield f"{'.data' if config.data else '.tasks'}: {error}"


def _nltk_data() -> bool:
    """Whether nltk will find the data of its sentence tokenizer in the folders that it searches."""
    own = (Path(sys.prefix) / name for name in ("nltk_data", "share/nltk_data", "lib/nltk_data"))
    given = map(Path, filter(None, os.environ.get("NLTK_DATA", "").split(os.pathsep)))
    shared = (
        Path(root) / "nltk_data" for root in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")
    )
    places = (*given, Path.home() / "nltk_data", *own, *shared)
    return any((place / NLTK).exists() or (place / f"{NLTK}.zip").exists() for place in places)


def _named(leaf: Leaf) -> Dataset:
    """The files that a definition names, relative to the Snakemake directory. Raises DataError."""
    files = {}
    for name in leaf.data_files:
        if not Path(name).is_file():
            raise DataError(f"task '{leaf.name}': no file '{name}'; correct its data_files")
        files[name] = File(size=Path(name).stat().st_size, sha256=sha256(Path(name)))
    if not files:
        raise DataError(
            f"task '{leaf.name}': reads {leaf.dataset} files and names none; give dataset_kwargs: data_files"
        )
    return Dataset(folder=".", files=files)


def _local(config: LmEvalBenchmark, leaf: Leaf) -> Path | None:
    """The local folder of a task's dataset; None if it comes from the hub. Raises DataError."""
    if Path(leaf.dataset).is_dir():
        return Path(leaf.dataset)
    return local_folder(Path(config.data), leaf.dataset) if config.data is not None else None


def _dataset(config: LmEvalBenchmark, leaf: Leaf) -> Dataset:
    if folder := _local(config, leaf):
        return described(folder, wanted=WANTED)
    pinned = (leaf.settings.get("dataset_kwargs") or {}).get("revision")
    return described(*fetch(leaf.dataset, WANTED, pinned), wanted=WANTED)
