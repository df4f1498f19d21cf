"""How to extrapolate: what a user chooses besides the two models and alpha."""

import math
import os
import re
from dataclasses import dataclass
from typing import Literal

from expoflow.checkpoints.header import FLOATS, Tensor
from expoflow.errors import PairError


@dataclass(frozen=True)
class Options:
    """`compute`, `dtype`, `vocabulary`: as in the config.

    `overflow`: what to do with finite elements that do not fit the stored type. `alpha_for`: (regex,
    alpha) by tensor name, the last match wins. `threads`: by default one for each core, 8 at most.
    `hash_outputs`: put the sha256s of the new weight files into the recipe.
    """

    compute: Literal["float32", "bfloat16"] = "float32"
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    vocabulary: Literal["error", "shared_rows"] = "error"
    overflow: Literal["error", "clamp"] = "error"
    alpha_for: tuple[tuple[str, float], ...] = ()
    threads: int | None = None
    hash_outputs: bool = False

    def __post_init__(self):
        for regex, alpha in self.alpha_for:
            try:
                re.compile(regex)
            except re.error as error:
                raise PairError(f"alpha-for {regex}: no regular expression ({error}); correct it") from None
            if not math.isfinite(alpha):
                raise PairError(f"alpha-for {regex}: alpha {alpha} is not finite; give a number such as 0.3")

    def workers(self) -> int:
        """Number of threads that compute."""
        return self.threads or min(8, len(os.sched_getaffinity(0)))

    def alpha_of(self, name: str, alpha: float) -> float:
        """The alpha of tensor `name` where `alpha` is that of the others."""
        return next((value for regex, value in reversed(self.alpha_for) if re.search(regex, name)), alpha)

    def stored_type(self, theta1: Tensor) -> str:
        """Header type of the output: theta1's, or `dtype` for floating tensors."""
        return (
            FLOATS[self.dtype] if self.dtype != "keep" and theta1.dtype in FLOATS.values() else theta1.dtype
        )
