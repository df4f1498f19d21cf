"""How to extrapolate: what a user chooses besides the two models and alpha."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from expoflow.checkpoints.header import FLOATS, Tensor
from expoflow.checkpoints.tensor_names import constant
from expoflow.config.stages import Compute, Dtype, ExtrapolateConfig, Vocabulary
from expoflow.errors import PairError

Overflow = Literal["error", "clamp"]
DEFAULTS = ExtrapolateConfig()


@dataclass(frozen=True)
class Options:
    """`compute`, `dtype`, `vocabulary`: as in the config.

    `overflow`: what to do with finite elements that do not fit the stored type. `alpha_for`: (regex,
    alpha) by tensor name, the last match wins. `threads`: by default one for each core, 8 at most.
    `hash_outputs`: put the sha256s of the new weight files into the recipe.
    """

    compute: Compute = DEFAULTS.compute
    dtype: Dtype = DEFAULTS.dtype
    vocabulary: Vocabulary = DEFAULTS.vocabulary
    overflow: Overflow = "error"
    alpha_for: tuple[tuple[str, float], ...] = ()
    threads: int | None = None
    hash_outputs: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any], **more: Any) -> Self:
        """Those of `values` that are options, and `more`: of a config, a recipe or a command's arguments, as a dict."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**known | more)

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
        """Header type of the output: theta1's, or `dtype` for floating tensors that are weights."""
        kept = self.dtype == "keep" or theta1.dtype not in FLOATS.values() or constant(theta1)
        return theta1.dtype if kept else FLOATS[self.dtype]

    def rules(self) -> dict[str, Any]:
        """The options that the new weights depend on, by name: a recipe has them too."""
        return {name: getattr(self, name) for name in RULES}


# Options that the new weights depend on.
RULES = tuple(field.name for field in fields(Options) if field.name not in ("threads", "hash_outputs"))
