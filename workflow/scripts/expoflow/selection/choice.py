"""Which of the alphas that were tried is chosen, and why."""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from expoflow.config.base import spell
from expoflow.selection.criteria import CRITERIA, Criterion, with_interval


@dataclass(frozen=True)
class Candidate:
    """One alpha: its value of the criterion, its change from alpha 0, and whether it may be chosen.

    `low` and `high` are the ends of the interval of the change. The intervals of all candidates
    hold simultaneously. Unknown numbers are NaN.
    """

    alpha: str
    value: float
    change: float
    low: float
    high: float
    allowed: bool = True


@dataclass(frozen=True)
class Choice:
    """The chosen alpha, whether its change is certified, whether the grid ended there, and why."""

    alpha: str
    certified: bool
    edge: bool
    reason: str


def choose(
    candidates: list[Candidate],
    confidence: float,
    require_certified: bool = False,
    by: str = "reward",
    doubtful: bool = False,
) -> Choice:
    """Choose the alpha >= 0 that is best by a criterion (for reward see the paper, Appendix E).

    A tie goes to the smaller alpha.

    With `require_certified` the choice falls back to alpha 0 unless the interval of the change
    certifies it. With `doubtful`, which says that most responses of alpha 0 are degenerate, a
    choice of alpha 0 comes without the advice not to extrapolate. `candidates` must contain alpha
    0, which is always allowed. Raises KeyError if the criterion does not exist.
    """
    criterion = CRITERIA[by]
    tried = sorted((c for c in candidates if float(c.alpha) >= 0), key=lambda c: float(c.alpha))
    allowed = [c for c in tried if c.allowed]
    best = allowed[criterion.pick(np.array([[c.value for c in allowed]]))[0]]
    aligned, certified = allowed[0], criterion.certifies(best) and best.alpha != "0"
    edge = best is tried[-1] and best is not aligned
    if best is aligned:
        advice = "" if doubtful else ": do not extrapolate"
        reason = _none_is_better(tried, allowed, criterion) + advice
    else:
        level = f"{100 * confidence:g}% interval"
        if len(tried) > 2:
            level += f" for all {len(tried) - 1} alphas at once"
        reason = _taken(best, len(allowed), certified, criterion, level)
    if edge:
        reason += f"; the grid ends here, try {' and '.join(_beyond(tried))} next"
    if require_certified and not certified and best is not aligned:
        reason = f"alpha 0 by select.require_certified: alpha {best.alpha} has the {reason}"
        best, edge = aligned, False
    return Choice(best.alpha, certified, edge, reason)


def _none_is_better(tried: list[Candidate], allowed: list[Candidate], criterion: Criterion) -> str:
    """Why alpha 0 was chosen."""
    if np.isnan(allowed[0].value):
        return (
            f"the {criterion.words} of alpha 0's responses is not known, so nothing can be compared with it"
        )
    if len(allowed) == 1 < len(tried):
        return f"no alpha above 0 may be chosen, the smallest tried is {tried[1].alpha}"
    smallest = f", the smallest tried is {tried[1].alpha}" if len(tried) > 1 else ""
    no = f"has a larger {criterion.words}" if criterion.maximum else f"has no higher {criterion.words}"
    return f"no alpha above 0 {no}{smallest}"


def _taken(best: Candidate, number: int, certified: bool, criterion: Criterion, level: str) -> str:
    """Why `best` was chosen among `number` alphas, and what is known about its change."""
    which = (
        f"largest {criterion.words} of"
        if criterion.maximum
        else f"largest one with no higher {criterion.words} among"
    )
    change = f"{criterion.change} {with_interval(best.change, best.low, best.high)} over alpha 0"
    if certified:
        side = "lies above 0" if criterion.maximum else "does not lie above 0"
        return f"{which} {number} alphas; {change}: its {level} {side}"
    if not np.isfinite([best.low, best.high]).all():
        return f"{which} {number} alphas, but not certified: {change}, and its {level} is not known"
    return f"{which} {number} alphas, but not certified: {change}, the {level} contains 0"


def _beyond(tried: list[Candidate]) -> list[str]:
    """Two alphas past the end of the grid: one and two of its last steps further."""
    last, before = Decimal(tried[-1].alpha), Decimal(tried[-2].alpha)
    return [spell(float(last + steps * (last - before))) for steps in (1, 2)]
