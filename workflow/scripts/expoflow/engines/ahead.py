"""The next tensor is made while an engine takes the present one."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors_of

Named = tuple[str, Tensor]


def tensors_for(streamed: Streamed, device: str) -> Iterator[Named]:
    """The tensors of `streamed` for an engine on this kind of device: made ahead in pinned memory for "cuda", else as they are asked for."""
    gpu = device == "cuda"
    return ahead(tensors_of(streamed, pinned=True), pinned=True) if gpu else tensors_of(streamed)


def ahead(tensors: Iterable[Named], pinned: bool = False) -> Generator[Named]:
    """The same (name, tensor), one made ahead by a thread; if `pinned`, what lies elsewhere is copied into pinned memory there.

    An error in making one comes at its turn. Closing this waits for the one that is being made, and ends the thread.
    PyTorch gives the blocks of pinned tensors again, so that a few are in use, not one for each tensor.
    """
    waiting = iter(tensors)

    def make() -> Named | None:
        made = next(waiting, None)
        return (made[0], _pinned(made[1])) if made and pinned else made

    start = {}
    if pinned:  # a new thread would take the first GPU
        start = {"initializer": torch.cuda.set_device, "initargs": (torch.cuda.current_device(),)}
    with ThreadPoolExecutor(1, **start) as thread:
        following = thread.submit(make)
        while (made := following.result()) is not None:
            following = thread.submit(make)
            yield made


def _pinned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it, in pinned memory; the tensor as it is if there is none."""
    try:
        return tensor.pin_memory()
    except RuntimeError:
        return tensor
