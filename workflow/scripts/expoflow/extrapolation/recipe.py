"""recipe.json: what an extrapolated checkpoint is made of, and what the extrapolation did to the weights."""

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field

from expoflow.config.stages import Compute, Dtype, Vocabulary
from expoflow.extrapolation.options import RULES, Overflow
from expoflow.files.records import Record

if TYPE_CHECKING:
    from expoflow.checkpoints.adapter import Adapter


# Raised when the arithmetic changes in any bit, so that caches keyed by content_digest() start anew.
ARITHMETIC = 2


class AdapterInput(Record):
    """What a LoRA adapter is: its base's name, ranks and scalings in use, LoRA modules, tensors stored whole."""

    base: str | None = None
    ranks: list[int]
    scalings: list[float]
    modules: int
    whole: list[str]


def adapter_input(adapter: "Adapter") -> AdapterInput:
    """What a recipe says of an adapter."""
    return AdapterInput(
        base=adapter.settings.get("base_model_name_or_path"),
        ranks=adapter.ranks,
        scalings=adapter.scalings,
        modules=len(adapter.modules),
        whole=sorted(adapter.whole),
    )


class Input(Record):
    """One of the two parents: path or hub id, hub revision, sha256 by weight file; of an adapter what it is."""

    source: str
    revision: str | None = None
    weights: dict[str, str]
    adapter: AdapterInput | None = None

    def label(self) -> str:
        """Source and revision, and of an adapter what it is, in words."""
        text = self.source + (f" at {self.revision}" if self.revision else "")
        if not self.adapter:
            return text
        ranks, scalings = (
            ", ".join(f"{each:g}" for each in some) for some in (self.adapter.ranks, self.adapter.scalings)
        )
        lora = f", rank {ranks}, scaling {scalings}" if ranks else ""
        return f"{text} (LoRA adapter{lora})"


class Effect(Record):
    """theta2 - theta1 next to alpha * delta; None where a divisor is zero or nothing was measured.

    `measured` of `elements` elements were looked at: all of a small tensor, a fixed sample of a large one.
    effective_alpha = <theta2 - theta1, delta> / <delta, delta>, after rounding to the stored dtype.
    """

    elements: int
    measured: int
    effective_alpha: float | None = None
    moved_share: float | None = None
    delta_norm_ratio: float | None = None
    alpha_delta_norm_ratio: float | None = None


class Achieved(Record):
    """What the choice of alpha reads of a recipe: the alpha that was asked for, and the effective one."""

    model_config = ConfigDict(extra="ignore")

    alpha: float
    effective_alpha: float | None = None


class ExtrapolationRecipe(Record):
    """results/pairs/{pair}/alpha={alpha}/model/recipe.json."""

    sft: Input
    aligned: Input
    alpha: float
    alpha_for: tuple[tuple[str, float], ...] = ()
    compute: Compute
    dtype: Dtype
    vocabulary: Vocabulary
    overflow: Overflow
    weights: Literal["stored", "parents", "streamed"]
    files: dict[str, str]
    effective_alpha: float | None = None
    moved_share: float | None = None
    delta_norm_ratio: float | None = None
    alpha_delta_norm_ratio: float | None = None
    elements: int
    measured: int
    kinds: dict[str, Effect] = Field(default_factory=dict)
    outputs: dict[str, str] | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any]

    def content_digest(self) -> str:
        """sha256 over what defines the model's behaviour: a key for caches of what it generated.

        The weights of the inputs that have a part in it, theta1's package (config, tokenizer, template), alpha
        and the rules of the arithmetic; not where anything lies, when it was made or whether the weights are stored.
        """
        weights = {"sft": self.sft.weights, "aligned": self.aligned.weights}
        parent = (0, -1) if not self.aligned.adapter else (-1,)  # an adapter has its base's weights too
        if self.alpha in parent and not self.alpha_for and self.vocabulary == "error":
            del weights["aligned" if self.alpha == -1 else "sft"]  # it has no part in them
        content = {
            "arithmetic": ARITHMETIC,
            **weights,
            "files": self.files,
            **self.model_dump(include={"alpha", *RULES}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
