"""recipe.json: what an extrapolated checkpoint is made of, and the effect on its weights."""

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field

from expoflow.config.stages import Compute, Dtype, Vocabulary
from expoflow.extrapolation.options import RULES, Overflow
from expoflow.files.records import Record

if TYPE_CHECKING:
    from expoflow.checkpoints.adapter import Adapter


# Increase this if the arithmetic changes in any bit: caches keyed by content_digest() then start
# anew.
ARITHMETIC = 2


class AdapterInput(Record):
    """A LoRA adapter: its base's name, ranks, scalings, number of modules, tensors stored whole."""

    base: str | None = None
    ranks: list[int]
    scalings: list[float]
    modules: int
    whole: list[str]


def adapter_input(adapter: "Adapter") -> AdapterInput:
    """Return what a recipe records about an adapter."""
    return AdapterInput(
        base=adapter.settings.get("base_model_name_or_path"),
        ranks=adapter.ranks,
        scalings=adapter.scalings,
        modules=len(adapter.modules),
        whole=sorted(adapter.whole),
    )


class Input(Record):
    """A parent: path or hub id, hub revision, sha256 by weight file, and adapter if it is one."""

    source: str
    revision: str | None = None
    weights: dict[str, str]
    adapter: AdapterInput | None = None

    def label(self) -> str:
        """Return source, revision and adapter in words."""
        text = self.source + (f" at {self.revision}" if self.revision else "")
        if not self.adapter:
            return text
        ranks, scalings = (
            ", ".join(f"{each:g}" for each in some) for some in (self.adapter.ranks, self.adapter.scalings)
        )
        lora = f", rank {ranks}, scaling {scalings}" if ranks else ""
        return f"{text} (LoRA adapter{lora})"


class Effect(Record):
    """theta2 - theta1 compared with alpha * delta; None if a divisor is 0 or nothing was measured.

    `measured` of `elements` elements were read: all of a small tensor, a fixed sample of a large
    one. effective_alpha = <theta2 - theta1, delta> / <delta, delta>, after rounding to the stored
    dtype.
    """

    elements: int
    measured: int
    effective_alpha: float | None = None
    moved_share: float | None = None
    delta_norm_ratio: float | None = None
    alpha_delta_norm_ratio: float | None = None


class Achieved(Record):
    """What the choice of alpha reads from a recipe: the requested alpha and the effective one."""

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
        """Return the sha256 of what defines the model's behaviour, a key for caches of its output.

        It covers the inputs' weights that are used, theta1's package (config, tokenizer, template),
        alpha and the rules of the arithmetic. It does not cover paths, times, or whether the
        weights are stored.
        """
        weights = {"sft": self.sft.weights, "aligned": self.aligned.weights}
        parent = (0, -1) if not self.aligned.adapter else (-1,)  # an adapter needs its base too
        if self.alpha in parent and not self.alpha_for and self.vocabulary == "error":
            del weights["aligned" if self.alpha == -1 else "sft"]  # not used
        content = {
            "arithmetic": ARITHMETIC,
            **weights,
            "files": self.files,
            **self.model_dump(include={"alpha", *RULES}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
