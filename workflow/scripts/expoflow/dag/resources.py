"""The resources that a job asks a cluster for, by the size of its models and its attempt.

They are never among a rule's params. The rules and `expoflow plan` both use `Needs`, so they agree.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from expoflow.config import Config
from expoflow.config.base import MINIATURE
from expoflow.config.sources import ModelConfig
from expoflow.dag.launcher import read_launcher
from expoflow.errors import DataError
from expoflow.files.records import read_json
from expoflow.files.weights import folder_bytes, weight_bytes
from expoflow.results import Manifest
from expoflow.system.gpu_memory import gpus
from expoflow.system.gpus import gpus as visible
from expoflow.system.installed import accelerate_config

GB = 10**9
DISK = 200 * 10**6  # bytes per second that a busy shared file system reads or writes
TRAINING_CPUS = 8  # per GPU of a training: the number of threads of DeepSpeed's Adam for the CPU


class Needs:
    """The needs of a config's models. `known` gives the bytes of a model's weights, or 0 if they
    are not known yet."""

    def __init__(self, config: Config, known: Callable[[str], int]):
        self._config, self._known = config, known
        self._bases: dict[str, set[str]] = {}
        for pair in config.pairs.values():
            self._bases.setdefault(pair.aligned, set()).add(pair.sft)

    def miniature(self, model: str) -> bool:
        """Whether the model belongs to the built-in world: only such models start from random
        weights."""
        *_, first = self._line(model)
        return self._config.models[first].source == "train"

    def weights(self, model: str) -> int:
        """Bytes of a model's weights. For an untrained model: those of the model that training
        starts from.

        An aligned model counts at least as much as its SFT model, because it may be an adapter on
        it.
        """
        counted = {model} | self._bases.get(model, set())
        return max(next(filter(None, map(self._known, self._line(each))), 0) for each in counted)

    def gpus(self, model: str) -> int:
        """Number of GPUs that the model runs on.

        The config states it for the model, or for a model that it is trained from. Otherwise its
        size decides.
        """
        if (said := self.said_gpus(model)) is not None:
            return said
        if self.miniature(model):
            return 0
        if model in self._narrow:
            return 1
        return gpus(self.weights(model), engine=self._config.engine_of(model))

    @cached_property
    def _narrow(self) -> set[str]:
        """The models that only transformers runs, which uses a single GPU."""
        config = self._config
        engines: dict[str, set[str]] = (
            {config.reward_model: {config.score.engine}} if config.reward_model else {}
        )
        for name, pair in config.pairs.items():
            harnesses = config.section(name, "benchmarks").harnesses().values()
            run_by = {config.section(name, "generate").engine, *(each.backend for each in harnesses)}
            for model in (pair.sft, pair.aligned):
                engines.setdefault(model, set()).update(run_by)
        return {model for model, each in engines.items() if each <= {"transformers", "hf"}}

    def said_gpus(self, model: str) -> int | None:
        """The number of GPUs that the config states for a model, or for a model that it is trained
        from."""
        said = (self._config.models[each].resources.gpus for each in self._line(model))
        return next((each for each in said if each is not None), None)

    def training_gpus(self, model: str) -> int:
        """Number of GPUs that a model is trained on: one per process of its launcher; none for the
        miniature."""
        return 0 if self.miniature(model) else training_gpus(self._config.models[model].train)

    def training_memory(self, model: str, attempt: int) -> int:
        """Megabytes of main memory for the training of a model."""
        recipe, trained = (
            self._config.models[model].train,
            0 if self.miniature(model) else self.weights(model),
        )
        return _grown(8000 + _copies(recipe) * trained / 10**6, attempt)

    def training_minutes(self, model: str, attempt: int) -> int:
        """Minutes for a training: a day for a real model, since its duration depends on its
        data."""
        return _grown(60 if self.miniature(model) else 1440, attempt)

    def training_threads(self, model: str, cores: int | None) -> int:
        """Threads per process of a training on a machine with `cores`, by default the cores of this
        process.

        It is 1 without GPUs, because results depend on it there.
        """
        processes = self.training_gpus(model)
        if not processes or not visible():
            return 1
        return max(1, min(TRAINING_CPUS, (cores or len(os.sched_getaffinity(0))) // processes))

    def training_disk(self, model: str) -> int:
        """The maximum number of bytes on disk that a training needs while it runs.

        It keeps the last checkpoint of each of its stages, and one more while that is being
        written. Low-rank matrices are too small to count.
        """
        recipe = self._config.models[model].train
        if self.miniature(model) or getattr(recipe, "lora", None):
            return 0
        stages = getattr(recipe, "iterations", 1)
        checkpoint = CHECKPOINT[read_launcher(accelerate_config(recipe)).deepspeed]
        return (stages * (checkpoint + 1) + checkpoint) * self.weights(model)

    def _line(self, model: str) -> Iterator[str]:
        """The model, the model it is trained from, and so on."""
        name: str | None = model
        while name:
            yield name
            name = self._config.models[name].base


# Size of a training's checkpoint in 16-bit copies of the weights: float32 weights and Adam's two
# moments are six copies. DeepSpeed adds the weights in 16 bits.
CHECKPOINT = {False: 6, True: 7}


def training_gpus(recipe: Any) -> int:
    """Number of processes with a GPU each that `accelerate launch` starts; 0 on a CPU and for the
    miniature."""
    launcher = read_launcher(accelerate_config(recipe))
    return 0 if recipe.data == MINIATURE or launcher.cpu else launcher.processes


def _copies(recipe: Any) -> float:
    """Main memory of a training in 16-bit copies of the weights: 14 if DeepSpeed keeps optimiser
    states there."""
    if not read_launcher(accelerate_config(recipe)).offloads or getattr(recipe, "lora", None):
        return 1.5 * max(1, training_gpus(recipe))
    return 14


def size(model: ModelConfig, manifest: str) -> int:
    """Bytes of a model's weights, by its manifest, or else in the user's folder; 0 if they are not
    known yet.

    .bin files next to safetensors are copies of them and are not counted.
    """
    with suppress(OSError, DataError):
        return _listed(manifest, os.stat(manifest).st_mtime_ns)
    return _in_folder(model.path) if model.path else 0


_in_folder = cache(folder_bytes)


@cache
def _listed(manifest: str, changed: int) -> int:
    """`size` by a manifest, which is read once for all jobs unless it changes."""
    files = read_json(Path(manifest), Manifest).files
    return weight_bytes({name: file.size for name, file in files.items()})[0]


def threads(weights: int) -> int:
    """Useful number of threads for reading and writing weights: 1, plus one per 2 GB, up to 8."""
    return 1 + min(7, weights // (2 * GB))


def engine_memory(weights: int, attempt: int) -> int:
    """Megabytes of main memory for a job that loads a model, even if it then moves it to a GPU."""
    return _grown(8000 + 1.5 * weights / 10**6, attempt)


def engine_minutes(weights: int, attempt: int) -> int:
    """Minutes for a job that generates or scores. Work finished before a time-out is not
    repeated."""
    return _grown(60 + 4 * weights / GB, attempt)


def file_memory(weights: int, attempt: int) -> int:
    """Megabytes for a job that reads and writes weights piece by piece."""
    return _grown(4000 + 0.1 * weights / 10**6, attempt)


def file_minutes(weights: int, attempt: int) -> int:
    """Minutes for a job that reads two models, and writes and hashes a third."""
    return _grown(15 + 4 * weights / DISK / 60, attempt)


def _grown(amount: float, attempt: int) -> int:
    """`amount`, plus half of it for every attempt after the first."""
    return math.ceil(amount * (1 + (attempt - 1) / 2))
