"""Figures over tasks: means and paired differences.

A figure is a weighted mean over strata of documents.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from expoflow.config.stages import SelectConfig
from expoflow.results import Metric
from expoflow.selection import statistics

# The weight of a stratum in the figure, and the values of its documents, shape (documents,)
Strata = Sequence[tuple[float, np.ndarray]]


def mean(name: str, strata: Strata) -> Metric:
    """The weighted mean of the strata's means, with the standard error over documents."""
    variance = sum((weight * statistics.standard_error(values)) ** 2 for weight, values in strata)
    return Metric(
        metric=name,
        value=float(sum(weight * values.mean() for weight, values in strata)),
        standard_error=float(np.sqrt(variance)),
        n=sum(len(values) for _, values in strata),
    )


def difference(name: str, strata: Strata, config: SelectConfig) -> Metric:
    """The same for paired differences, with an interval.

    A single stratum has a bootstrap interval. Several have a normal one, because their sizes are
    fixed and not drawn.
    """
    metric = mean(name, strata)
    n = metric.n
    values = np.concatenate(
        [each * (weight * n / len(each)) for weight, each in strata]
    )  # their mean is the metric
    if metric.standard_error is None:  # a stratum has a single document
        return metric
    if len(strata) == 1:
        low, high = statistics.mean_interval(values, config.confidence, config.resamples)
    else:
        width = stats.norm.ppf((1 + config.confidence) / 2) * metric.standard_error
        low, high = metric.value - width, metric.value + width
    # a change of sign does nothing if both are equal, as for most documents
    p_value = statistics.paired_p_value(values[values != 0], config.resamples)
    return metric.model_copy(update={"low": float(low), "high": float(high), "p_value": p_value})
