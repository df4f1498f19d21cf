"""Means, paired differences and how sure they are: intervals over prompts, not over samples.

A prompt's value is the mean over its samples; prompts are what is resampled, since the samples of one
prompt are not independent of each other.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]


def mean_interval(values: Values, confidence: float, resamples: int, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (BCa) of the mean of `values`, shape (prompts,).

    A constant has no width. The percentile interval stands for it if values are too alike for BCa. NaN if a value is not finite.
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
    """Two-sided p-value of mean(differences) = 0 by random changes of sign, shape (prompts,).

    1 where all differences are 0, and for a single prompt or one that is not finite, which prove nothing.
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


def resampled(prompts: int, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """Bootstrap resamples: how often each prompt is drawn in each, shape (resamples, prompts)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)


def standard_error(values: Values) -> float:
    """Standard error of the mean of `values`, shape (prompts,)."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
