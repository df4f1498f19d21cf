"""Figures: their kinds, and the keys of each kind.

A new kind is one more name in FigureKind, one more entry of KINDS, and a function of its name in a
module of `reporting.figures`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from expoflow.config.base import Name, Strict
from expoflow.config.benchmarks import SECTIONS

FigureKind = Literal["sweep", "curves", "path", "histograms", "bars", "first_order", "cosines", "plane"]


@dataclass(frozen=True)
class Kind:
    """The properties of a kind of figures.

    `module` is the module of `reporting.figures` with the function that draws it; the function has
    the kind's name. `caption` is the text below a figure if the config gives none.
    `without_rewards` replaces it in a run without a reward model; {shown} in it stands for the
    criterion that chooses alpha. `reads` are the results that a figure is drawn from, in this order
    (`dag.figures`). `keys` are the keys that the config may give besides kind, pairs, labels and
    caption; `metrics` and `plane` are required. `marks` are the quantities for which the paper's
    numbers are shown too, besides `metrics`.

    `rewards`: nothing can be drawn without a reward model. `theory`: the figure shows measurements
    of the section theory. `kin`: it shows pairs that share their SFT model with another pair.
    `default`: it is drawn if the config has no section figures.
    """

    module: str
    caption: str
    without_rewards: str = ""
    reads: tuple[
        Literal["alphas", "certificates", "generations", "benchmarks", "theory", "cosines", "plane"], ...
    ] = ("alphas",)
    keys: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    rewards: bool = False
    theory: bool = False
    kin: bool = False
    default: bool = False


KINDS = {
    "sweep": Kind(
        module="sweeps",
        caption="Reward, true quality where it is known, and length of the responses against alpha, on the prompts "
        "that choose alpha. The star is the chosen alpha; the band is the interval of the gain over alpha 0, paired by "
        "prompt, which holds for all alphas at once. Below the pair's name stands its certificate: the gain on prompts that took no part in the choice.",
        without_rewards="{shown}, true quality where it "
        "is known, and length of the responses against alpha, on the prompts that choose alpha. The star is the chosen "
        "alpha; the band is the interval of the change from alpha 0, paired by prompt, which holds for all alphas at once. Below the pair's name stands its certificate.",
        reads=("alphas", "certificates"),
        marks=("alpha",),
        default=True,
    ),
    "curves": Kind(
        module="sweeps",
        caption="Reward, length of the responses and true quality where it is known against alpha, on the prompts that "
        "choose alpha; alpha 0 is the aligned model. Stars are the chosen alphas, bars the intervals of the mean reward.",
        without_rewards="{shown}, length of the responses "
        "and true quality where it is known against alpha, on the prompts that choose alpha; alpha 0 is the aligned "
        "model. Stars are the chosen alphas.",
        keys=("groups",),
        marks=("alpha", "reward"),
    ),
    "path": Kind(
        module="sweeps",
        caption="From the SFT checkpoint (alpha -1) by interpolation to the aligned model (0), and on by extrapolation.",
        rewards=True,
        default=True,
    ),
    "histograms": Kind(
        module="benchmarks",
        caption="Rewards of the models' responses to the benchmark's prompts, which took no part in choosing alpha; "
        "marks on the axis are their means.",
        reads=("generations",),
        keys=("benchmark", "variants"),
        rewards=True,
        default=True,
    ),
    "bars": Kind(
        module="benchmarks",
        caption="The models on benchmarks, with 95 % intervals (1.96 standard errors).",
        reads=("benchmarks",),
        keys=("metrics", "variants"),
    ),
    "first_order": Kind(
        module="theory",
        caption="Objectives along alpha, as changes from alpha 0 with their intervals, and the tangent that the "
        "gradient times delta gives, with its interval: the mean margin of held-out preferences, exact at every point, "
        "and the expected reward at temperature 1. Dashed: the sweep's mean reward, whose responses are sampled as "
        "configured.",
        reads=("theory", "alphas"),
        theory=True,
        default=True,
    ),
    "cosines": Kind(
        module="theory",
        caption="Cosines between the deltas of pairs that share their SFT model, over all weights.",
        reads=("cosines",),
        theory=True,
        kin=True,
        default=True,
    ),
    "plane": Kind(
        module="theory",
        caption="Mean reward, and true quality where it is known, in the plane through the SFT model and two aligned "
        "ones: both axes are distances between weights. Lines are the rays of extrapolation, stars the alphas chosen on "
        "them, dots the points that were measured.",
        reads=("plane", "alphas"),
        keys=("plane",),
        theory=True,
    ),
}
# Metrics of benchmarks that need a reward model.
REWARD_METRICS = tuple(f"{name}.{metric}" for name, each in SECTIONS.items() for metric in each.REWARDS)
# Benchmarks whose responses are scored.
Rewarded = Literal[tuple(name for name, each in SECTIONS.items() if "score" in each.TASKS)]


class FigureConfig(Strict):
    """A figure in results/figures/: what it shows, and for which pairs."""

    kind: FigureKind
    """What the figure shows; numbers in brackets are the paper's figures. `sweep`: reward and
    length against alpha, one panel per pair. `curves`: the same with all pairs in one panel (6 to
    8). `path`: reward from the SFT model to the aligned one and beyond (2). `histograms`:
    distributions of rewards (Appendix C). `bars`: metrics of benchmarks side by side (1 and 4).
    The other kinds need the section `theory`. `first_order`: an objective along alpha and its slope
    at 0 (3). `cosines`: cosines between the deltas of pairs. `plane`: reward and quality around an
    SFT model and two aligned ones (5)."""
    pairs: list[Name] | None = Field(None, min_length=1)
    """The pairs that are shown, in this order. By default all pairs (that have the benchmark)."""
    groups: dict[str, Annotated[list[Name], Field(min_length=1)]] | None = Field(None, min_length=1)
    """For `curves`, instead of `pairs`: the pairs that share panels, by panel title."""
    benchmark: Rewarded = "reward"
    """For `histograms`: the benchmark that the rewards come from."""
    metrics: list[Annotated[str, Field(pattern=r"^[a-z_]+\.[a-zA-Z0-9_]+$")]] | None = Field(
        None, min_length=1
    )
    """For `bars`: one panel per metric, BENCHMARK.METRIC such as `alpaca_eval.lc_win_rate`."""
    variants: list[Literal["sft", "aligned", "expo"]] = Field(["sft", "aligned", "expo"], min_length=1)
    """For `histograms` and `bars`: the variants that are compared."""
    plane: Name | None = None
    """For `plane`: one of `theory.planes`."""
    labels: dict[Name, str] = {}
    """Labels in the figure, by pair. The default is the pair's name."""
    caption: str | None = None
    """The text below the figure. The default depends on the kind."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        own = {"kind", "pairs", "labels", "caption", *KINDS[self.kind].keys}
        fields = type(self).model_fields
        for key in [key for key in fields if key not in own and getattr(self, key) != fields[key].default]:
            kinds = " and ".join(name for name, kind in KINDS.items() if key in kind.keys)
            raise PydanticCustomError(
                "kind", "{key} belongs to kind {kinds}; remove it", {"key": key, "kinds": kinds}
            )
        needed = {"metrics": "[BENCHMARK.METRIC]", "plane": "NAME, one of theory.planes"}
        for key in [key for key in needed if key in own and getattr(self, key) is None]:
            about = {"kind": self.kind, "key": key, "value": needed[key]}
            raise PydanticCustomError(key, "kind {kind} needs {key}: {value}; add it", about)
        if self.groups is not None and self.pairs is not None:
            raise PydanticCustomError("groups", "groups stand instead of pairs; remove one of the two")
        return self

    def canonical(self, **kwargs: Any) -> str:
        """JSON in the config's own order, because groups are drawn in this order.

        If groups are given, the pairs that `Config.drawn` filled in are left out.
        """
        filled = {"pairs"} if self.groups is not None else None
        return self.model_dump_json(exclude_none=True, exclude=filled, **kwargs)

    def named(self) -> list[str] | None:
        """The pairs that the config names, without repetitions."""
        if self.groups is not None:
            return list(dict.fromkeys(pair for group in self.groups.values() for pair in group))
        return self.pairs

    def shows_rewards(self) -> bool:
        """Whether nothing can be drawn without a reward model."""
        return KINDS[self.kind].rewards or bool(set(REWARD_METRICS) & set(self.metrics or ()))

    def benchmarks(self) -> list[str]:
        """The benchmarks that the figure reads."""
        if "benchmark" in KINDS[self.kind].keys:
            return [self.benchmark]
        return list(dict.fromkeys(metric.partition(".")[0] for metric in self.metrics or []))


# What is drawn if the config has no section figures.
FIGURES = {name: FigureConfig(kind=name) for name, kind in KINDS.items() if kind.default and not kind.theory}
