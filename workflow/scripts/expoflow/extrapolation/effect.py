"""Measure what an extrapolation does to the weights: effective alpha, moved share, step sizes.

Tensors of up to `WHOLE` elements are measured whole. In larger ones, one slice of `SLICE` elements
per `PERIOD` is measured. Its place varies between periods, so no row or head is favoured. Measuring
every element would double the cost of the extrapolation.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from expoflow.checkpoints import tensor_names
from expoflow.checkpoints.header import SIZES
from expoflow.extrapolation import elements, recipe
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import Pair, PairedTensor

# (measured, moved, <delta, delta>, <step, delta>, <theta1, theta1>)
Piece = tuple[int, int, float, float, float]
Effects = dict[float, tuple[recipe.Effect, dict[str, recipe.Effect]]]

WHOLE = 1 << 16
SLICE = 1 << 13
PERIOD = 1 << 20
GOLDEN = (math.sqrt(5) - 1) / 2


def slices(elements: int) -> Iterator[tuple[int, int]]:
    """Yield the element ranges [start, stop) to measure in a tensor with this many elements."""
    if elements <= WHOLE:
        yield 0, elements
        return
    for number, start in enumerate(range(0, elements, PERIOD)):
        room = min(PERIOD, elements - start)
        length = min(SLICE, room)
        offset = int((number * GOLDEN % 1) * (room - length))
        yield start + offset, start + offset + length


@dataclass
class Sums:
    """Sums over the elements of some tensors; samples are scaled to the whole tensor."""

    elements: int = 0
    measured: int = 0
    moved: float = 0.0
    delta2: float = 0.0
    step_delta: float = 0.0
    theta2: float = 0.0
    alpha_delta2: float = 0.0

    def add(self, elements: int, alpha: float, pieces: list[Piece]) -> None:
        """Add one tensor; a sample is scaled to the whole tensor."""
        measured = sum(piece[0] for piece in pieces)
        self.elements += elements
        self.measured += measured
        if not measured:
            return
        scale = elements / measured
        moved, delta2, step_delta, theta2 = (
            scale * math.fsum(column) for column in list(zip(*pieces, strict=True))[1:]
        )
        self.moved += moved
        self.delta2 += delta2
        self.step_delta += step_delta
        self.theta2 += theta2
        self.alpha_delta2 += alpha * alpha * delta2

    def effect(self) -> recipe.Effect:
        """Return the ratios; None if they are undefined."""
        theta = math.sqrt(self.theta2)
        return recipe.Effect(
            elements=self.elements,
            measured=self.measured,
            effective_alpha=self.step_delta / self.delta2 if self.delta2 else None,
            moved_share=self.moved / self.elements if self.measured else None,
            delta_norm_ratio=math.sqrt(self.delta2) / theta if theta else None,
            alpha_delta_norm_ratio=math.sqrt(self.alpha_delta2) / theta if theta else None,
        )


def summarise(
    pair: Pair, alphas: list[float], options: Options, pieces: Mapping[str, list[list[Piece]]]
) -> Effects:
    """Return the effect of each alpha, over all tensors and by kind of module.

    `pieces` has the results of `tensor_effect` by tensor name.
    """
    effects = {}
    for number, alpha in enumerate(alphas):
        overall, kinds = Sums(), {}
        for part in pair.parts:
            if part.shared:
                measured = pieces[part.theta1.name][number]
                for sums in (overall, kinds.setdefault(tensor_names.kind(part.name), Sums())):
                    sums.add(part.shared, options.alpha_of(part.name, alpha), measured)
        effects[alpha] = overall.effect(), {label: kinds[label].effect() for label in sorted(kinds)}
    return effects


def tensor_effect(pair: Pair, part: PairedTensor, alphas: list[float], options: Options) -> list[list[Piece]]:
    """Return one tensor's pieces for each alpha; only the sampled slices are read."""
    sums = [[] for _ in alphas]
    kind = options.stored_type(part.theta1)
    for start, stop in slices(part.shared):
        theta1 = elements.wide((pair.aligned, part.theta1), start, stop)
        theta0 = elements.wide((pair.sft, part.theta0), start, stop)
        outs = np.empty((len(alphas), (stop - start) * SIZES[kind]), np.uint8)
        elements.write_elements(outs, pair, part, start, stop, alphas, options)
        theta2s = (elements.widened(out, kind) for out in outs)
        for pieces, found in zip(sums, effects(theta2s, theta1, theta0), strict=True):
            pieces.append((stop - start, *found))
    return sums


def effects(
    theta2s: Iterable[np.ndarray], theta1: np.ndarray, theta0: np.ndarray
) -> Iterator[tuple[int, float, float, float]]:
    """Yield the measures of each theta2; sums are in float64, and NaN and Inf count as 0.

    They are (elements moved, <delta, delta>, <theta2 - theta1, delta>, <theta1, theta1>).
    """
    delta, base = _difference(theta1, theta0), _finite(theta1)
    delta2, base2 = _inner(delta, delta), _inner(base, base)
    for theta2 in theta2s:
        step = _difference(theta2, theta1)
        yield np.count_nonzero(step), delta2, _inner(step, delta), base2


def _inner(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum())  # not a dot product: its last bits depend on the number of cores


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return _finite(a - b)


def _finite(values: np.ndarray) -> np.ndarray:
    """Replace NaN and Inf by 0; return the array itself if its sum shows that it has none."""
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(values.sum()):
            return values
    return np.nan_to_num(values, nan=0, posinf=0, neginf=0)
