"""Means and paired differences, with intervals over prompts (not over samples).

A prompt's value is the mean over its samples. Prompts are resampled, since the samples of one
prompt are not independent of each other.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]


def mean_interval(values: Values, confidence: float, resamples: int, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (BCa) of the mean of `values`, shape (prompts,).

    If all values are equal, the interval has no width. If the values are too similar for BCa, it is
    the percentile interval. It is NaN if a value is not finite.
    """
    if not np.isfinite(values).all():
        return float("nan"), float("nan")
    if len(values) < 2 or np.ptp(values) == 0:
        return float(np.mean(values)), float(np.mean(values))
    result = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=500,
        rng=np.random.default_rng(seed),
    )
    found = [result.confidence_interval.low, result.confidence_interval.high]
    if not np.isfinite(found).all():
        tail = (1 - confidence) / 2
        found = np.quantile(result.bootstrap_distribution, [tail, 1 - tail])
    return float(found[0]), float(found[1])


def paired_p_value(differences: Values, resamples: int, seed: int = 0) -> float:
    """Two-sided p-value of mean(differences) = 0, by random changes of sign.

    `differences` has shape (prompts,). The p-value is 1 if all differences are 0, if there is a
    single prompt, or if a difference is not finite: these prove nothing.
    """
    if len(differences) < 2 or not np.any(differences) or not np.isfinite(differences).all():
        return 1.0
    result = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=500,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def share_interval(share: float, n: int, confidence: float) -> tuple[float, float]:
    """Exact interval (Clopper-Pearson) of a share of `n`.

    `share * n` need not be a whole number, since ties count half. Values between 0 and 1 vary less
    than wins and losses with the same mean, so the interval is slightly too wide for them. It has a
    width even if all have won.
    """
    tail, wins = (1 - confidence) / 2, share * n
    low = stats.beta.ppf(tail, wins, n - wins + 1) if share > 0 else 0.0
    high = stats.beta.isf(tail, wins + 1, n - wins) if share < 1 else 1.0
    return float(low), float(high)


def share_p_value(share: float, n: int) -> float:
    """Two-sided p-value of a share against one half.

    It is below 1 - confidence exactly if `share_interval` does not contain one half.
    """
    wins = share * n
    more = stats.beta.cdf(0.5, wins, n - wins + 1) if share > 0 else 1.0
    less = stats.beta.sf(0.5, wins + 1, n - wins) if share < 1 else 1.0
    return float(min(1.0, 2 * min(more, less)))


def resampled(prompts: int, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """Bootstrap resamples: how often each draws each prompt, shape (resamples, prompts)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)


def simultaneous(changes: Values, draws: Values, prompts: int, confidence: float) -> tuple[Values, Values]:
    """Simultaneous intervals of several changes: their low and high ends, shape (changes,).

    `changes`, shape (changes,), were measured on `prompts` prompts. `draws`, shape (resamples,
    changes), are the same changes on bootstrap resamples of these prompts. All changes in a row
    come from the same resample, so changes that move together widen the intervals little.

    Every change is measured in units of its own standard error. All intervals reach equally far to
    both sides: as far as the largest of all changes does in the farther of the two tails (max-t;
    Montiel Olea and Plagborg-Moller 2019, "Simultaneous confidence bands"). The bootstrap is too
    narrow for few prompts, so the reach is multiplied by the ratio of Student's quantile to the
    normal one, and by the correction for n - 1 (Hesterberg 2015, "What teachers should know about
    the bootstrap").

    The interval of a change that is the same in all draws has no width. It is NaN if the change is
    not finite in more draws than the interval leaves out. All intervals are NaN if there are too
    few prompts (`proves`).
    """
    low, high = np.full(len(changes), np.nan), np.full(len(changes), np.nan)
    if not proves(prompts, confidence):
        return low, high
    draws = np.where(np.isfinite(draws), draws, np.nan)
    known = np.isfinite(changes) & (np.isfinite(draws).mean(axis=0) >= confidence)
    low[known] = high[known] = changes[known]
    errors = np.zeros(len(changes))
    errors[known] = np.nanstd(draws[:, known], axis=0)
    if (moving := errors > 0).any():
        tail = (1 - confidence) / 2
        scores = (draws[:, moving] - changes[moving]) / errors[moving]
        reach = max(
            -np.nanquantile(np.fmin.reduce(scores, axis=1), tail),
            np.nanquantile(np.fmax.reduce(scores, axis=1), 1 - tail),
        )
        reach *= (
            np.sqrt(prompts / (prompts - 1)) * stats.t.ppf(1 - tail, prompts - 1) / stats.norm.ppf(1 - tail)
        )
        low[moving] -= reach * errors[moving]
        high[moving] += reach * errors[moving]
    return low, high


def proves(prompts: int, confidence: float) -> bool:
    """Whether this many prompts can prove a gain.

    With too few prompts, all of them go up by chance more often than the level allows.
    """
    return 2.0 ** (1 - prompts) <= 1 - confidence


def optimism(changes: Values, draws: Values, picked: NDArray[np.int64]) -> float:
    """How much better the largest of several changes looks because it was picked for its size.

    This is a bootstrap estimate. It is the mean difference between the change that is picked in a
    resample, as measured there, and the same change on all prompts. Shapes: `changes` (changes,),
    `draws` (resamples, changes), `picked` (resamples,). Resamples with an unknown difference do not
    count.
    """
    more = draws[np.arange(len(draws)), picked] - changes[picked]
    return float(np.mean(more[np.isfinite(more)])) if np.isfinite(more).any() else float("nan")


def standard_error(values: Values) -> float:
    """Standard error of the mean of `values`, shape (prompts,)."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
