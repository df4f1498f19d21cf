"""Compute the tensors of an extrapolated checkpoint while an engine loads them, without a file."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.errors import PairError
from expoflow.extrapolation import elements
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import Pair, PairedTensor, open_pair, unequal
from expoflow.extrapolation.streamed_checkpoint import Streamed

if TYPE_CHECKING:
    import torch


CHUNK = 1 << 20  # elements that a thread computes at once


def tensors(
    sft: Path, aligned: Path, alpha: float, options: Options | None = None
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Stream the tensors of a checkpoint that is never written, as `tensors_of` does."""
    return tensors_of(Streamed(sft=sft, aligned=aligned, alpha=alpha, options=options or Options()))


def tensors_of(streamed: Streamed, pinned: bool = False) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Stream (name, theta1 + alpha * (theta1 - theta0)) in theta1's order.

    Arithmetic and checks are those of `extrapolate`. This is for engines that load without
    extrapolated weights on disk. alpha 0 gives theta1's tensors, and -1 gives theta0's values under
    theta1's names; neither is copied if the type stays. One tensor is in memory at a time.
    """
    with opened(streamed, pinned) as stream:
        require_equal(stream.pair)
        for index, name in enumerate(stream.names):
            yield name, stream.tensor(index)


@contextmanager
def opened(streamed: Streamed, pinned: bool = False) -> Iterator["Stream"]:
    """Open a stream that computes each tensor on request.

    With `pinned`, tensors are made in pinned memory, for copies to a GPU. Opening reads no weights:
    the caller calls `require_equal`. Raises as `open_pair` does, and PairError for a pair that does
    not fit.
    """
    options = streamed.options
    pair = open_pair(streamed.sft, streamed.aligned, options.vocabulary)
    pair.require()
    parts = tuple(tuple(group) for _, group in groupby(pair.parts, key=lambda part: part.name))
    with ThreadPoolExecutor(options.workers()) as pool:
        yield Stream(pair, streamed.alpha, options, parts, pool, pinned)


@dataclass(frozen=True)
class Stream:
    """An opened pair, and the `parts` that each of its tensors is made of, in theta1's order."""

    pair: Pair
    alpha: float
    options: Options
    parts: tuple[tuple[PairedTensor, ...], ...]
    pool: Executor
    pinned: bool

    @property
    def names(self) -> list[str]:
        """Names of the tensors, in order."""
        return [parts[0].name for parts in self.parts]

    def form(self, index: int) -> tuple[tuple[int, ...], "torch.dtype"]:
        """Return shape and type of a tensor without reading it."""
        from expoflow.checkpoints.torch_types import TORCH

        whole = self.parts[index][0].whole or self.parts[index][0].theta1
        return whole.shape, TORCH[self.options.stored_type(whole)]

    def tensor(self, index: int) -> "torch.Tensor":
        """Return a tensor on the CPU; a parent's unchanged tensor is not copied.

        Raises PairError if it cannot be stored.
        """
        parts = self.parts[index]
        stored = None if parts[0].whole else _stored(self.pair, parts[0], self.alpha, self.options)
        return self._computed(index) if stored is None else stored

    def _computed(self, index: int) -> "torch.Tensor":
        import torch

        shape, dtype = self.form(index)
        out = blank(shape, dtype, self.pinned).view(-1)
        bytes_, size = out.view(torch.uint8).numpy(), out.element_size()
        jobs = []
        for part in self.parts[index]:
            for first in range(0, part.theta1.elements, CHUNK):
                last = min(first + CHUNK, part.theta1.elements)
                piece = bytes_[(part.first + first) * size : (part.first + last) * size]
                job = [piece], self.pair, part, first, last, [self.alpha], self.options
                jobs.append(self.pool.submit(elements.write_elements, *job))
        for job in jobs:
            job.result()
        return out.view(shape)


def blank(shape: tuple[int, ...], dtype: "torch.dtype", pinned: bool) -> "torch.Tensor":
    """Return an empty tensor on the CPU, in pinned memory if that is wanted and available."""
    import torch

    try:
        return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=pinned)
    except RuntimeError:
        if not pinned:
            raise
        return torch.empty(shape, dtype=dtype, device="cpu")


def _stored(pair: Pair, part: PairedTensor, alpha: float, options: Options) -> "torch.Tensor | None":
    """Return a parent's tensor without a copy if the result equals it; otherwise None."""
    theta1, theta0 = part.theta1, part.theta0
    alpha = options.alpha_of(part.name, alpha) if theta0 else 0
    parent, whole = (pair.aligned, theta1) if alpha == 0 or part.equal else (pair.sft, theta0)
    if (
        (alpha in (0, -1) or part.equal)
        and parent.stores(whole.name)
        and (whole.dtype, whole.elements) == (options.stored_type(theta1), theta1.elements)
    ):
        return parent.values(whole.name).view(theta1.shape)
    return None


def require_equal(pair: Pair) -> None:
    """Raise PairError with what differs although it must be equal.

    Integer and bool tensors must be equal in both models, and tied tensors must equal their source.
    """
    if problems := unequal(pair):
        raise PairError("\n".join(problems))
