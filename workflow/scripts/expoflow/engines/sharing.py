"""Processes that load one model together.

Each reads and computes some of the tensors and sends them to the others. They go in step: before
anything is sent, each process reports that it is ready. A process that fails reports that instead,
once, and all of them raise its error. So no process waits for one that has failed.
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

FAILED = -1  # in place of a step
CHUNK = 1 << 26  # bytes sent at a time, and used of GPU memory


class ToldError(CheckpointError):
    """An error that all processes know already, so it is not reported to them again."""


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of `size`, and its groups.

    `cpu` is the gloo group of all processes; `gpu` is their group if each has a GPU.
    """

    rank: int = 0
    size: int = 1
    cpu: Any = None
    gpu: Any = None

    def everyone(self, step: str, value: int = 0) -> list[int]:
        """Return the value that each process gives at this step.

        Raises ToldError in all of them if one has failed or is at another step.
        """
        if self.size == 1:
            return [value]
        told = self._gather([crc32(step.encode()), value])
        if len({at for at, _ in told}) > 1:
            raise ToldError(self._reason(step, failed=False))
        return [said for _, said in told]

    @contextmanager
    def together(self, reason: Callable[[Exception], str] = str) -> Iterator[None]:
        """Run the body so that it succeeds in all processes or raises in all.

        Processes that have not failed raise ToldError with the `reason` of one that has.
        """
        try:
            yield
            self.everyone("the end")
        except Exception as error:
            if self.size > 1 and not _told(error):
                self._gather([FAILED, 0])
                self._reason(reason(error), failed=True)
            raise

    def on_one_machine(self) -> bool:
        """Whether all processes run on one machine."""
        return len({*self.everyone("the machine", crc32(platform.node().encode()))}) == 1

    def send(self, tensor: Tensor, owner: int, room: Tensor | None) -> None:
        """Copy `owner`'s tensor into that of every other process.

        The tensors are contiguous, on the CPU, and have one type and shape. `room` is CHUNK bytes
        of GPU memory, or None.
        """
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
        """Return why they stop: the first failure's reason, or else the step of each process."""
        told: list[tuple[bool, str]] = [(False, "")] * self.size
        distributed.all_gather_object(told, (failed, said), group=self.cpu)
        places = ", ".join(f"worker {rank} at {step}" for rank, (_, step) in enumerate(told))
        return next(
            (text for failed, text in told if failed), f"the workers load different tensors: {places}"
        )


def shared(stream: Stream, ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """Yield the (name, tensor) of a stream on the CPU, each computed by one of the ranks.

    All ranks must call this inside `together`.
    """
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
    """Whether an error is a ToldError or was caused by one."""
    while error and not isinstance(error, ToldError):
        error = error.__cause__ or error.__context__
    return error is not None
