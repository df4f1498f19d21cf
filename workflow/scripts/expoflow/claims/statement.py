"""Statements, what is measured for them, and the rule of their verdicts.

A measure names the side of 0 that is `expected` if the statement is true: "above", "below",
"not above" or "not below". An empty text marks a number that takes no part in the verdict.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from expoflow.files.records import Record

if TYPE_CHECKING:
    from expoflow.claims.run import Run


CONFIDENCE = 0.95
YES, NO, OPEN = "yes", "no", "open"
HOLDS, FAILS, DEPENDS = "holds", "does not hold", "depends"


class Measure(Record):
    """A measured quantity of a subject (a pair or a group of pairs), with its interval.

    `n` is the number of prompts, or of the pairs that a quantity of a group rests on.
    """

    quantity: str
    subject: str
    value: float
    low: float | None = None
    high: float | None = None
    expected: str = ""
    n: int | None = None
    note: str = ""


def measured(quantity: str, subject: str, draws: ArrayLike, expected: str = "", **fields: object) -> Measure:
    """Make a measure from an estimate and its bootstrap draws, or from a single number.

    The draws have shape (1 + resamples,), and the first one is the estimate. The interval holds the
    middle `CONFIDENCE` of the others.
    """
    draws = np.atleast_1d(np.asarray(draws, dtype=float))
    interval = {}
    if len(draws) > 1:
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(draws[1:], [tail, 1 - tail])
        interval = {"low": float(low), "high": float(high)}
    value = float(draws[0])
    return Measure(quantity=quantity, subject=subject, value=value, expected=expected, **interval, **fields)


def outcome(measure: Measure) -> str:
    """Whether the measure is as expected: yes, no or open, or an empty text if nothing is expected.

    "above" and "below": yes if the value is on that side and its interval, if it has one, excludes
    0; open if only the value is on that side; no otherwise.
    "not above" and "not below": no if the value and its interval lie on that side; yes otherwise.
    """
    side = -1 if measure.expected.endswith("below") else 1
    value = side * measure.value
    bounds = [side * bound for bound in (measure.low, measure.high) if bound is not None]
    clear = value > 0 and min(bounds, default=value) > 0
    if not measure.expected:
        return ""
    if measure.expected.startswith("not"):
        return NO if clear else YES
    return YES if clear else OPEN if value > 0 else NO


def verdict(runs: Iterable[Iterable[str]]) -> str:
    """The verdict over runs (seeds), each with the outcomes of a statement's measures.

    holds: every measure of every run is as expected. does not hold: in every run, at least half of
    the measures have the outcome no. depends: everything else. Empty if nothing was expected.
    """
    counted = [[each for each in outcomes if each] for outcomes in runs]
    counted = [outcomes for outcomes in counted if outcomes]
    if not counted:
        return ""
    if all(each == YES for outcomes in counted for each in outcomes):
        return HOLDS
    if all(2 * outcomes.count(NO) >= len(outcomes) for outcomes in counted):
        return FAILS
    return DEPENDS


@dataclass(frozen=True)
class Statement:
    """One phrase of a claim, the section of the paper that states it, and its measurement.

    `number` says in a few words what the statement's first expected measure is, with its unit.
    """

    claim: int
    section: str
    phrase: str
    number: str
    measure: Callable[["Run"], Iterator[Measure]]

    @property
    def name(self) -> str:
        """The statement's key in tables."""
        return self.measure.__name__

    @property
    def how(self) -> str:
        """How the statement is measured, in a few sentences."""
        return " ".join((self.measure.__doc__ or "").split())


STATEMENTS: dict[str, Statement] = {}


def statement(claim: int, section: str, phrase: str, number: str) -> Callable:
    """Decorator that makes a statement of the function that measures it."""

    def register(measure: Callable[["Run"], Iterator[Measure]]) -> Callable:
        STATEMENTS[measure.__name__] = Statement(claim, section, phrase, number, measure)
        return measure

    return register
