"""An extrapolated checkpoint that is never written: its tensors, computed while an engine loads them."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.errors import PairError
from expoflow.extrapolation import elements
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import Pair, copy_problems, open_pair
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
    import torch

    from expoflow.checkpoints.torch_types import TORCH

    for part in pair.parts:
        theta1, theta0 = part.theta1, part.theta0
        name, kind = theta1.name, options.stored_type(theta1)
        alpha_here = options.alpha_of(name, alpha) if theta0 else 0
        parent, whole = (pair.aligned, theta1) if alpha_here == 0 or part.equal else (pair.sft, theta0)
        if (
            (alpha_here in (0, -1) or part.equal)
            and parent.stores(whole.name)
            and (whole.dtype, whole.elements) == (kind, theta1.elements)
        ):
            yield name, parent.values(whole.name).view(theta1.shape)
            continue
        out = torch.empty(theta1.elements, dtype=TORCH[kind])
        bytes_, size = out.view(torch.uint8).numpy(), out.element_size()
        jobs = []
        for first in range(0, theta1.elements, CHUNK):
            last = min(first + CHUNK, theta1.elements)
            piece = bytes_[first * size : last * size]
            jobs.append(
                pool.submit(elements.write_elements, [piece], pair, part, first, last, [alpha], options)
            )
        for job in jobs:
            job.result()
        yield name, out.view(theta1.shape)


def require_equal(pair: Pair) -> None:
    """Integer and bool tensors must be the same in both, and tied ones the same as what they are tied to.

    Raises PairError with what differs.
    """
    if problems := copy_problems(pair):
        raise PairError("\n".join(problems))
    for part in pair.parts:
        if part.equal and pair.sft.view(part.theta0.name) != pair.aligned.view(part.theta1.name):
            raise PairError(
                f"tensor {part.theta1.name} ({part.theta1.dtype}) differs between sft and aligned: integers "
                "cannot be extrapolated; give two checkpoints of one model"
            )
