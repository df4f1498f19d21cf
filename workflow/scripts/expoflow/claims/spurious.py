"""What extrapolation amplifies beside quality: length and style (sections 2.2, 4.2 and 4.3)."""

from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit

from expoflow.claims.run import Run, correlation
from expoflow.claims.statement import Measure, measured, statement
from expoflow.selection.statistics import Values

REFITS = 500


@statement(7, "4.2, Figure 6", "ExPO lengthens responses")
def responses_lengthen(run: Run) -> Iterator[Measure]:
    """Growth of the mean length from alpha 0 to the chosen alpha, in tokens, of the shares of the data."""
    for pair in run.ordered("fractions", "fraction"):
        yield measured("tokens", pair, run.gain(pair, "length"), "above", n=run.prompts(pair))


@statement(7, "4.2, Figure 6", "With more data, a small alpha lengthens responses more")
def data_lengthens(run: Run) -> Iterator[Measure]:
    """Rank correlation of the share with the growth of the length at the smallest alpha that all grids reach; between
    a grid's alphas the length is linear."""
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


@statement(7, "4.2", "Rewards are highest at a moderate length, not at the longest")
def best_length_is_moderate(run: Run) -> Iterator[Measure]:
    """Mean length at the grid's largest alpha less that at the chosen alpha, in tokens."""
    for pair in run.ordered("fractions", "fraction"):
        longest = run.draws(pair, "length")[:, -1]
        yield measured("tokens", pair, longest - run.peak(pair, "length"), "above", n=run.prompts(pair))


@statement(7, "2.2", "Beside what is good, ExPO amplifies spurious features")
def spurious_features_grow(run: Run) -> Iterator[Measure]:
    """Closings a response (one is enough) from alpha 0 to the chosen alpha; what else changes is told, per response."""
    for pair in run.ordered("fractions", "fraction") if run.knows_quality else ():
        yield measured("closings", pair, run.gain(pair, "closings"), "above", n=run.prompts(pair))
        for name in ("correct", "right_reason", "polite", "rude", "hedge", "repeats", "malformed"):
            yield measured(name, pair, run.gain(pair, name))


def _biases(run: Run) -> list[str]:
    """The pair with the smaller length bias, and the one with the larger."""
    return run.ordered("length_bias", "length_bias")


@statement(7, "4.2", "The growth of the length comes from the annotator's length bias")
def bias_lengthens(run: Run) -> Iterator[Measure]:
    """Growth of the length from alpha 0 to the chosen alpha of the biased training (linear between alphas): biased less
    unbiased, in tokens."""
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


@statement(7, "4.2", "Without that bias, responses do not lengthen")
def no_bias_no_growth(run: Run) -> Iterator[Measure]:
    """Growth of the length from alpha 0 to the chosen alpha of the unbiased training, in tokens."""
    if pairs := _biases(run):
        yield measured("tokens", pairs[0], run.gain(pairs[0], "length"), "not above", n=run.prompts(pairs[0]))


@statement(7, "4.2", "Without that bias, peak and gain rise")
def no_bias_raises_peak(run: Run) -> Iterator[Measure]:
    """Reward at the chosen alpha, and its gain, on the dev prompts: unbiased less biased."""
    if pairs := _biases(run):
        without, biased = pairs
        subject, number = f"{without} less {biased}", run.prompts(biased)
        yield measured("reward", subject, run.peak(without) - run.peak(biased), "above", n=number)
        yield measured("gain", subject, run.gain(without) - run.gain(biased), "above", n=number)
        if run.knows_quality:
            difference = run.peak(without, "quality") - run.peak(biased, "quality")
            yield measured("quality", subject, difference, n=number)


@statement(7, "3.2, Table 1", "ExPO wins against the aligned model also where length is controlled")
def wins_with_length_controlled(run: Run) -> Iterator[Measure]:
    """Win rate in percent over 50 on the test prompts, the judge being the true quality (the reward where that is not
    known), by AlpacaEval's model of length: a logistic regression on the model and tanh of the difference of lengths,
    read at no difference. AlpacaEval's own figure is defined on its 805 instructions alone. The plain win rate is told."""
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
    """The chance to be preferred at equal length: logit(preferred) = a + b * tanh(longer / sd), fitted by maximum
    likelihood; shapes (prompts,). Without any difference of length it is the mean.
    """
    if not longer.std():
        return float(preferred.mean())
    design = np.stack([np.ones(len(longer)), np.tanh(longer / longer.std())], axis=1)
    weights = np.array([logit(np.clip(preferred.mean(), 1e-6, 1 - 1e-6)), 0.0])
    for _ in range(50):  # Newton's steps; a little ridge keeps separable data finite
        chance = expit(design @ weights)
        slope = design.T @ (preferred - chance) - 1e-3 * weights
        curvature = design.T @ (design * (chance * (1 - chance))[:, None]) + 1e-3 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    return float(expit(weights[0]))


def _drawn(statistic, *values: Values) -> Values:
    """Estimate and bootstrap draws of a statistic over prompts: shape (1 + REFITS,)."""
    rng = np.random.default_rng(0)
    number = len(values[0])
    rows = [np.arange(number), *rng.integers(number, size=(REFITS, number))]
    return np.array([statistic(*(each[row] for each in values)) for row in rows])
