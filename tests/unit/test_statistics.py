"""Intervals, p-values and shares against what is known."""

import numpy as np
import pytest
from expoflow.selection import statistics
from scipy import stats

RNG = np.random.default_rng(0)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    covered = 0
    for trial in range(200):
        low, high = statistics.mean_interval(RNG.exponential(size=60), 0.9, 300, seed=trial)
        covered += low <= 1 <= high
    assert 0.82 <= covered / 200 <= 0.97


def test_the_interval_is_near_students_for_normal_values():
    values = RNG.normal(2, 1, size=400)
    student = stats.t.interval(0.95, 399, values.mean(), statistics.standard_error(values))
    assert statistics.mean_interval(values, 0.95, 5000) == pytest.approx(student, abs=0.02)


def test_a_constant_has_no_width():
    assert statistics.mean_interval(np.full(10, 0.5), 0.95, 200) == (0.5, 0.5)
    assert statistics.mean_interval(np.array([3.0]), 0.95, 200) == (3.0, 3.0)


def test_values_that_are_almost_alike_have_a_finite_interval():
    for values in ([0.1, 0.1 + 1e-17, np.nextafter(0.1, 1)], [0.0] * 59 + [1.0], [1.1 - 1.0, 2.1 - 2.0, 0.1]):
        low, high = statistics.mean_interval(np.array(values), 0.95, 500)
        assert min(values) <= low <= high <= max(values) + 1e-16


def test_what_is_not_finite_proves_nothing():
    for value in (np.nan, np.inf, -np.inf):
        values = np.append(np.ones(20), value)
        assert np.isnan(statistics.mean_interval(values, 0.95, 200)).all()
        assert statistics.paired_p_value(values, 200) == 1


def test_the_p_value_is_exact_for_few_prompts():
    assert statistics.paired_p_value(np.array([1.0, 2, 3, 4, 5, 6]), 5000) == pytest.approx(2 / 64)
    assert statistics.paired_p_value(np.zeros(5), 500) == 1


def test_the_p_value_agrees_with_students_for_many():
    values = RNG.normal(0.1, 1, size=300)
    student = stats.ttest_1samp(values, 0).pvalue
    assert statistics.paired_p_value(values, 9999) == pytest.approx(student, abs=0.02)


def test_resamples_draw_as_many_prompts_as_there_are():
    drawn = statistics.resampled(9, 2000, seed=1)
    assert drawn.shape == (2000, 9)
    assert (drawn.sum(axis=1) == 9).all()
    assert drawn.mean(axis=0) == pytest.approx(1, abs=0.1)
    assert (drawn == statistics.resampled(9, 2000, seed=1)).all()
