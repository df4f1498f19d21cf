"""Statements and what is measured for them, and the rule by which one holds or does not.

A measure says how it would be `expected` if the statement were true, always against 0: "above", "below", "not above"
or "not below"; an empty text is a number that is only told.
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
HOLDS, FAILS, DEPENDS = "holds", "does not", "depends"


class Measure(Record):
    """A measured quantity of a subject (a pair or a group of pairs), with its interval over prompts.

    `n` is the number of prompts, or of what else is counted.
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
    """A measure from an estimate and its bootstrap draws, shape (1 + resamples,), or from a single number.

    The interval holds the middle `CONFIDENCE` of the draws.
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
    """Whether the measure is as expected: yes, no or open; an empty text where nothing is expected.

    above, below: yes if the value is on that side and its interval, where it has one, excludes 0; open if only the
    value is. not above, not below: no if value and interval lie on that side, else yes.
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

    holds: all measures of all runs are as expected. does not: in every run at least half of them are not, whatever
    their intervals. depends: everything else. Empty where nothing was expected.
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
    """One phrase of a claim, where the paper says it, and what measures it in a run."""

    claim: int
    section: str
    phrase: str
    measure: Callable[["Run"], Iterator[Measure]]

    @property
    def name(self) -> str:
        """Its key in tables."""
        return self.measure.__name__

    @property
    def how(self) -> str:
        """How it is measured, in a sentence or two."""
        return " ".join((self.measure.__doc__ or "").split())


STATEMENTS: dict[str, Statement] = {}


def statement(claim: int, section: str, phrase: str) -> Callable:
    """Decorator that makes a statement of the function that measures it."""

    def register(measure: Callable[["Run"], Iterator[Measure]]) -> Callable:
        STATEMENTS[measure.__name__] = Statement(claim, section, phrase, measure)
        return measure

    return register
