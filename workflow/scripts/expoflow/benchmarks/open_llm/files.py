"""Data of the tasks: from the hub, from the user, or from the miniature's world."""

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from expoflow.benchmarks.lm_eval.data import TaskData, described, fetch, local_folder, paths
from expoflow.benchmarks.open_llm.tasks import TASKS
from expoflow.config.base import MINIATURE
from expoflow.config.harness import OpenLlmBenchmark
from expoflow.errors import DataError
from expoflow.files.records import provenance, write_json


def gather(config: OpenLlmBenchmark, seed: int, result: Path) -> None:
    """Find, fetch or make the datasets of the tasks, and write down their hashes.

    `seed` is the seed of the miniature. Raises DataError if a folder is missing or the hub does not
    have a dataset.
    """
    names = [TASKS[task].dataset for task in config.tasks]
    if config.data == MINIATURE:
        miniature = importlib.import_module("expoflow.miniature.open_llm")  # not needed for other data
        miniature.write(result.with_suffix(""), seed)
        found = {name: (local_folder(result.with_suffix(""), name), None) for name in names}
    elif config.data is not None:
        found = {name: (local_folder(Path(config.data), name), None) for name in names}
    else:
        found = {name: fetch(name) for name in names}
    datasets = {name: described(folder, revision) for name, (folder, revision) in found.items()}
    write_json(result, TaskData(datasets=datasets, provenance=provenance("huggingface_hub")))


def problems(config: OpenLlmBenchmark) -> Iterator[str]:
    """Missing folders and packages that the benchmark needs, each with its remedy."""
    for task in config.tasks if config.data not in (None, MINIATURE) else ():
        try:
            local_folder(Path(config.data), TASKS[task].dataset)
        except DataError as error:
            yield f"benchmarks.open_llm.data: {error}"
    if config.backend == "vllm" and importlib.util.find_spec("vllm") is None:
        yield "benchmarks.open_llm.backend: vllm is not installed; pip install 'expoflow[gpu]', or take hf"


def local_files(config: OpenLlmBenchmark) -> list[str]:
    """The files in the user's folder; none if the data come from elsewhere. Raises DataError."""
    if config.data in (None, MINIATURE):
        return []
    folders = [local_folder(Path(config.data), TASKS[task].dataset) for task in config.tasks]
    return [str(path) for folder in folders for path in paths(folder)]
