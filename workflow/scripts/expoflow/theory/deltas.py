"""Sizes of deltas and angles between them, over all elements and by kind of module."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expoflow.checkpoints import manifests
from expoflow.checkpoints.tensor_names import kind
from expoflow.errors import PairError
from expoflow.extrapolation.preflight import Pair, PairedTensor, open_pair
from expoflow.files.records import write_csv
from expoflow.results import Manifest
from expoflow.system import progress
from expoflow.theory.result import Size, Smallness

ALL = "all"
CHUNK = 1 << 20  # elements read at a time
COSINE_COLUMNS = ("sft", "kind", "pair_a", "pair_b", "cosine", "norm_a", "norm_b")


@dataclass(frozen=True)
class Products:
    """Products of k pairs with one theta0: <delta_i, delta_j> (k, k) and <theta1, theta1> (k,)."""

    elements: int
    deltas: NDArray[np.float64]
    theta1: NDArray[np.float64]

    def __add__(self, other: "Products") -> "Products":
        return Products(
            self.elements + other.elements, self.deltas + other.deltas, self.theta1 + other.theta1
        )

    def norms(self) -> NDArray[np.float64]:
        """Return |delta| of every pair."""
        return np.sqrt(np.diag(self.deltas))


def opened(sft: Manifest, aligned: Manifest, vocabulary: str) -> Pair:
    """Open a pair's checkpoints and check them as before an extrapolation."""
    pair = open_pair(manifests.model_folder(sft), manifests.model_folder(aligned), vocabulary)
    pair.require()
    return pair


def products(pairs: Sequence[Pair]) -> dict[str, Products]:
    """Return the products of pairs that share theta0, over `all` elements and by kind of module.

    Elements that theta0 does not have are left out. A chunk of every checkpoint is read at a time.
    Raises PairError if the pairs' tensors differ.
    """
    found: dict[str, Products] = {}
    for part in _common(pairs):
        for start in range(0, part.shared, CHUNK):
            stop = min(start + CHUNK, part.shared)
            theta0 = pairs[0].sft.values(part.theta0.name, start, stop).double()
            theta1 = [pair.aligned.values(part.theta1.name, start, stop).double() for pair in pairs]
            deltas = [(each - theta0).numpy() for each in theta1]
            piece = Products(
                stop - start,
                np.array([[one @ other for other in deltas] for one in deltas]),
                np.array([(each @ each).item() for each in theta1]),
            )
            for name in (ALL, kind(part.name)):
                found[name] = found[name] + piece if name in found else piece
            progress.report(found[ALL].elements, sum(each.shared for each in pairs[0].parts), "elements")
    return found


def _common(pairs: Sequence[Pair]) -> list[PairedTensor]:
    """Return the tensors that the formula changes, in the first pair's order.

    They must be the same in all pairs.
    """
    shared = [{part.theta1.name: part.shared for part in pair.parts if part.shared} for pair in pairs]
    for pair, names in zip(pairs, shared, strict=True):
        if names != shared[0]:
            name = sorted(set(names.items()) ^ set(shared[0].items()))[0][0]
            raise PairError(
                f"{pair.aligned.folder} and {pairs[0].aligned.folder}: tensor {name} is in only one of them, or has"
                " another size; compare models of one architecture"
            )
    return [part for part in pairs[0].parts if part.shared]


def smallness(pair: Pair, alphas: Sequence[str]) -> Smallness:
    """Measure how small the pair's delta is, which the paper's Section 2.2 assumes."""
    sizes = {name: _size(each) for name, each in products([pair]).items()}
    overall = sizes.pop(ALL)
    ratios = {alpha: None if overall.ratio is None else abs(float(alpha)) * overall.ratio for alpha in alphas}
    return Smallness(overall=overall, kinds=dict(sorted(sizes.items())), alphas=ratios)


def _size(one: Products) -> Size:
    theta1, delta = math.sqrt(one.theta1[0]), math.sqrt(one.deltas[0, 0])
    return Size(elements=one.elements, theta1=theta1, delta=delta, ratio=delta / theta1 if theta1 else None)


def cosines(families: Mapping[str, Mapping[str, Pair]]) -> list[dict[str, Any]]:
    """Return the rows of cosines.csv: one for every two pairs of a family, and kind of module.

    Pairs of a family share an SFT model; `families` has its name as key. The cosine is None if a
    delta is 0.
    """
    rows = []
    for sft, pairs in families.items():
        names = list(pairs)
        for label, found in sorted(products([*pairs.values()]).items(), key=lambda each: each[0] != ALL):
            norms = found.norms()
            for j in range(len(names)):
                for i in range(j):
                    size = norms[i] * norms[j]
                    rows.append(
                        {
                            "sft": sft,
                            "kind": label,
                            "pair_a": names[i],
                            "pair_b": names[j],
                            "cosine": float(found.deltas[i, j] / size) if size else None,
                            "norm_a": float(norms[i]),
                            "norm_b": float(norms[j]),
                        }
                    )
    return rows


def write_cosines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write cosines.csv."""
    write_csv(path, map(dict, rows), COSINE_COLUMNS)
