"""The choice of alpha: pure, from a table with one row per alpha."""

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from expoflow.config.base import spell
from expoflow.config.stages import SelectConfig
from expoflow.selection.statistics import Values

MODELS = {  # by criterion: under which responses are scored
    "reward": (),
    "nll": ("aligned",),
    "implicit": ("sft", "aligned", "own"),
}


def scored_under(select: SelectConfig) -> tuple[str, ...]:
    """Names of the models under which responses are scored for what chooses alpha and what is compared with it."""
    return max((MODELS[name] for name in (select.by, *select.others())), key=len)


@dataclass(frozen=True)
class Candidate:
    """One alpha: the mean of what is chosen by, its change from alpha 0 with interval, and its share of choices."""

    alpha: str
    value: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """The chosen alpha, whether its change is certified, whether the grid ended there, and why."""

    alpha: str
    certified: bool
    edge: bool
    reason: str


@dataclass(frozen=True)
class Criterion:
    """What alpha is chosen by: its name in words, and whether alphas are taken by its maximum.

    Else the largest alpha is taken whose value is not above alpha 0's.
    """

    words: str
    change: str
    maximum: bool = True

    def pick(self, values: Values) -> NDArray[np.int64]:
        """Index of the chosen candidate for every row of `values`, shape (rows, candidates), alpha 0 first."""
        if self.maximum:
            return values.argmax(axis=1)
        allowed = values <= values[:, :1]
        return values.shape[1] - 1 - allowed[:, ::-1].argmax(axis=1)

    def certifies(self, candidate: Candidate) -> bool:
        """Whether the interval of the change holds no value that would speak against the choice."""
        return candidate.low > 0 if self.maximum else candidate.high <= 0


CRITERIA = {
    "reward": Criterion("mean reward", "gain"),
    "nll": Criterion("NLL under the aligned model", "change", maximum=False),
    "implicit": Criterion("implicit reward less KL", "gain"),
}


def choose(
    candidates: list[Candidate], confidence: float, require_certified: bool = False, by: str = "reward"
) -> Choice:
    """The alpha >= 0 that is best by reward (paper, Appendix E), nll or implicit; the smaller one of equal ones.

    nll takes the largest alpha whose own responses are, a token, no less likely under the aligned model than
    those of alpha 0. With `require_certified` the choice falls back to alpha 0 unless the interval of the
    change certifies it. `candidates` must hold alpha 0.
    """
    criterion = CRITERIA[by]
    allowed = sorted((c for c in candidates if float(c.alpha) >= 0), key=lambda c: float(c.alpha))
    best = allowed[criterion.pick(np.array([[c.value for c in allowed]]))[0]]
    aligned, certified = allowed[0], criterion.certifies(best) and best.alpha != "0"
    level = f"{100 * confidence:g}%"
    change = f"{criterion.change} {best.change:.2f} [{best.low:.2f}, {best.high:.2f}] over alpha 0"
    edge = best is allowed[-1] and best is not aligned
    which = (
        f"largest {criterion.words} of"
        if criterion.maximum
        else "largest one with no higher " + criterion.words + " among"
    )
    if best is aligned:
        smallest = f", the smallest tried is {allowed[1].alpha}" if len(allowed) > 1 else ""
        no = f"has a larger {criterion.words}" if criterion.maximum else f"has no higher {criterion.words}"
        reason = f"no alpha above 0 {no}{smallest}: do not extrapolate"
    elif certified:
        side = "lies above 0" if criterion.maximum else "does not lie above 0"
        reason = f"{which} {len(allowed)} alphas; {change}: its {level} interval {side}"
    else:
        reason = f"{which} {len(allowed)} alphas, but not certified: {change}, the {level} interval holds 0"
    if edge:
        reason += f"; the grid ends here, try {' and '.join(_beyond(allowed))} next"
    if require_certified and not certified and best is not aligned:
        reason = f"alpha 0 by select.require_certified: alpha {best.alpha} has the {reason}"
        best, edge = aligned, False
    return Choice(best.alpha, certified, edge, reason)


def _beyond(allowed: list[Candidate]) -> list[str]:
    """Two alphas past the grid's end, one and two of its last steps on."""
    last, before = Decimal(allowed[-1].alpha), Decimal(allowed[-2].alpha)
    return [spell(float(last + steps * (last - before))) for steps in (1, 2)]
