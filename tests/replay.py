"""The choice of alpha and its certificate, replayed many times in worlds whose true gains are known.

A world is the table of a real sweep: the mean reward of every prompt at every alpha >= 0. A draw takes prompts from it by chance, some to
choose alpha and others to judge the choice, and does what a run does, by the functions of a run. What is true of a world is known: the
means of its table. In worlds without effect no alpha is better than 0.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from expoflow.selection import statistics
from expoflow.selection.choice import Candidate, choose
from expoflow.selection.criteria import CRITERIA
from expoflow.selection.measures import Changes

TABLES = Path(__file__).parent / "sweeps.csv"
CONFIDENCE = 0.95
NOMINAL = (1 - CONFIDENCE) / 2  # an interval lies above 0 by chance
CHOOSE, JUDGE = 200, 300  # prompts of the default run
WAYS = ("pointwise", "simultaneous", "certificate")


@dataclass(frozen=True)
class World:
    """`rewards`, shape (prompts, alphas), the first alpha is 0; with `shuffle` every draw permutes the alphas of every prompt."""

    name: str
    alphas: tuple[str, ...]
    rewards: np.ndarray
    shuffle: bool = False

    @property
    def gains(self) -> np.ndarray:
        """What is true: the mean gain of every alpha over alpha 0, shape (alphas,)."""
        return (
            np.zeros(len(self.alphas)) if self.shuffle else (self.rewards - self.rewards[:, :1]).mean(axis=0)
        )

    def scaled(self, effect: float) -> "World":
        """The same world with `effect` times its gains, and prompts that scatter as they did."""
        return replace(self, rewards=self.rewards - (1 - effect) * self.gains)

    def draw(self, prompts: int, rng: np.random.Generator) -> np.ndarray:
        """Rewards of `prompts` prompts, drawn with replacement: shape (prompts, alphas)."""
        drawn = self.rewards[rng.integers(len(self.rewards), size=prompts)]
        return rng.permuted(drawn, axis=1) if self.shuffle else drawn

    def first(self, alphas: int) -> "World":
        """The world with its first `alphas` alphas above 0."""
        return replace(self, alphas=self.alphas[: alphas + 1], rewards=self.rewards[:, : alphas + 1])


def read(path: Path = TABLES) -> dict[str, World]:
    """The worlds of a file: a row for each prompt, of which an alpha that the pair has not tried is empty."""
    rows: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row.pop("pair"), []).append(row)
    worlds = {}
    for pair, own in rows.items():
        alphas = tuple(alpha for alpha in own[0] if own[0][alpha])
        rewards = np.array([[float(row[alpha]) for alpha in alphas] for row in own])
        worlds[pair] = World(pair, alphas, rewards)
    return worlds


def without_effect(worlds: dict[str, World]) -> dict[str, list[World]]:
    """Three kinds of worlds in which no alpha is better than 0.

    The real tables' covariance without their gains; the alphas of every prompt shuffled; a delta of noise.
    """
    real = [world for pair, world in worlds.items() if pair != "noise"]
    return {
        "covariance of the real sweeps": [world.scaled(0) for world in real],
        "labels of the alphas shuffled": [replace(world, shuffle=True) for world in real],
        "a delta of noise": [worlds["noise"].scaled(0)],
    }


@dataclass(frozen=True)
class Draw:
    """What one run says, and what is true.

    `certified` by way; `chosen` is the chosen alpha's place; `covered`: whether the simultaneous intervals hold all true gains, and whether
    the certificate's holds that of the chosen alpha (None at alpha 0).
    """

    chosen: int
    certified: dict[str, bool]
    covered: tuple[bool, bool | None]
    gain: float
    true: float
    optimism: float


def run(
    world: World, rng: np.random.Generator, weights: np.ndarray, judging: np.ndarray, resamples: int
) -> Draw:
    """One draw; `weights` and `judging`, shape (resamples, prompts), are resamples of the prompts that choose, and that judge."""
    dev, test = world.draw(weights.shape[1], rng), world.draw(JUDGE, rng)
    changes = _changes(world, dev, weights)
    intervals = changes.intervals(CONFIDENCE)
    choice, place = _choose(world, changes, intervals)
    alone = statistics.mean_interval(dev[:, place] - dev[:, 0], CONFIDENCE, resamples)
    judged = _changes(replace(world, alphas=("0", choice.alpha)), test[:, [0, place]], judging)
    low, high = judged.intervals(CONFIDENCE)[choice.alpha]
    picked = CRITERIA["reward"].pick(changes.draws)
    held = [low <= gain <= high for gain, (low, high) in zip(world.gains, intervals.values(), strict=True)]
    return Draw(
        chosen=place,
        certified={
            "pointwise": place > 0 and alone[0] > 0,
            # of a reward, the simultaneous interval of a run is never the narrower one
            "simultaneous": choice.certified and alone[0] > 0,
            "certificate": place > 0 and low > 0,
        },
        covered=(all(held), bool(low <= world.gains[place] <= high) if place else None),
        gain=float(changes.changes[place]),
        true=float(world.gains[place]),
        optimism=statistics.optimism(changes.changes, changes.draws, picked),
    )


def _changes(world: World, dev: np.ndarray, weights: np.ndarray) -> Changes:
    ones = np.ones(len(dev))
    of = {alpha: (column, ones) for alpha, column in zip(world.alphas, dev.T, strict=True)}
    return Changes.of(of, world.alphas, weights)


def _choose(world: World, changes: Changes, intervals: dict[str, tuple[float, float]]):
    """The choice of a run, and the place of its alpha."""
    known = zip(world.alphas, changes.values, changes.changes, strict=True)
    choice = choose(
        [Candidate(alpha, value, change, *intervals[alpha]) for alpha, value, change in known], CONFIDENCE
    )
    return choice, world.alphas.index(choice.alpha)


def replay(worlds: Sequence[World], draws: int = 1000, resamples: int = 1999, seed: int = 0) -> list[Draw]:
    """Many draws of several worlds in turn; the resamples change too, for those of one seed have a chance of their own."""
    rng = np.random.default_rng(seed)
    sets = [
        [statistics.resampled(prompts, resamples, seed) for prompts in (CHOOSE, JUDGE)] for seed in range(5)
    ]
    return [
        run(worlds[draw % len(worlds)], rng, *sets[draw // len(worlds) % 5], resamples)
        for draw in range(draws)
    ]


def certified(draws: list[Draw]) -> dict[str, float]:
    """In which share of the draws a gain is certified, by way; in a world without effect every one of these is false."""
    return {way: float(np.mean([draw.certified[way] for draw in draws])) for way in WAYS}


def coverage(draws: list[Draw]) -> tuple[float, float]:
    """How often the simultaneous intervals hold all true gains, and the certificate's that of the chosen alpha, unless it is 0."""
    judged = [draw.covered[1] for draw in draws if draw.covered[1] is not None]
    return float(np.mean([draw.covered[0] for draw in draws])), float(np.mean(judged))


