"""An extrapolated checkpoint that is never written: its tensors, computed while an engine loads them."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
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


def tensors_of(streamed: Streamed) -> Iterator[tuple[str, "torch.Tensor"]]:
    """The tensors of a checkpoint that is never written, as `tensors` streams them."""
    return tensors(streamed.sft, streamed.aligned, streamed.alpha, streamed.options)


def tensors(
    sft: Path, aligned: Path, alpha: float, options: Options | None = None
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Stream (name, theta1 + alpha * (theta1 - theta0)) in theta1's order: same arithmetic, same checks.

    For engines that load without extrapolated weights on disk. alpha 0 gives theta1's tensors and -1
    theta0's values under theta1's names, not copied where the type stays. One tensor is in memory at a time.
    """
    options = options or Options()
    pair = open_pair(sft, aligned, options.vocabulary)
    pair.require()
    require_equal(pair)
    with ThreadPoolExecutor(options.workers()) as pool:
        yield from _tensors(pair, alpha, options, pool)


def _tensors(
    pair: Pair, alpha: float, options: Options, pool: Executor
) -> Iterator[tuple[str, "torch.Tensor"]]:
    for name, pieces in groupby(pair.parts, key=lambda part: part.name):
        parts = list(pieces)
        stored = None if parts[0].whole else _stored(pair, parts[0], alpha, options)
        yield name, _computed(pair, parts, alpha, options, pool) if stored is None else stored


def _stored(pair: Pair, part: PairedTensor, alpha: float, options: Options) -> "torch.Tensor | None":
    """The tensor where the result is one of the parents' as it is, not copied; else None."""
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


def _computed(
    pair: Pair, parts: list[PairedTensor], alpha: float, options: Options, pool: Executor
) -> "torch.Tensor":
    """A tensor of the output, of all its parts."""
    import torch

    from expoflow.checkpoints.torch_types import TORCH

    whole = parts[0].whole or parts[0].theta1
    out = torch.empty(whole.elements, dtype=TORCH[options.stored_type(whole)])
    bytes_, size = out.view(torch.uint8).numpy(), out.element_size()
    jobs = []
    for part in parts:
        for first in range(0, part.theta1.elements, CHUNK):
            last = min(first + CHUNK, part.theta1.elements)
            piece = bytes_[(part.first + first) * size : (part.first + last) * size]
            jobs.append(
                pool.submit(elements.write_elements, [piece], pair, part, first, last, [alpha], options)
            )
    for job in jobs:
        job.result()
    return out.view(whole.shape)


def require_equal(pair: Pair) -> None:
    """Integer and bool tensors must be the same in both, and tied ones the same as what they are tied to.

    Raises PairError with what differs.
    """
    if problems := unequal(pair):
        raise PairError("\n".join(problems))
