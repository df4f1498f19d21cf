"""Prepare the next tensor while an engine reads the current one."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors_of

Named = tuple[str, Tensor]


def tensors_for(streamed: Streamed, device: str) -> Iterator[Named]:
    """Stream the tensors of `streamed` to an engine on a device of this kind.

    For "cuda" each tensor is made ahead in pinned memory; otherwise it is made on request.
    """
    gpu = device == "cuda"
    return ahead(tensors_of(streamed, pinned=True), pinned=True) if gpu else tensors_of(streamed)


def ahead(tensors: Iterable[Named], pinned: bool = False) -> Generator[Named]:
    """Yield the same (name, tensor) pairs; a thread makes one ahead.

    If `pinned`, the thread copies tensors from ordinary memory into pinned memory. An error in
    making a tensor is raised when its turn comes. Closing the generator waits for the tensor that
    is being made and ends the thread. PyTorch reuses pinned blocks, so only a few are in use at a
    time.
    """
    waiting = iter(tensors)

    def make() -> Named | None:
        made = next(waiting, None)
        return (made[0], _pinned(made[1])) if made and pinned else made

    start = {}
    if pinned:  # a new thread would use the first GPU
        start = {"initializer": torch.cuda.set_device, "initargs": (torch.cuda.current_device(),)}
    with ThreadPoolExecutor(1, **start) as thread:
        following = thread.submit(make)
        while (made := following.result()) is not None:
            following = thread.submit(make)
            yield made


def _pinned(tensor: Tensor) -> Tensor:
    """Return the tensor in pinned memory, or unchanged if there is no pinned memory."""
    try:
        return tensor.pin_memory()
    except RuntimeError:
        return tensor
