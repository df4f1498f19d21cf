"""Elements of an extrapolated tensor as bytes.

torch is imported only if the kernel cannot handle a case.
"""

from collections.abc import Sequence

import numpy as np

from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.checkpoints.header import SIZES, Tensor
from expoflow.extrapolation import kernel
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import Pair, PairedTensor

NUMPY = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


def write_elements(
    outs: Sequence[np.ndarray],
    pair: Pair,
    part: PairedTensor,
    first: int,
    last: int,
    alphas: Sequence[float],
    options: Options,
) -> None:
    """Write elements [first, last) of an output tensor, for each alpha into its array in `outs`.

    `outs` are bytes and need no alignment. `alphas` are those of the run. Integers, and elements
    that theta0 lacks, are copied from theta1. Raises as `arithmetic.theta2` does.
    """
    kind = options.stored_type(part.theta1)
    shared = max(first, min(part.shared, last))
    border = (shared - first) * SIZES[kind]
    theta1 = pair.aligned, part.theta1
    if first < shared:
        theta0 = pair.sft, part.theta0
        steps = [options.alpha_of(part.name, alpha) for alpha in alphas]
        _extrapolate([out[:border] for out in outs], kind, theta1, theta0, first, shared, steps, options)
    if shared < last:
        none = [0.0] * len(alphas)
        _extrapolate([out[border:] for out in outs], kind, theta1, theta1, shared, last, none, options)


def need_torch(pair: Pair, options: Options) -> bool:
    """Whether extrapolating the pair needs more than the loop of `kernel`, NaN and Inf aside."""
    return options.compute != "float32" or not all(
        pair.aligned.stores(part.theta1.name) and pair.sft.stores(part.theta0.name)
        for part in pair.parts
        if part.shared
    )


def wide(source: tuple[Checkpoint, Tensor], first: int, last: int) -> np.ndarray:
    """Return elements [first, last) in float64."""
    checkpoint, tensor = source
    if (bytes_ := stored(source, first, last)) is None:
        return checkpoint.values(tensor.name, first, last).double().numpy()
    return widened(bytes_, tensor.dtype)


def widened(bytes_: np.ndarray, kind: str) -> np.ndarray:
    """Convert bytes of a header's floating-point type to float64."""
    if kind == "BF16":
        return (bytes_.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bytes_.view(NUMPY[kind]).astype(np.float64)


def stored(source: tuple[Checkpoint, Tensor], first: int, last: int) -> np.ndarray | None:
    """Return the bytes of elements [first, last) without a copy; None if they must be computed."""
    checkpoint, tensor = source
    if not checkpoint.stores(tensor.name):
        return None
    size = SIZES[tensor.dtype]
    return np.frombuffer(checkpoint.view(tensor.name), np.uint8)[first * size : last * size]


def _extrapolate(
    outs: Sequence[np.ndarray],
    kind: str,
    theta1: tuple[Checkpoint, Tensor],
    theta0: tuple[Checkpoint, Tensor],
    first: int,
    last: int,
    alphas: Sequence[float],
    options: Options,
) -> None:
    one, zero = stored(theta1, first, last), stored(theta0, first, last)
    parents = {0: (theta1, one), -1: (theta0, zero)}
    common = one is not None and zero is not None and options.compute == "float32"
    computed, other = [], []
    for out, alpha in zip(outs, alphas, strict=True):
        (_, tensor), bytes_ = parents.get(alpha, (theta1, None))
        if bytes_ is not None and tensor.dtype == kind:
            out[:] = bytes_
        elif common and alpha not in parents and 1 + alpha != 1:
            computed.append((out, alpha))
        else:
            other.append((out, alpha))
    if computed:
        places, steps = zip(*((_place(out), alpha) for out, alpha in computed), strict=True)
        kinds = kind, theta1[1].dtype, theta0[1].dtype
        if not kernel.fill(places, _place(one), _place(zero), kinds, last - first, steps):
            other += computed
    if not other:
        return
    # all other cases, and the errors
    import torch

    from expoflow.checkpoints.torch_types import TORCH
    from expoflow.extrapolation.arithmetic import theta2

    name = theta1[1].name
    ours, theirs = (each.values(tensor.name, first, last) for each, tensor in (theta1, theta0))
    result = torch.empty(last - first, dtype=TORCH[kind])
    for out, alpha in other:
        theta2(result, ours, theirs, alpha, compute=options.compute, overflow=options.overflow, name=name)
        out[:] = result.view(torch.uint8).numpy()


def _place(bytes_: np.ndarray) -> int:
    return bytes_.__array_interface__["data"][0]
