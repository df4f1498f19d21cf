"""theta2 = theta1 + alpha * (theta1 - theta0) on torch tensors: the rare cases, and errors.

The formula is Eq. 1 of the paper, section 2.1. Two modules compute it, because importing torch
costs more than the whole extrapolation of a small pair, and most pairs do not need it:

- `kernel` has the formula, with one rounding, over bytes as stored. A usual run needs only this.
  It reports that something is NaN or Inf, but not what that means.
- This module does the rest, for `elements`. If the kernel reports a chunk as not finite, it is
  computed once more by the kernel and judged: kept, clamped or refused. A parent whose values exist
  only in torch (a merged adapter) goes to the kernel as a tensor. Alphas 0 and -1 are conversions
  if the type changes. compute="bfloat16" uses torch's own three roundings.

All functions take contiguous 1-d tensors of equal length and write only `out`. Every element is
computed independently, so chunk borders, threads and devices never change a bit. On a device that
is not the CPU, `by_torch` does what the kernel does.
"""

from functools import cache

import torch

from expoflow.checkpoints.torch_types import BITS, KINDS, TORCH
from expoflow.errors import PairError
from expoflow.extrapolation import kernel


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

    All three tensors are on one device, which must be `exact` if it is not the CPU. They can be any
    mixture of bf16, fp16, fp32 and fp64, and are computed as in `kernel.fill`. `compute="bfloat16"`
    instead rounds to bf16 after the difference, the product and the sum, as for the authors'
    published checkpoints. alpha 0 copies theta1; alpha -1 copies theta0.

    Elements that are equal in both models come out bit for bit as in theta1, also NaN, Inf and
    -0.0. (With bfloat16 compute, -0.0 becomes 0.0, as it did for the authors.) Raises PairError
    with the tensor's `name` if an element is NaN or Inf in one model only, or if it overflows out's
    dtype; with overflow="clamp", an overflow becomes the largest finite value instead.
    """
    if 1 + alpha == 1 and compute == "float32":
        alpha = 0.0
    if alpha in (0, -1):
        parent = theta1 if alpha == 0 else theta0
        out.copy_(parent)
        whole = out.dtype == parent.dtype or bool(out.isfinite().all())
    elif compute == "bfloat16":
        _three_roundings(out, theta1, theta0, alpha)
        whole = bool(out.isfinite().all())
    else:
        whole = _one_rounding(out, theta1, theta0, alpha)
    if not whole:
        _settle(out, theta1, theta0, alpha, compute, overflow, name)


def _one_rounding(out: torch.Tensor, theta1: torch.Tensor, theta0: torch.Tensor, alpha: float) -> bool:
    """Compute with one rounding; return whether all elements are finite."""
    kinds = tuple(KINDS[each.dtype] for each in (out, theta1, theta0))
    if any(not each.is_contiguous() or len(each) != len(out) for each in (out, theta1, theta0)):
        raise ValueError("theta2 is for contiguous tensors of equal length")
    if out.device.type != "cpu":
        by_torch(out, theta1, theta0, alpha)
        return bool(out.isfinite().all())
    return kernel.fill([out.data_ptr()], theta1.data_ptr(), theta0.data_ptr(), kinds, len(out), (alpha,))


def by_torch(out: torch.Tensor, theta1: torch.Tensor, theta0: torch.Tensor, alpha: float) -> None:
    """Compute what `kernel.fill` does, on any `exact` device; NaN and Inf are not reported."""
    kinds = tuple(KINDS[each.dtype] for each in (out, theta1, theta0))
    theta1_first, weight, from_b = kernel.formula(kinds, alpha)
    wide = TORCH[kernel.precision(kinds, alpha)]
    a, b = (each.to(wide) for each in ((theta1, theta0) if theta1_first else (theta0, theta1)))
    total = torch.add(b if from_b else a, b - a, alpha=weight)
    out.copy_(total if out.dtype == torch.float64 else total.float())


@cache
def exact(device: str) -> bool:
    """Whether torch.add on this device computes the same bits as the kernel's fma.

    In float32 and float64, it must round once after product and sum, and must not flush small
    numbers to 0.
    """
    return all(
        _fuses(device, dtype) and _keeps_small(device, dtype) for dtype in (torch.float32, torch.float64)
    )


def _fuses(device: str, dtype: torch.dtype) -> bool:
    """Whether product and sum are rounded only once.

    With the type's epsilon e, (1 + e) (1 + k e) - (1 + (k + 1) e) is k e^2; it is 0 if the product
    is rounded first.
    """
    e = torch.finfo(dtype).eps
    k = torch.arange(1, 1 << 20, device=device, dtype=dtype)
    return torch.equal(torch.add(-(1 + (k + 1) * e), 1 + k * e, alpha=1 + e), k * e * e)


def _keeps_small(device: str, dtype: torch.dtype) -> bool:
    """Whether three times the smallest subnormal numbers gives the same result as on the CPU."""
    info = torch.finfo(dtype)
    small = torch.arange(1, 1 << 10, dtype=dtype) * info.tiny * info.eps
    there = small.to(device)
    return bool(small.all()) and torch.equal(torch.add(there, there, alpha=2).cpu(), 3 * small)


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
    """Judge a chunk that has NaN or Inf: keep what both models share and refuse the rest."""
    same = (theta1 == theta0) | (theta1.isnan() & theta0.isnan())
    special = ~(theta1.isfinite() & theta0.isfinite())
    if alpha not in (0, -1) and (count := int((special & ~same).sum())):
        where = int((special & ~same).nonzero()[0])
        raise PairError(
            f"tensor {name}: {count} elements are NaN or Inf in one model only "
            f"(sft {theta0[where].item()}, aligned {theta1[where].item()}); one of the checkpoints is damaged"
        )
    if compute == "float32":
        # Compute again in float64: a difference of huge finite values may have overflowed float32.
        again = ~out.isfinite() & ~special
        one, zero = theta1[again].double(), theta0[again].double()
        out[again] = (one + alpha * (one - zero)).to(out.dtype)
    kept = theta0 if alpha == -1 else theta1
    if out.dtype == kept.dtype:  # copy bits: a conversion might change a NaN's payload
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
