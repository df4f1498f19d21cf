"""How many GPUs of this machine a task's model is spread over, and how many cores a task gets."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from expoflow.config.engine import BY_ITSELF, EngineConfig
from expoflow.files.weights import folder_bytes
from expoflow.hosts.head import Head
from expoflow.hosts.task import Task
from expoflow.system.gpu_memory import gpus
from expoflow.system.gpus import allotted
from expoflow.system.tensor_parallel import dimensions, fits

# From this many bytes of weights on, a model gets several cores. With a smaller one, such as the
# miniature, the last bits of sums depend on the number of threads, and more threads gain little.
LARGE = 100 * 10**6
FOLDERS = ("folder", "sft", "aligned")  # keys of a task's arguments that name its models' folders


def width(head: Head, task: Task) -> int:
    """Return the GPUs that the config sets for a model, or else that hold the largest; 1 on cores.

    In a SLURM job that several jobs share, it is the number that this job was given. If there are
    fewer GPUs, or a model cannot be spread over that number, it is the largest number over which
    all can.
    """
    if head.slots[0] is None:
        return 1
    models = [(os.path.abspath(folder), engine) for folder, engine in _models(task.arguments)]
    shapes = [dimensions(folder) for folder, _ in models]
    most = min(allotted() if head.job else _wanted(head, models), len(head.slots))
    return next((number for number in range(most, 1, -1) if all(fits(shape, number) for shape in shapes)), 1)


def _wanted(head: Head, models: Sequence[tuple[str, EngineConfig]]) -> int:
    said = [
        number
        for folder, _ in models
        for place, number in head.asked
        if folder == place or folder.startswith(place + os.sep)
    ]
    needed = (gpus(folder_bytes(folder), head.memory, engine) for folder, engine in models)
    return max([1, *(said or needed)])


def shares_cores(head: Head, task: Task) -> bool:
    """Return whether a task may use idle cores of others: it has a large model and no GPU."""
    sizes = (folder_bytes(os.path.abspath(folder)) for folder, _ in _models(task.arguments))
    return head.slots[0] is None and max(sizes, default=0) >= LARGE


def _models(arguments: Any, engine: EngineConfig = BY_ITSELF) -> Iterator[tuple[str, EngineConfig]]:
    """Yield the folders of models among a task's arguments, with their engine settings."""
    if isinstance(arguments, dict):
        if isinstance(own := arguments.get("engine"), dict):
            engine = EngineConfig.model_validate(own)
        for name, value in arguments.items():
            if name in FOLDERS and isinstance(value, str):
                yield value, engine
            else:
                yield from _models(value, engine)