def most(draws: int) -> float:
    """The largest share of false certificates that chance explains: the nominal rate and two standard errors."""
    return NOMINAL + 2 * (NOMINAL * (1 - NOMINAL) / draws) ** 0.5


def looking_again(
    world: World, draws: int, looks: int, resamples: int = 999, seed: int = 0
) -> Iterator[float]:
    """The share of false certificates after 1, 2, ... `looks` looks at the same test prompts.

    Who is not content tries another alpha: the grid has one more at every look, until a gain is certified.
    """
    rng = np.random.default_rng(seed)
    weights, judging = (statistics.resampled(prompts, resamples) for prompts in (CHOOSE, JUDGE))
    found = np.zeros(looks)
    for _ in range(draws):
        dev, test = world.draw(CHOOSE, rng), world.draw(JUDGE, rng)
        for look in range(looks):
            part = world.first(look + 1)
            changes = _changes(part, dev[:, : look + 2], weights)
            place = _choose(part, changes, dict.fromkeys(part.alphas, (0.0, 0.0)))[1]
            pair = replace(part, alphas=("0", part.alphas[place]))
            ends = _changes(pair, test[:, [0, place]], judging).intervals(CONFIDENCE)[part.alphas[place]]
            if place and ends[0] > 0:
                found[look:] += 1
                break
    yield from found / draws
