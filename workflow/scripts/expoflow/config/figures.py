"""Figures: their kinds, and what each may say."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from expoflow.config.base import Name, Strict
from expoflow.config.benchmarks import SECTIONS

# What a figure may say beside its kind, pairs, labels and caption.
FIGURE_KEYS = {
    "sweep": (),
    "curves": ("groups",),
    "path": (),
    "histograms": ("benchmark", "variants"),
    "bars": ("metrics", "variants"),
    "first_order": (),
    "cosines": (),
    "plane": ("plane",),
}
# Metrics of benchmarks that a reward model gives.
REWARD_METRICS = tuple(f"{name}.{metric}" for name, each in SECTIONS.items() for metric in each.REWARDS)
# Benchmarks whose responses are scored.
Rewarded = Literal[tuple(name for name, each in SECTIONS.items() if "score" in each.TASKS)]
MEASURED = ("first_order", "cosines", "plane")  # kinds that need the section theory


class FigureConfig(Strict):
    """A figure of results/figures/: what it shows, and of which pairs."""

    kind: Literal["sweep", "curves", "path", "histograms", "bars", "first_order", "cosines", "plane"]
    """`sweep`: reward and length against alpha, a panel for each pair; `curves`: the same, pairs in one panel (the
    paper's Figures 6 to 8); `path`: reward from SFT to the aligned model and on (2); `histograms`: of rewards
    (Appendix C); `bars`: metrics of benchmarks side by side (1 and 4). With the section `theory` also `first_order`:
    an objective along alpha and its slope at 0 (3); `cosines`: between the deltas of pairs; `plane`: reward and
    quality around an SFT model and two aligned ones (5)."""
    pairs: list[Name] | None = Field(None, min_length=1)
    """What is shown, in this order; without it all pairs (that have the benchmark)."""
    groups: dict[str, Annotated[list[Name], Field(min_length=1)]] | None = Field(None, min_length=1)
    """Of `curves`, instead of pairs: pairs that share panels, by the title of these panels."""
    benchmark: Rewarded = "reward"
    """Of `histograms`: the benchmark whose responses' rewards are shown."""
    metrics: list[Annotated[str, Field(pattern=r"^[a-z_]+\.[a-zA-Z0-9_]+$")]] | None = Field(
        None, min_length=1
    )
    """Of `bars`: a panel each, BENCHMARK.METRIC such as `alpaca_eval.lc_win_rate`."""
    variants: list[Literal["sft", "aligned", "expo"]] = Field(["sft", "aligned", "expo"], min_length=1)
    """Of `histograms` and `bars`: what stands side by side."""
    plane: Name | None = None
    """Of `plane`: one of `theory.planes`."""
    labels: dict[Name, str] = {}
    """What a pair is called in the figure, by pair; without it its name."""
    caption: str | None = None
    """The text below the figure; without it the kind's own."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        own = {"kind", "pairs", "labels", "caption", *FIGURE_KEYS[self.kind]}
        fields = type(self).model_fields
        for key in [key for key in fields if key not in own and getattr(self, key) != fields[key].default]:
            kinds = " and ".join(kind for kind, keys in FIGURE_KEYS.items() if key in keys)
            raise PydanticCustomError(
                "kind", "{key} belongs to kind {kinds}; remove it", {"key": key, "kinds": kinds}
            )
        if self.kind == "bars" and self.metrics is None:
            raise PydanticCustomError("metrics", "kind bars needs metrics: [BENCHMARK.METRIC]; add it")
        if self.kind == "plane" and self.plane is None:
            raise PydanticCustomError("plane", "kind plane needs plane: NAME, one of theory.planes; add it")
        if self.groups is not None and self.pairs is not None:
            raise PydanticCustomError("groups", "groups stand instead of pairs; remove one of the two")
        return self

    def canonical(self, **kwargs: Any) -> str:
        """JSON in the config's own order, which groups are drawn in; they stand instead of the pairs that
        `Config.drawn` filled in."""
        filled = {"pairs"} if self.groups is not None else None
        return self.model_dump_json(exclude_none=True, exclude=filled, **kwargs)

    def named(self) -> list[str] | None:
        """The pairs that the config names, each once."""
        if self.groups is not None:
            return list(dict.fromkeys(pair for group in self.groups.values() for pair in group))
        return self.pairs

    def shows_rewards(self) -> bool:
        """Whether nothing can be drawn without a reward model."""
        return self.kind in ("path", "histograms") or bool(set(REWARD_METRICS) & set(self.metrics or ()))

    def benchmarks(self) -> list[str]:
        """The benchmarks that it reads."""
        if self.kind == "histograms":
            return [self.benchmark]
        return list(dict.fromkeys(metric.partition(".")[0] for metric in self.metrics or []))


# Without a section of their own.
FIGURES = {kind: FigureConfig(kind=kind) for kind in ("sweep", "path", "histograms")}
