"""Processes that load one model together: each reads and computes a part of the tensors, and sends it to the others.

They go in step. Before anything is sent, each says that it is there and well; one that fails says so instead, once, and all of
them raise what it said. So none waits for one that has given up.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, distributed

from expoflow.engines.ahead import ahead
from expoflow.errors import CheckpointError
from expoflow.extrapolation.tensor_stream import Stream, blank

FAILED = -1  # stands for a step
CHUNK = 1 << 26  # bytes that are sent at a time, and taken of a GPU


class ToldError(CheckpointError):
    """What another process, or all of them together, say: nobody is to be told of it."""


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of `size`; the group `cpu` of all of them, by gloo, and `gpu` if each has a GPU."""

    rank: int = 0
    size: int = 1
    cpu: Any = None
    gpu: Any = None

    def everyone(self, step: str, value: int = 0) -> list[int]:
        """What each of them says at this step. Raises ToldError in all of them if one has failed, or is at another step."""
        if self.size == 1:
            return [value]
        told = self._gather([crc32(step.encode()), value])
        if len({at for at, _ in told}) > 1:
            raise ToldError(self._reason(step, failed=False))
        return [said for _, said in told]

    @contextmanager
    def together(self, reason: Callable[[Exception], str] = str) -> Iterator[None]:
        """What follows succeeds in all of them or raises in all: where it has not failed, ToldError with the `reason` of one that has."""
        try:
            yield
            self.everyone("the end")
        except Exception as error:
            if self.size > 1 and not _told(error):
                self._gather([FAILED, 0])
                self._reason(reason(error), failed=True)
            raise

    def on_one_machine(self) -> bool:
        """Whether all of them are."""
        return len({*self.everyone("the machine", crc32(platform.node().encode()))}) == 1

    def send(self, tensor: Tensor, owner: int, room: Tensor | None) -> None:
        """Write `owner`'s tensor into the others', all on the CPU, contiguous and alike; `room` are CHUNK bytes of a GPU."""
        for piece in tensor.view(-1).view(torch.uint8).split(CHUNK) if tensor.numel() else ():
            sent = piece if room is None else room[: len(piece)]
            if sent is not piece and owner == self.rank:
                sent.copy_(piece)
            distributed.broadcast(sent, group=self.gpu or self.cpu, group_src=owner)
            if sent is not piece and owner != self.rank:
                piece.copy_(sent)

    def _gather(self, said: list[int]) -> list[list[int]]:
        own = torch.tensor(said, device="cpu")
        told = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(told, own, group=self.cpu)
        return [each.tolist() for each in told]

    def _reason(self, said: str, failed: bool) -> str:
        """Why they do not go on: the word of the first that has failed, else at which steps they are."""
        told: list[tuple[bool, str]] = [(False, "")] * self.size
        distributed.all_gather_object(told, (failed, said), group=self.cpu)
        places = ", ".join(f"worker {rank} at {step}" for rank, (_, step) in enumerate(told))
        return next((text for failed, text in told if failed), f"the workers do not load the same: {places}")


def shared(stream: Stream, ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """The (name, tensor) of a stream on the CPU, each computed by one of the ranks, which all must ask for them `together`."""
    pinned = ranks.gpu is not None
    room = torch.empty(CHUNK, dtype=torch.uint8, device="cuda") if pinned else None
    names = stream.names
    own = ((names[index], stream.tensor(index)) for index in range(ranks.rank, len(names), ranks.size))
    with closing(ahead(own, pinned)) as made:
        for index, name in enumerate(names):
            owner = index % ranks.size
            tensor = next(made)[1] if owner == ranks.rank else blank(*stream.form(index), pinned)
            ranks.everyone(name)
            ranks.send(tensor, owner, room)
            yield name, tensor


def _told(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, what others have said."""
    while error and not isinstance(error, ToldError):
        error = error.__cause__ or error.__context__
    return error is not None
