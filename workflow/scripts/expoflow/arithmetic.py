"""theta2 = theta1 + alpha * (theta1 - theta0): the formula, and the one place where anything is rounded.

Paper, section 2.1, Eq. 1. All functions are pure: 1-d torch tensors of equal length in, `out` written.
Chunk borders and threads never change a bit, since every element is computed on its own.
"""

import math

import numpy as np
import torch

from expoflow.errors import PairError

TORCH = {
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64,
}  # fmt: skip
BITS = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


def tensor_of(view: memoryview, dtype: str) -> torch.Tensor:
    """A 1-d tensor over the bytes of `view`, not copied unless they are not aligned for `dtype`."""
    kind = TORCH[dtype]
    if len(view) == 0:
        return torch.empty(0, dtype=kind)
    raw = torch.frombuffer(view, dtype=torch.uint8)
    return (raw if raw.data_ptr() % kind.itemsize == 0 else raw.clone()).view(kind)


def computed_in(*tensors: torch.Tensor) -> torch.dtype:
    """float32 where all are bf16 or fp16 (it holds nearly all their differences exactly), else float64."""
    return torch.float32 if all(tensor.dtype.itemsize == 2 for tensor in tensors) else torch.float64


def theta2(
    out: torch.Tensor,
    theta1: torch.Tensor,
    theta0: torch.Tensor,
    alpha: float,
    *,
    compute: str = "float32",
    overflow: str = "error",
    name: str = "?",
) -> None:
    """Write theta1 + alpha * (theta1 - theta0) into `out`, rounded once to out's dtype.

    bf16, fp16, fp32 and fp64 in any mixture; computed in `computed_in` of the three, as
    fma(alpha, theta1 - theta0, theta1) or, the same function, fma(1 + alpha, theta1 - theta0, theta0);
    `compute="bfloat16"` instead rounds to bf16 after the difference, the product and the sum, as the
    authors' published checkpoints were made. alpha 0 copies theta1, alpha -1 copies theta0.

    Elements equal in both come out bit for bit as in theta1, NaN, Inf and -0.0 too (with bfloat16 compute,
    -0.0 becomes 0.0 as it did for the authors). Raises PairError, naming tensor `name`, where an element is
    NaN or Inf in one model only, or overflows out's dtype; overflow="clamp" stores the largest finite value.
    """
    if 1 + alpha == 1 and compute == "float32":
        alpha = 0.0
    if alpha in (0, -1):
        out.copy_(theta1 if alpha == 0 else theta0)
        exact = out.dtype == (theta1 if alpha == 0 else theta0).dtype
    else:
        exact = False
        if compute == "bfloat16":
            _three_roundings(out, theta1, theta0, alpha)
        else:
            _one_rounding(out, theta1, theta0, alpha)
    # The sum is by far the cheapest scan for NaN and Inf; one that overflows by itself only costs the check.
    if not exact and not math.isfinite(out.sum().item()):
        _settle(out, theta1, theta0, alpha, compute, overflow, name)


def _one_rounding(out: torch.Tensor, theta1: torch.Tensor, theta0: torch.Tensor, alpha: float) -> None:
    # torch.lerp(a, b, w) is fma(w, b - a, a) for |w| < 0.5 and fma(w - 1, b - a, b) otherwise. Of the two
    # orders the one is taken whose weight is negative or in [0.5, 1]: there the product of an equal pair is
    # -0.0, which leaves both 0.0 and -0.0 as they are.
    theta1_first = alpha > 0 or -1 < alpha < -0.5
    # Between -1 and 0 lerp's weight is near 1, and subtracting 1 from it in float32 costs bits of alpha.
    wide = torch.float64 if -1 < alpha < 0 else computed_in(out, theta1, theta0)
    # On bf16 and fp16 torch computes in float32 by itself, and rounds once.
    direct = out.dtype == theta1.dtype == theta0.dtype and (out.dtype == wide or wide == torch.float32)
    if not direct:
        theta1, theta0 = theta1.to(wide), theta0.to(wide)
    target = out if direct else None
    if theta1_first:
        result = torch.lerp(theta1, theta0, -alpha, out=target)
    else:
        result = torch.lerp(theta0, theta1, 1 + alpha, out=target)
    if not direct:
        out.copy_(result)


def _three_roundings(out: torch.Tensor, theta1: torch.Tensor, theta0: torch.Tensor, alpha: float) -> None:
    theta1, theta0 = theta1.bfloat16(), theta0.bfloat16()
    out.copy_(torch.sub(theta1, theta0).mul_(alpha).add_(theta1))


def _settle(
    out: torch.Tensor,
    theta1: torch.Tensor,
    theta0: torch.Tensor,
    alpha: float,
    compute: str,
    overflow: str,
    name: str,
) -> None:
    """Judge a chunk that has NaN or Inf: keep what both models share, refuse the rest."""
    same = (theta1 == theta0) | (theta1.isnan() & theta0.isnan())
    special = ~(theta1.isfinite() & theta0.isfinite())
    if alpha not in (0, -1) and (count := int((special & ~same).sum())):
        where = int((special & ~same).nonzero()[0])
        raise PairError(
            f"tensor {name}: {count} elements are NaN or Inf in one model only "
            f"(sft {theta0[where].item()}, aligned {theta1[where].item()}); one of the checkpoints is damaged"
        )
    if compute == "float32":
        # Once more in float64: a difference of huge but finite values may have overflowed float32.
        again = ~out.isfinite() & ~special
        one, zero = theta1[again].double(), theta0[again].double()
        out[again] = (one + alpha * (one - zero)).to(out.dtype)
    kept = theta0 if alpha == -1 else theta1
    if out.dtype == kept.dtype:  # bits, not values: a conversion might change a NaN's payload
        bits = BITS[out.dtype]
        out.view(bits)[special] = kept.view(bits)[special]
    else:
        out[special] = kept[special].to(out.dtype)
    over = ~out.isfinite() & ~special
    if count := int(over.sum()):
        if overflow == "error":
            raise PairError(
                f"tensor {name}: {count} elements overflow {str(out.dtype)[6:]} at alpha {alpha:g}; "
                "take a smaller alpha, dtype float32, or allow clamping (overflow: clamp)"
            )
        limit = torch.finfo(out.dtype).max
        wide = theta1[over].double() + alpha * (theta1[over].double() - theta0[over].double())
        out[over] = wide.clamp(-limit, limit).to(out.dtype)


def effect(
    theta2_: torch.Tensor, theta1: torch.Tensor, theta0: torch.Tensor
) -> tuple[int, float, float, float]:
    """(elements moved, <delta, delta>, <theta2 - theta1, delta>, <theta1, theta1>); NaN and Inf are 0."""
    wide = computed_in(theta2_, theta1, theta0)
    t1 = theta1.to(wide)
    delta, step = torch.sub(t1, theta0.to(wide)), torch.sub(theta2_.to(wide), t1)
    sums = torch.dot(delta, delta).item(), torch.dot(step, delta).item(), torch.dot(t1, t1).item()
    if not all(map(math.isfinite, sums)):
        t1, delta, step = (torch.nan_to_num(tensor.double(), 0.0, 0.0, 0.0) for tensor in (t1, delta, step))
        sums = torch.dot(delta, delta).item(), torch.dot(step, delta).item(), torch.dot(t1, t1).item()
    return int(np.count_nonzero(step.numpy() != 0)), *sums  # ten times faster than torch counts
