"""What extrapolation amplifies besides quality: length and style (sections 2.2, 4.2 and 4.3)."""

from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit

from expoflow.claims.run import Run, correlation
from expoflow.claims.statement import Measure, measured, statement
from expoflow.selection.statistics import Values

REFITS = 500


@statement(7, "4.2, Figure 6", "ExPO lengthens responses", "growth of the length (tokens)")
def responses_lengthen(run: Run) -> Iterator[Measure]:
    """The growth of the mean length, in tokens, from alpha 0 to the best alpha, for every share of
    the data.
    """
    for pair in run.ordered("fractions", "fraction"):
        yield measured("tokens", pair, run.gain(pair, "length"), "above", n=run.prompts(pair))


@statement(
    7,
    "4.2, Figure 6",
    "With more data, a small alpha lengthens responses more",
    "rank correlation of the share with the growth of the length",
)
def data_lengthens(run: Run) -> Iterator[Measure]:
    """Spearman's rank correlation of the share of the data with the growth of the mean length. The
    growth is taken from alpha 0 to the largest alpha that all grids reach. The length is linear
    between the alphas of a grid.
    """
    pairs = run.ordered("fractions", "fraction")
    if len(pairs) < 2:
        return
    alpha = min(float(run.grid(pair)[-1]) for pair in pairs)
    growth = [run.at(pair, "length", alpha) - run.aligned_mean(pair, "length") for pair in pairs]
    shares = [run.config.setting(pair, "fraction") for pair in pairs]
    note = f"at alpha {alpha:g}"
    yield measured(
        "correlation with tokens", "fractions", correlation(shares, growth), "above", n=len(pairs), note=note
    )
    for pair, each in zip(pairs, growth, strict=True):
        yield measured("tokens", pair, each, note=note)


@statement(
    7,
    "4.2",
    "Rewards are highest at a moderate length, not at the longest",
    "length at the largest alpha minus length at the best alpha (tokens)",
)
def best_length_is_moderate(run: Run) -> Iterator[Measure]:
    """The mean length at the largest alpha of the grid minus that at the best alpha, in tokens, for
    every share of the data.
    """
    for pair in run.ordered("fractions", "fraction"):
        longest = run.draws(pair, "length")[:, -1]
        yield measured("tokens", pair, longest - run.peak(pair, "length"), "above", n=run.prompts(pair))


@statement(
    7,
    "2.2",
    "Besides good features, ExPO amplifies spurious ones",
    "growth of the number of closings per response",
)
def spurious_features_grow(run: Run) -> Iterator[Measure]:
    """The change of the number of closings per response from alpha 0 to the best alpha. One closing
    is enough. The changes of other features of a response are shown beside it.
    """
    for pair in run.ordered("fractions", "fraction") if run.knows_quality else ():
        yield measured("closings", pair, run.gain(pair, "closings"), "above", n=run.prompts(pair))
        for name in ("correct", "right_reason", "polite", "rude", "hedge", "repeats", "malformed"):
            yield measured(name, pair, run.gain(pair, name))


def _biases(run: Run) -> list[str]:
    """The pair with the smaller length bias, then the pair with the larger one."""
    return run.ordered("length_bias", "length_bias")


@statement(
    7,
    "4.2",
    "The length grows because of the annotator's length bias",
    "growth of the length, biased minus unbiased training (tokens)",
)
def bias_lengthens(run: Run) -> Iterator[Measure]:
    """The growth of the mean length, in tokens, from alpha 0 to the best alpha of the biased
    training: biased minus unbiased training. That alpha is at most the end of the unbiased grid.
    The length is linear between the alphas of a grid.
    """
    if pairs := _biases(run):
        without, biased = pairs
        alpha = min(run.best_alpha(biased), float(run.grid(without)[-1]))
        growth = {pair: run.at(pair, "length", alpha) - run.aligned_mean(pair, "length") for pair in pairs}
        note, difference = f"at alpha {alpha:g}", growth[biased] - growth[without]
        yield measured(
            "tokens", f"{biased} less {without}", difference, "above", n=run.prompts(biased), note=note
        )
        for pair in pairs:
            yield measured("tokens", pair, growth[pair], note=note)


