"""Metrics over questions: a mean, and a paired difference with its interval and p-value."""

import numpy as np

from expoflow.config.stages import SelectConfig
from expoflow.results import Metric
from expoflow.selection import statistics


def mean(name: str, values: np.ndarray) -> Metric:
    """Mean of `values`, one per question, with its standard error."""
    error = statistics.standard_error(values)
    return Metric(metric=name, value=float(values.mean()), standard_error=error, n=len(values))


def difference(name: str, values: np.ndarray, config: SelectConfig, null: float = 0.0) -> Metric:
    """Mean of paired differences, one per question: bootstrap interval, and p-value of `null`."""
    low, high = statistics.mean_interval(values, config.confidence, config.resamples)
    p_value = statistics.paired_p_value(values - null, config.resamples)
    return mean(name, values).model_copy(update={"low": low, "high": high, "p_value": p_value})


def share(name: str, values: np.ndarray, confidence: float) -> Metric:
    """Mean of `values` from 0 to 1, one per question, such as wins.

    It has an exact interval and the p-value of one half.
    """
    metric = mean(name, values)
    low, high = statistics.share_interval(metric.value, metric.n, confidence)
    # if all values are equal, their spread does not show how uncertain the mean is
    error = metric.standard_error or None
    p_value = statistics.share_p_value(metric.value, metric.n)
    return metric.model_copy(update={"standard_error": error, "low": low, "high": high, "p_value": p_value})
