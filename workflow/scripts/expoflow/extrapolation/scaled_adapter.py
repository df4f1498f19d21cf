"""theta2 as an adapter: theta1's adapter with B multiplied by 1 + alpha.

Tensors that the adapter stores whole are extrapolated.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.checkpoints.checkpoint import Checkpoint
from expoflow.errors import PairError
from expoflow.extrapolation.merged_adapter import Merged
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import Pair, PairedTensor

if TYPE_CHECKING:
    import torch


SCALED = ("lora_B.weight", "lora_B.bias", "lora_embedding_B")


@dataclass(frozen=True)
class Origin(Checkpoint):
    """The base as an adapter without effect: zeros for every B, otherwise its own tensors."""

    def fetch(self, name: str, first: int, last: int) -> None:
        """Read elements into memory, as for any checkpoint; zeros need no reading."""
        if name in self.tensors:
            super().fetch(name, first, last)

    def values(self, name: str, first: int = 0, last: int | None = None) -> "torch.Tensor":
        """Return elements [first, last) of a base tensor, or zeros, which need `last`."""
        if name in self.tensors:
            return super().values(name, first, last)
        import torch

        return torch.zeros(last - first, dtype=torch.bfloat16)


def scaled(pair: Pair, aligned: Path, options: Options) -> Pair:
    """Return the pair whose theta2 is the adapter: B + alpha * (B - 0), with A unchanged.

    Raises PairError if `pair.aligned` is not an adapter, or if `options` have another dtype or
    arithmetic than an adapter's files.
    """
    merged = pair.aligned
    if not isinstance(merged, Merged):
        raise PairError(f"aligned {aligned} is not an adapter; leave out --as adapter")
    if (options.dtype, options.compute) != ("keep", "float32"):
        raise PairError(
            "an adapter keeps its types and is computed in float32; leave out dtype and compute, or take --as model"
        )
    base = merged.base
    origin = Origin(base.folder, base.shards, base.config)
    names = dict(merged.origins)
    names |= {copy: names[merged.adapter.whole[target]] for copy, target in merged.adapter.copies.items()}
    parts = []
    for tensor in merged.adapter.file.tensors.values():
        if theta0 := base.tensors.get(names.get(tensor.name, "")):
            parts.append(PairedTensor(tensor, theta0, min(tensor.elements, theta0.elements)))
        elif tensor.name.endswith(SCALED):
            parts.append(PairedTensor(tensor, replace(tensor, name=f"zero {tensor.name}"), tensor.elements))
        else:
            parts.append(PairedTensor(tensor, None, 0))
    return Pair(origin, merged.adapter.file, pair.findings, tuple(parts))
