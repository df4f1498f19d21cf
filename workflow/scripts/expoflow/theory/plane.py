"""results/planes/{name}.csv: reward and quality in the plane of an SFT and two aligned models.

Weights are theta0 + a * (A - theta0) + b * (B - theta0). x and y are orthonormal coordinates of
that plane, in units of the weights' norm, with theta0 at the origin and A on the x axis. This
measures the paper's Figure 5.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expoflow.config.stages import GenerateConfig, ScoreConfig, SelectConfig
from expoflow.config.theory import PlaneConfig
from expoflow.engines import responses
from expoflow.engines.model import Model
from expoflow.errors import PairError
from expoflow.extrapolation.recipe import ExtrapolationRecipe
from expoflow.files.records import read_json, write_csv
from expoflow.results import Generation, Manifest, Prompt, Scored
from expoflow.scoring.responses import evaluate
from expoflow.selection import statistics
from expoflow.theory import question
from expoflow.theory.deltas import ALL, Products, opened, products

COLUMNS = (
    "a",
    "b",
    "x",
    "y",
    "reward",
    "reward_low",
    "reward_high",
    "quality",
    "length",
    "unfinished",
    "n",
)
MARGIN = 0.1  # of the box around the rays, as a share of its longer side
NARROW = 0.4  # least length of the shorter side, as a share of the longer one
FLAT = 1e-3  # two deltas at an angle with a smaller sine span no plane


@dataclass(frozen=True)
class Axes:
    """The directions of a plane: |A - theta0|, |B - theta0| and the cosine of their angle."""

    a: float
    b: float
    cosine: float

    @classmethod
    def of(cls, found: Products) -> "Axes":
        """Return the axes of two pairs with one theta0; PairError if they span no plane."""
        a, b = found.norms()
        cosine = float(found.deltas[0, 1] / (a * b)) if a and b else 1.0
        if 1 - cosine**2 < FLAT**2:
            raise PairError(f"two deltas with cosine {cosine:.6f} span no plane; take other pairs")
        return cls(float(a), float(b), cosine)

    @property
    def sine(self) -> float:
        """Sine of the angle between the directions."""
        return float(np.sqrt(1 - self.cosine**2))

    def place(self, a: float, b: float) -> tuple[float, float]:
        """Return (x, y) of a point (a, b)."""
        return a * self.a + b * self.b * self.cosine, b * self.b * self.sine

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return (a, b) of a point (x, y)."""
        b = y / (self.b * self.sine)
        return (x - b * self.b * self.cosine) / self.a, b


def points(axes: Axes, ends: Sequence[float], count: int) -> list[tuple[float, float]]:
    """Return (a, b) of the three models, then of count x count points in a box around both rays.

    The points are ordered by y, then x. `ends` are the ends of the rays, in a and in b.
    """
    places = np.array([(0, 0), axes.place(ends[0], 0), axes.place(0, ends[1])])
    middle, sides = (places.min(axis=0) + places.max(axis=0)) / 2, np.ptp(places, axis=0)
    half = np.maximum(sides, NARROW * sides.max()) / 2 + MARGIN * sides.max()
    xs, ys = np.linspace(middle - half, middle + half, count).T.tolist()
    return [(0, 0), (1, 0), (0, 1), *(axes.point(x, y) for y in ys for x in xs)]


def measure_plane(
    config: PlaneConfig,
    recipes: Sequence[Path],
    sft: Manifest,
    aligned: Sequence[Manifest],
    prompts: Sequence[Prompt],
    reward_model: Model,
    output: Path,
    *,
    alphas: Sequence[float],
    generate: GenerateConfig,
    score: ScoreConfig,
    select: SelectConfig,
    vocabulary: str,
    usage: str = "{}",
    say: Callable[[str], None] = print,
) -> None:
    """Write the plane's CSV: the three models first, then the points.

    `recipes` are those of alpha 0 of both pairs; `alphas` are their largest alphas. Responses are
    drawn as in the sweep, one per prompt, by transformers in float32.
    """
    found = products([opened(sft, each, vocabulary) for each in aligned])
    axes = Axes.of(found[ALL])
    first, second = (
        responses.model(read_json(recipe, ExtrapolationRecipe), recipe.parent, sft, each, usage)
        for recipe, each in zip(recipes, aligned, strict=True)
    )
    where = points(axes, [1 + config.reach * alpha for alpha in alphas], config.points)
    theta0, theta1 = question.parents(first)
    ask = question.TheoryTask(
        model=first,
        corners=(theta0, theta1, question.parents(second)[1]),
        responses=tuple((1 - a - b, a, b) for a, b in where),
        prompts=tuple(prompts),
        config=generate.model_copy(update={"samples": 1}),
    )
    said: dict[int, list[Generation]] = {}
    for row in question.ask(ask):
        said.setdefault(row["response"], []).append(Generation.model_validate(row["generation"]))
    scored = evaluate(prompts, [each for some in said.values() for each in some], reward_model, score)
    size = len(prompts)
    rows = [
        {"a": a, "b": b, **_named(axes.place(a, b)), **_row(scored[at * size : (at + 1) * size], select)}
        for at, (a, b) in enumerate(where)
    ]
    write_csv(output, rows, COLUMNS)
    best = max(rows, key=lambda row: row["reward"])
    say(f"{len(rows)} points, the best reward {best['reward']:.3f} at a {best['a']:.3g}, b {best['b']:.3g}")


def _named(place: tuple[float, float]) -> Mapping[str, float]:
    return dict(zip("xy", place, strict=True))


def _row(scored: Sequence[Scored], select: SelectConfig) -> dict[str, Any]:
    """Return means over a point's responses, with the reward's interval, and quality if known."""
    rewards = np.array([each.reward for each in scored])
    low, high = statistics.mean_interval(rewards, select.confidence, select.resamples)
    qualities = [each.quality for each in scored if each.quality is not None]
    return {
        "reward": float(rewards.mean()),
        "reward_low": low,
        "reward_high": high,
        "quality": float(np.mean(qualities)) if len(qualities) == len(scored) else None,
        "length": float(np.mean([each.response_tokens for each in scored])),
        "unfinished": float(np.mean([each.finish_reason == "length" for each in scored])),
        "n": len(scored),
    }
