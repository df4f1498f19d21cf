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


def normal_draws(changes: int, correlation: float, resamples: int = 40000) -> np.ndarray:
    """Draws of changes with standard error 1, every two of them correlated."""
    shared = RNG.normal(size=(resamples, 1))
    return correlation**0.5 * shared + (1 - correlation) ** 0.5 * RNG.normal(size=(resamples, changes))


@pytest.mark.parametrize("changes", [1, 2, 5, 20])
def test_simultaneous_intervals_of_independent_changes_are_sidaks(changes):
    low, high = statistics.simultaneous(np.zeros(changes), normal_draws(changes, 0), 10**6, 0.95)
    reach = stats.norm.ppf(0.975 ** (1 / changes))
    assert low == pytest.approx(np.full(changes, -reach), abs=0.06)
    assert high == pytest.approx(np.full(changes, reach), abs=0.06)


def test_changes_that_move_together_count_as_one():
    alone = stats.norm.ppf(0.975)
    _, high = statistics.simultaneous(np.zeros(20), normal_draws(20, 0.9999), 10**6, 0.95)
    assert high == pytest.approx(np.full(20, alone), abs=0.06)
    widths = [
        statistics.simultaneous(np.zeros(20), normal_draws(20, share), 10**6, 0.95)[1].mean()
        for share in (0.9, 0.5, 0.0)
    ]
    assert alone < widths[0] < widths[1] < widths[2]


def test_every_change_is_measured_in_its_own_error():
    draws = normal_draws(3, 0) * [1, 10, 100] + [5, 50, -500]
    low, high = statistics.simultaneous(np.array([5.0, 50, -500]), draws, 10**6, 0.95)
    assert (high - low) / (high - low)[0] == pytest.approx([1, 10, 100], rel=0.05)


def test_few_prompts_widen_an_interval_as_students_distribution_does():
    draws = normal_draws(1, 0)
    many, few = (statistics.simultaneous(np.zeros(1), draws, n, 0.95)[1] for n in (10**6, 10))
    assert few / many == pytest.approx(
        stats.t.ppf(0.975, 9) / stats.norm.ppf(0.975) * (10 / 9) ** 0.5, rel=1e-4
    )


def test_what_does_not_move_or_is_not_known_leaves_the_others_alone():
    draws = np.column_stack([normal_draws(1, 0), np.full(40000, 3.0), np.full(40000, np.nan)])
    draws[:1000, 0] = np.nan
    low, high = statistics.simultaneous(np.array([0.0, 3.0, np.nan]), draws, 1000, 0.95)
    assert (low[1], high[1]) == (3, 3)
    assert np.isnan([low[2], high[2]]).all()
    assert high[0] == pytest.approx(1.96, abs=0.06)
    draws[:3000, 0] = np.nan  # more than the interval leaves out
    assert np.isnan(statistics.simultaneous(np.array([0.0]), draws[:, :1], 1000, 0.95)[0]).all()


@pytest.mark.parametrize(("prompts", "confidence", "enough"), [(5, 0.95, False), (6, 0.95, True), (7, 0.99, False), (8, 0.99, True), (1, 0.5, False)])  # fmt: skip
def test_a_few_prompts_prove_nothing(prompts, confidence, enough):
    low, _ = statistics.simultaneous(np.array([2.0]), np.full((100, 1), 2.0), prompts, confidence)
    assert np.isfinite(low).all() == statistics.proves(prompts, confidence) == enough


def test_the_optimism_of_a_clear_winner_is_nothing_and_of_equal_ones_it_is_their_spread():
    draws = normal_draws(2, 0)
    clear, equal = np.array([0.0, 100.0]), np.zeros(2)
    assert statistics.optimism(clear, draws + clear, (draws + clear).argmax(axis=1)) == pytest.approx(
        0, abs=0.02
    )
    known = np.pi**-0.5  # the mean of the larger of two
    assert statistics.optimism(equal, draws, draws.argmax(axis=1)) == pytest.approx(known, abs=0.02)
    draws[:7, 0] = draws[:7, 1] = np.nan
    assert statistics.optimism(equal, draws, np.zeros(len(draws), int)) == pytest.approx(0, abs=0.02)