@statement(
    7,
    "4.2",
    "Without the annotator's length bias, responses do not lengthen",
    "growth of the length, unbiased training (tokens)",
)
def no_bias_no_growth(run: Run) -> Iterator[Measure]:
    """The growth of the mean length, in tokens, from alpha 0 to the best alpha of the unbiased
    training.
    """
    if pairs := _biases(run):
        yield measured("tokens", pairs[0], run.gain(pairs[0], "length"), "not above", n=run.prompts(pairs[0]))


@statement(
    7,
    "4.2",
    "Without the annotator's length bias, peak and gain rise",
    "reward at the best alpha, unbiased minus biased training",
)
def no_bias_raises_peak(run: Run) -> Iterator[Measure]:
    """The reward at the best alpha and its gain over alpha 0, on the dev prompts: unbiased minus
    biased training. The true quality at the best alpha is shown beside them.
    """
    if pairs := _biases(run):
        without, biased = pairs
        subject, number = f"{without} less {biased}", run.prompts(biased)
        yield measured("reward", subject, run.peak(without) - run.peak(biased), "above", n=number)
        yield measured("gain", subject, run.gain(without) - run.gain(biased), "above", n=number)
        if run.knows_quality:
            difference = run.peak(without, "quality") - run.peak(biased, "quality")
            yield measured("quality", subject, difference, n=number)


@statement(
    7,
    "3.2, Table 1",
    "ExPO wins against the aligned model even if length is controlled",
    "length-controlled win rate minus 50 (percentage points)",
)
def wins_with_length_controlled(run: Run) -> Iterator[Measure]:
    """The win rate of ExPO against the aligned model on the test prompts, in percent, minus 50. The
    judge is the true quality, or the reward if that is not known. Length is controlled by
    AlpacaEval's model: a logistic regression on the model and on tanh of the difference of lengths,
    read at no difference. AlpacaEval's own figure is defined on its 805 instructions only. The
    plain win rate is shown beside it.
    """
    pairs = [
        *run.ordered("fractions", "fraction"),
        *run.ordered("length_bias", "length_bias"),
        *run.claims.labelled,
    ]
    for pair in dict.fromkeys(pairs):
        quantity = "quality" if run.knows_quality else "reward"
        after, before = (run.test_values(pair, variant, quantity) for variant in ("expo", "aligned"))
        longer = run.test_values(pair, "expo", "length") - run.test_values(pair, "aligned", "length")
        preferred = expit(after - before)
        controlled = 100 * _drawn(length_controlled, preferred, longer) - 50
        plain = 100 * _drawn(lambda chance, _: chance.mean(), preferred, longer) - 50
        yield measured("length-controlled", pair, controlled, "above", n=len(preferred))
        yield measured("plain", pair, plain, n=len(preferred))


def length_controlled(preferred: Values, longer: Values) -> float:
    """The chance to be preferred at equal length.

    It is the value at longer = 0 of logit(preferred) = a + b * tanh(longer / sd), fitted by maximum
    likelihood. Both arrays have shape (prompts,). If no length differs, it is the mean.
    """
    if not longer.std():
        return float(preferred.mean())
    design = np.stack([np.ones(len(longer)), np.tanh(longer / longer.std())], axis=1)
    weights = np.array([logit(np.clip(preferred.mean(), 1e-6, 1 - 1e-6)), 0.0])
    for _ in range(50):  # Newton's method; a small ridge keeps the weights finite on separable data
        chance = expit(design @ weights)
        slope = design.T @ (preferred - chance) - 1e-3 * weights
        curvature = design.T @ (design * (chance * (1 - chance))[:, None]) + 1e-3 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    return float(expit(weights[0]))


def _drawn(statistic, *values: Values) -> Values:
    """Estimate and bootstrap draws of a statistic over prompts, shape (1 + REFITS,)."""
    rng = np.random.default_rng(0)
    number = len(values[0])
    rows = [np.arange(number), *rng.integers(number, size=(REFITS, number))]
    return np.array([statistic(*(each[row] for each in values)) for row in rows])
