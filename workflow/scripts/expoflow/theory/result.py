"""results/pairs/{pair}/theory.json: the size of delta and the quality of the first order."""

from typing import Any

from expoflow.files.records import Record


class Size(Record):
    """|theta1|, |delta| and their ratio (None if theta1 is 0) over `elements` elements."""

    elements: int
    theta1: float
    delta: float
    ratio: float | None = None


class Smallness(Record):
    """How small delta is relative to theta1.

    `alphas` has |alpha * delta| / |theta1| for every alpha of the grid.
    """

    overall: Size
    kinds: dict[str, Size]
    alphas: dict[str, float | None]


class Point(Record):
    """J at an alpha: value, change from alpha 0 with interval, and first-order prediction.

    `holds` is None if the sampling error leaves it open.
    """

    alpha: float
    value: float
    change: float
    change_low: float
    change_high: float
    predicted: float
    holds: bool | None = None


class FirstOrder(Record):
    """One objective: its slope at theta1 along delta, and up to which alpha the first order holds.

    Intervals are over `n` prompts with `samples` responses each. `difference` is (J(step) -
    J(-step)) / (2 step). `sign` is that of the slope, or 0 if its interval includes 0. If
    `holds_to` is None, `reason` says why. `holds_share` is `holds_to` as a share of the grid's
    largest alpha.
    """

    n: int
    samples: int
    step: float
    value: float
    slope: float
    slope_low: float
    slope_high: float
    difference: float
    difference_low: float
    difference_high: float
    sign: int
    holds_to: float | None = None
    holds_share: float | None = None
    reason: str
    curve: list[Point]


class Theory(Record):
    """results/pairs/{pair}/theory.json; `first_order` by objective.

    The objectives are margin, and reward if there is a reward model.
    """

    pair: str
    smallness: Smallness
    first_order: dict[str, FirstOrder]
    provenance: dict[str, Any]
