"""Check on a sample of weights whether the aligned model was trained from this SFT model.

Alignment moves weights a little: |delta| / |theta1| is between 0.001 and 0.05, and the correlation
of theta0 and theta1 is above 0.99. Two models that were trained separately have a correlation of 0
and a ratio of about 1.4. So do two different layers of one model, as in a merge that took layers
from other places. theta1 + alpha * (theta1 - theta0) is then noise.

Only matrices count, and their means are subtracted: norms, biases and constants are alike in all
models. If vocabularies differ in size, the common rows count. At most `TENSORS` tensors are
sampled, in `SLICES` slices of `LENGTH` elements each.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from expoflow.checkpoints import tensor_names
from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.checkpoints.findings import Finding
from expoflow.checkpoints.header import Tensor
from expoflow.extrapolation import elements
from expoflow.extrapolation.effect import GOLDEN
from expoflow.extrapolation.preflight import Pair, PairedTensor, unequal

TENSORS, SLICES, LENGTH = 2048, 8, 512
UNLIKE = 0.2  # a lower correlation means unrelated models
FAR = 0.2  # a larger |delta| / |theta1| is more than alignment does
ENOUGH = 1000  # fewer elements give no meaningful correlation
LAYER = re.compile(r"(.*?)\.(\d+)\.")  # a tensor's stack of layers, and its layer
NOT_TRAINED = "this aligned model does not look trained from this SFT model"
REMEDY = (
    "give the model that alignment began with as sft; if the pair is intended, set its unrelated: true (expoflow"
    " extrapolate: --unrelated)"
)


@dataclass(frozen=True)
class Sums:
    """Sums over some tensors' elements; samples are scaled to whole tensors.

    Means are subtracted in `covariance` and the variances.
    """

    measured: int = 0
    covariance: float = 0.0
    variance1: float = 0.0
    variance0: float = 0.0
    delta2: float = 0.0
    theta2: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(one + two for one, two in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def correlation(self) -> float | None:
        """Correlation of theta0 and theta1; None if the sample is too small or one is constant."""
        size = math.sqrt(self.variance1 * self.variance0)
        return self.covariance / size if size and self.measured >= ENOUGH else None

    @property
    def ratio(self) -> float | None:
        """|delta| / |theta1|; None if theta1 is 0."""
        return math.sqrt(self.delta2 / self.theta2) if self.theta2 else None

    def figures(self) -> dict[str, Any]:
        """The figures in preflight.json."""
        return {"elements": self.measured, "correlation": self.correlation, "delta_norm_ratio": self.ratio}

    def words(self) -> str:
        """The figures in words, for an error."""
        correlation = round(self.correlation, 2) + 0.0  # no -0.0
        return f"correlation {correlation:.2f}, |delta| / |theta1| {self.ratio:.2g}"


@dataclass(frozen=True)
class Likeness:
    """The result of a sample: sums by kind of module, and by layer (stack, number)."""

    kinds: dict[str, Sums]
    layers: dict[tuple[str, int], Sums]
    broken: tuple[str, ...]

    @property
    def whole(self) -> Sums:
        """Sums over all tensors."""
        return sum(self.kinds.values(), Sums())

    def halves(self) -> dict[str, Sums]:
        """Return the sums of the first and the second half of every stack of layers."""
        counts: dict[str, int] = defaultdict(int)
        for stack, number in self.layers:
            counts[stack] = max(counts[stack], number + 1)
        found: dict[str, Sums] = defaultdict(Sums)
        for (stack, number), sums in self.layers.items():
            found[f"{stack}, {'second' if 2 * number >= counts[stack] else 'first'} half"] += sums
        return dict(found)

    def figures(self) -> dict[str, Any]:
        """The figures in preflight.json."""
        parts = {"kinds": self.kinds, "layers": self.halves()}
        return self.whole.figures() | {
            name: {label: sums.figures() for label, sums in part.items()} for name, part in parts.items()
        }

    def findings(self, unrelated: bool) -> Iterator[Finding]:
        """Yield what speaks against the pair; unlike models are an error unless `unrelated`."""
        yield from (Finding("error", "weights", text) for text in self.broken)
        level = "warning" if unrelated else "error"
        unlike = {place: sums for place, sums in self.layers.items() if _unlike(sums)}
        outside = {
            kind: self.kinds[kind] for kind in ("embeddings", "head") if _unlike(self.kinds.get(kind, Sums()))
        }
        if unlike or outside:
            sums = sum((unlike or outside).values(), Sums())
            where = _named(unlike, self.layers) if unlike else " and ".join(f"the {kind}" for kind in outside)
            yield Finding(
                level, "likeness", f"{NOT_TRAINED}: no likeness in {where} ({sums.words()}); {REMEDY}"
            )
            return
        ratios = {name: sums.ratio for name, sums in {**self.kinds, **self.halves()}.items() if sums.ratio}
        where = max(ratios, key=ratios.get, default="")
        if where and ratios[where] > FAR:
            text = f"{NOT_TRAINED}: |delta| / |theta1| is {self.whole.ratio:.2g}, and {ratios[where]:.2g} in {where} (alignment:"
            text += " below 0.05); check that sft is the model that alignment began with"
            yield Finding("warning", "likeness", text)
        elif self.whole.measured and not self.whole.delta2:
            text = (
                f"none of {self.whole.measured} sampled elements differs; check that aligned is another model"
            )
            yield Finding("warning", "likeness", text)


def looked_at(pair: Pair, unrelated: bool) -> tuple[Pair, Likeness]:
    """Add the findings of a sample of the weights to the pair; see `Likeness.findings`."""
    likeness = measure(pair)
    differing = (Finding("error", "unequal", text) for text in unequal(pair))
    return replace(pair, findings=(*pair.findings, *differing, *likeness.findings(unrelated))), likeness


def measure(pair: Pair) -> Likeness:
    """Measure a sample of all matrices that both models have."""
    parts = [part for part in pair.parts if _counts(part)]
    kinds: dict[str, Sums] = defaultdict(Sums)
    layers: dict[tuple[str, int], Sums] = defaultdict(Sums)
    broken = []
    with pair.sft.scattered(), pair.aligned.scattered():
        for part in parts[:: -(-len(parts) // TENSORS) or 1]:
            theta1, theta0 = (
                _sample(*each, part.shared) for each in ((pair.aligned, part.theta1), (pair.sft, part.theta0))
            )
            name, finite = part.name, np.isfinite(theta1) & np.isfinite(theta0)
            if not finite.all():
                broken += _broken(name, theta1, theta0)
                theta1, theta0 = theta1[finite], theta0[finite]
            sums = _sums(theta1, theta0, part.shared)
            kinds[tensor_names.kind(name)] += sums
            if found := LAYER.match(name):
                layers[found[1], int(found[2])] += sums
    return Likeness(dict(kinds), dict(sorted(layers.items())), tuple(broken))


def _counts(part: PairedTensor) -> bool:
    matrix = part.shared > 0 and len((part.whole or part.theta1).shape) > 1
    return matrix and tensor_names.kind(part.name) != "norms"


def _sample(checkpoint: Checkpoint, tensor: Tensor, count: int) -> np.ndarray:
    """Return the first `count` elements, or `SLICES` slices of them, as float64."""
    source = checkpoint, tensor
    if count <= SLICES * LENGTH:
        return elements.wide(source, 0, count)
    starts = _starts(count)
    bytes_ = elements.stored(source, 0, count)
    if bytes_ is None:
        return np.concatenate([elements.wide(source, start, start + LENGTH) for start in starts])
    rows = bytes_.view(f"V{len(bytes_) // count}")
    return elements.widened(
        rows[np.add.outer(starts, np.arange(LENGTH)).ravel()].view(np.uint8), tensor.dtype
    )


@cache
def _starts(count: int) -> tuple[int, ...]:
    """Return where the slices begin: one in each of `SLICES` equal parts, at varying places."""
    room = count // SLICES
    return tuple(number * room + int((number * GOLDEN % 1) * (room - LENGTH)) for number in range(SLICES))


def _sums(theta1: np.ndarray, theta0: np.ndarray, count: int) -> Sums:
    """Return the sums of one tensor with `count` elements, from its sample."""
    if not len(theta1):
        return Sums()
    delta, scale = theta1 - theta0, count / len(theta1)
    one, zero = theta1 - theta1.mean(), theta0 - theta0.mean()
    products = ((one, zero), (one, one), (zero, zero), (delta, delta), (theta1, theta1))
    return Sums(len(theta1), *(scale * float((a * b).sum()) for a, b in products))


def _broken(name: str, theta1: np.ndarray, theta0: np.ndarray) -> Iterator[str]:
    """Yield errors for NaN in both, and for unequal NaN or Inf; equal Inf may be a mask."""
    nan = np.isnan(theta1) & np.isnan(theta0)
    if nan.any():
        yield f"tensor {name}: elements are NaN in both models, so neither can answer; save or download them again"
    elif (theta1 != theta0)[~np.isfinite(theta1) | ~np.isfinite(theta0)].any():
        yield f"tensor {name}: elements are NaN or Inf in one model only; one of the checkpoints is damaged"


def _unlike(sums: Sums) -> bool:
    return sums.correlation is not None and sums.correlation < UNLIKE


def _named(unlike: Iterable[tuple[str, int]], layers: Iterable[tuple[str, int]]) -> str:
    """Return the layers in words: `layers 8 to 15 of 16 (model.layers)`, or `any layer`."""
    if len(set(unlike)) == len(set(layers)):
        return "any layer"
    stack = next(iter(unlike))[0]
    numbers = sorted(number for each, number in unlike if each == stack)
    others = sum(each == stack for each, _ in layers)
    if numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1:
        return f"layers {numbers[0]} to {numbers[-1]} of {others} ({stack})"
    return f"layers {', '.join(map(str, numbers))} of {others} ({stack})"
