"""The choice of alpha: pure, from a table with one row per alpha."""

from dataclasses import dataclass
from decimal import Decimal

from expoflow.config import spell


@dataclass(frozen=True)
class Candidate:
    """One alpha: mean reward, gain over alpha 0 with its interval, and its share of bootstrap choices."""

    alpha: str
    reward: float
    gain: float
    gain_low: float
    gain_high: float
    chosen_share: float


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, whether its gain is certified, whether the grid ended there, and why."""

    candidate: Candidate
    certified: bool
    edge: bool
    reason: str


def choose(candidates: list[Candidate], confidence: float, require_certified: bool = False) -> Choice:
    """The largest mean reward over alpha >= 0 (paper, Appendix E); the smaller alpha of equal ones.

    With `require_certified` the choice falls back to alpha 0 unless the interval of the gain lies above 0.
    `candidates` must hold alpha 0.
    """
    allowed = sorted((c for c in candidates if float(c.alpha) >= 0), key=lambda c: float(c.alpha))
    aligned = next(c for c in allowed if c.alpha == "0")
    best = max(allowed, key=lambda c: (c.reward, -float(c.alpha)))
    certified = best.gain_low > 0
    level = f"{100 * confidence:g}%"
    gain = f"gain {best.gain:.2f} [{best.gain_low:.2f}, {best.gain_high:.2f}] over alpha 0"
    edge = best is allowed[-1] and best is not aligned
    if best is aligned:
        smallest = f", the smallest tried is {allowed[1].alpha}" if len(allowed) > 1 else ""
        reason = f"no alpha above 0 has a larger mean reward{smallest}: do not extrapolate"
    elif certified:
        reason = f"largest mean reward of {len(allowed)} alphas; {gain}: its {level} interval lies above 0"
    else:
        reason = f"largest mean reward of {len(allowed)} alphas, but not certified: {gain}, the {level} interval holds 0"
    if edge:
        reason += f"; the grid ends here, try {' and '.join(_beyond(allowed))} next"
    if require_certified and not certified and best is not aligned:
        reason = f"alpha 0 by select.require_certified: alpha {best.alpha} has the {reason}"
        best, edge = aligned, False
    return Choice(best, certified, edge, reason)


def _beyond(allowed: list[Candidate]) -> list[str]:
    """Two alphas past the grid's end, one and two of its last steps on."""
    last, before = Decimal(allowed[-1].alpha), Decimal(allowed[-2].alpha)
    return [spell(float(last + steps * (last - before))) for steps in (1, 2)]
