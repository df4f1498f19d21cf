"""Options of an extrapolation, besides the two models and alpha."""

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
    """How to extrapolate.

    `compute`, `dtype` and `vocabulary` are as in the config. `overflow` says what to do with finite
    elements that do not fit into the stored type. `alpha_for` is a list of (regex, alpha) for
    tensor names; the last match wins. `threads` defaults to one per core, 8 at most. `hash_outputs`
    puts the sha256s of the new weight files into the recipe.
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
        """Return options from `values` and `more`; other keys of `values` are ignored.

        `values` is a config, a recipe or a command's arguments, as a dict.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**known | more)

    def __post_init__(self):
        for regex, alpha in self.alpha_for:
            try:
                re.compile(regex)
            except re.error as error:
                raise PairError(
                    f"alpha-for {regex}: not a valid regular expression ({error}); correct it"
                ) from None
            if not math.isfinite(alpha):
                raise PairError(f"alpha-for {regex}: alpha {alpha} is not finite; give a number such as 0.3")

    def workers(self) -> int:
        """Return the number of threads that compute."""
        return self.threads or min(8, len(os.sched_getaffinity(0)))

    def alpha_of(self, name: str, alpha: float) -> float:
        """Return the alpha of tensor `name`; `alpha` is the one without a match in `alpha_for`."""
        return next((value for regex, value in reversed(self.alpha_for) if re.search(regex, name)), alpha)

    def stored_type(self, theta1: Tensor) -> str:
        """Return the output's header type: theta1's, or `dtype` for floating-point weights."""
        kept = self.dtype == "keep" or theta1.dtype not in FLOATS.values() or constant(theta1)
        return theta1.dtype if kept else FLOATS[self.dtype]

    def rules(self) -> dict[str, Any]:
        """Return by name the options that the new weights depend on; a recipe has them too."""
        return {name: getattr(self, name) for name in RULES}


# Options that the new weights depend on.
RULES = tuple(field.name for field in fields(Options) if field.name not in ("threads", "hash_outputs"))
