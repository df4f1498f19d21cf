"""How many GPUs of this machine a task's model is spread over."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from expoflow.files.weights import WEIGHTS, weight_bytes
from expoflow.hosts.head import Head
from expoflow.hosts.task import Task
from expoflow.system.gpu_memory import gpus
from expoflow.system.gpus import allotted

FOLDERS = ("folder", "sft", "aligned")  # what a task's arguments call the folders of its models


def width(head: Head, task: Task) -> int:
    """As many as the config says of one of its models, else as hold the largest; 1 on cores, and all at most.

    In a SLURM job that several jobs share it is as many as this one was given of them.
    """
    if head.slots[0] is None:
        return 1
    if head.job:
        return min(allotted(), len(head.slots))
    folders = [os.path.abspath(folder) for folder in _folders(task.arguments)]
    said = [
        number
        for folder in folders
        for place, number in head.asked
        if folder == place or folder.startswith(place + os.sep)
    ]
    number = max(said) if said else gpus(max(map(_weights, folders), default=0), head.memory)
    return min(max(1, number), len(head.slots))


def _folders(arguments: Any) -> Iterator[str]:
    if isinstance(arguments, dict):
        for name, value in arguments.items():
            if name in FOLDERS and isinstance(value, str):
                yield value
            else:
                yield from _folders(value)


def _weights(folder: str) -> int:
    """Bytes of the weights in a folder."""
    sizes = {}
    with suppress(OSError):
        for path in Path(folder).iterdir():
            if path.suffix in WEIGHTS:
                sizes[path.name] = path.stat().st_size
    return weight_bytes(sizes)[0]
