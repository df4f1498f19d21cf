"""The measures of every alpha of a sweep, as the page shows them.

They are values and their paired changes from alpha 0, with intervals.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from expoflow.config.stages import SelectConfig
from expoflow.selection.criteria import CRITERIA, with_interval

Row = Mapping[str, str]
RESAMPLES = 1000
ROUNDED = 1e-5  # numbers of a table have six digits


@dataclass(frozen=True)
class Measure:
    """A column of alphas.csv, with its title and unit.

    The ends of the interval of its change from alpha 0 are in the columns `change`_low and
    `change`_high, if the table has them. If not, the interval is computed here from `scores`, a
    column of rewards.csv.
    """

    name: str
    title: str
    unit: str
    change: str = ""
    scores: str = ""


MEASURES = (
    *(
        Measure(name, each.short[0].upper() + each.short[1:], each.label.replace("\n", " "), each.interval)
        for name, each in CRITERIA.items()
    ),
    Measure("quality", "True quality", "true quality (points)", scores="quality"),
    Measure("accuracy", "Accuracy", "share of correct answers", scores="correct"),
    Measure("length", "Length", "length (tokens)", scores="response_tokens"),
    Measure("degenerate", "Degenerate responses", "share of responses", "degenerate_change"),
)


SCORES = tuple(measure.scores for measure in MEASURES if measure.scores)


@dataclass(frozen=True)
class Value:
    """A measure at one alpha, and its change from alpha 0, with an interval if it is known."""

    value: float
    change: float | None = None
    low: float | None = None
    high: float | None = None

    def words(self) -> str:
        """`1.39, change 0.57 [0.36, 0.78]`; only the value for alpha 0."""
        change = self.change_words()
        return f"{self.value:.4g}, change {change}" if change else f"{self.value:.4g}"

    def change_words(self) -> str:
        """`0.57 [0.36, 0.78]`; empty for alpha 0."""
        return "" if self.change is None else with_interval(self.change, self.low, self.high)

    def band(self) -> tuple[float | None, float | None]:
        """The interval of the change, laid around the value of alpha 0."""
        if self.change is None:
            return self.value, self.value
        if self.low is None or self.high is None:
            return None, None
        return self.value - self.change + self.low, self.value - self.change + self.high


@dataclass(frozen=True)
class Point:
    """An alpha of a pair, with its known measures by name."""

    pair: str
    alpha: str
    chosen: bool
    values: Mapping[str, Value]


def points(
    alphas: Sequence[Row], rewards: Iterable[Row], confidence: Mapping[str, float] = MappingProxyType({})
) -> list[Point]:
    """Every row of alphas.csv with its changes.

    `rewards` are the rows of rewards.csv on the same prompts. Some changes have no interval if
    these rows are missing or belong to other responses. `confidence` has, by pair, the level of the
    intervals that are computed here. A pair that it lacks, as in a rehearsal, has the default of
    `select`.
    """
    ends = _intervals(rewards, confidence)
    aligned = {row["pair"]: row for row in alphas if row["alpha"] == "0"}
    return [
        Point(
            row["pair"],
            row["alpha"],
            row["chosen"] == "1",
            {
                measure.name: _value(measure, row, aligned.get(row["pair"], {}), ends)
                for measure in MEASURES
                if row.get(measure.name)
            },
        )
        for row in alphas
    ]


def shown(found: Iterable[Point]) -> list[Measure]:
    """The measures that have any value."""
    known = {name for point in found for name in point.values}
    return [measure for measure in MEASURES if measure.name in known]


# The change and the ends of its interval, by pair, alpha and measure.
Ends = Mapping[tuple[str, str, str], tuple[float, float, float]]


def _value(measure: Measure, row: Row, aligned: Row, ends: Ends) -> Value:
    value = float(row[measure.name])
    if row["alpha"] == "0" or not aligned.get(measure.name):
        return Value(value)
    before = float(aligned[measure.name])
    change = value - before
    if known := _ends(measure, row):
        return Value(value, change, *known)
    own = ends.get((row["pair"], row["alpha"], measure.name))
    if own is None or not math.isclose(own[0], change, abs_tol=ROUNDED * max(abs(value), abs(before))):
        return Value(value, change)
    return Value(value, change, *own[1:])


def _ends(measure: Measure, row: Row) -> tuple[float, float] | None:
    """The interval in the table.

    It holds for all alphas at once. Alphas below 0 cannot be chosen: theirs holds for one alpha
    alone.
    """
    for prefix in filter(None, (measure.change, measure.change and f"{measure.change}_pointwise")):
        low, high = row.get(f"{prefix}_low"), row.get(f"{prefix}_high")
        if low and high:
            return float(low), float(high)
    return None


def _intervals(rewards: Iterable[Row], confidence: Mapping[str, float]) -> Ends:
    """Bootstrap intervals of paired changes from alpha 0, for measures without one in alphas.csv.

    Each holds for one alpha alone. There is no interval if there are too few prompts to prove
    anything.
    """
    import numpy as np

    from expoflow.selection.statistics import mean_interval, proves

    usual = SelectConfig().confidence
    measured = [measure for measure in MEASURES if measure.scores]
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rewards:
        for measure in measured:
            if cell := row.get(measure.scores):
                of_prompt = values.setdefault((row["pair"], row["alpha"], measure.name), {})
                of_prompt.setdefault(row["prompt_id"], []).append(float(cell))
    means = {
        key: {prompt: sum(samples) / len(samples) for prompt, samples in of_prompt.items()}
        for key, of_prompt in values.items()
    }
    found = {}
    for (pair, alpha, name), own in means.items():
        aligned = means.get((pair, "0", name), {})
        level = confidence.get(pair, usual)
        if alpha != "0" and own.keys() == aligned.keys() and proves(len(own), level):
            changes = np.array([own[prompt] - aligned[prompt] for prompt in own])
            found[pair, alpha, name] = (float(changes.mean()), *mean_interval(changes, level, RESAMPLES))
    return found
