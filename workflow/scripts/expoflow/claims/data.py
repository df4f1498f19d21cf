"""More and less preference data, and its noise: sections 4.2 and 2.2."""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run, correlation
from expoflow.claims.statement import Measure, measured, statement


def _fractions(run: Run) -> list[str]:
    return run.ordered("fractions", "fraction")


def _named(run: Run, pair: str, setting: str = "fraction") -> str:
    return f"{pair} ({run.config.setting(pair, setting):g})"


@statement(4, "4.2, Table 2", "With the least data, ExPO cannot reach what it reaches with more")
def least_data_is_capped(run: Run) -> Iterator[Measure]:
    """Reward with ExPO on the test prompts: the best larger share of the data less the smallest share."""
    if pairs := _fractions(run):
        best = max(pairs[1:], key=lambda pair: run.test(pair, "expo")[0])
        difference = run.test(best, "expo") - run.test(pairs[0], "expo")
        yield measured("reward", f"{_named(run, best)} less {_named(run, pairs[0])}", difference, "above")


@statement(4, "4.2, Table 2", "A medium share of the data with ExPO is ahead of all data with ExPO")
def medium_share_is_best(run: Run) -> Iterator[Measure]:
    """Reward with ExPO on the test prompts: the best share below 100 % less the model trained on all data."""
    if len(pairs := _fractions(run)) > 1:
        best = max(pairs[:-1], key=lambda pair: run.test(pair, "expo")[0])
        for quantity in ["reward", *(["quality"] if run.knows_quality else [])]:
            difference = run.test(best, "expo", quantity) - run.test(pairs[-1], "expo", quantity)
            expected = "above" if quantity == "reward" else ""
            yield measured(
                quantity, f"{_named(run, best)} less {_named(run, pairs[-1])}", difference, expected
            )


@statement(4, "4.2, Table 2", "A share of the data with ExPO surpasses training on all data")
def share_beats_all_data(run: Run) -> Iterator[Measure]:
    """Reward with ExPO on the test prompts less that of the model trained on all data, without ExPO.

    Expected of one share: the best one; told of every share, and from which one on the interval lies above 0.
    """
    if len(pairs := _fractions(run)) < 2:
        return
    full = run.test(pairs[-1], "aligned")
    ahead = {pair: run.test(pair, "expo") - full for pair in pairs[:-1]}
    best = max(ahead, key=lambda pair: ahead[pair][0])
    yield measured("reward", "the best share", ahead[best], "above", note=best)
    told = [measured("reward", _named(run, pair), ahead[pair]) for pair in ahead]
    yield from told
    certain = [
        run.config.setting(pair, "fraction") for pair, each in zip(ahead, told, strict=True) if each.low > 0
    ]
    if certain:
        yield measured("first share that is ahead", "of the data", min(certain))


@statement(4, "4.2, Figure 6", "Gain is largest for a medium share, and shrinks with more data")
def gain_shrinks_with_data(run: Run) -> Iterator[Measure]:
    """Gain in reward on the test prompts: that of the best share below 100 % less that of all data."""
    if len(pairs := _fractions(run)) > 1:
        gains = {pair: run.test(pair, "expo") - run.test(pair, "aligned") for pair in pairs}
        best = max(pairs[:-1], key=lambda pair: gains[pair][0])
        yield measured(
            "gain",
            f"{_named(run, best)} less {_named(run, pairs[-1])}",
            gains[best] - gains[pairs[-1]],
            "above",
        )
        for pair, gain in gains.items():
            yield measured("gain", _named(run, pair), gain)


@statement(4, "4.2, Figure 6", "The best alpha falls with more data")
def alpha_falls_with_data(run: Run) -> Iterator[Measure]:
    """Rank correlation of share and best alpha; in every bootstrap draw of the dev prompts alpha is chosen anew."""
    yield from _trend(run, "fractions", "fraction", "below", gain=False)


@statement(9, "2.2", "Best alpha and gain grow with DPO's beta, for more regularization leaves more to gain")
def beta_leaves_room(run: Run) -> Iterator[Measure]:
    """Rank correlation of beta with the best alpha, chosen anew in every draw, and the gain on the test prompts,
    largest beta less smallest."""
    yield from _trend(run, "betas", "beta", "above")


@statement(9, "2.2", "Best alpha and gain grow with label noise, for a sparser signal leaves more to gain")
def noise_leaves_room(run: Run) -> Iterator[Measure]:
    """As for beta, with the share of labels that are turned round."""
    yield from _trend(run, "label_noise", "label_noise", "above")


def _trend(run: Run, key: str, setting: str, expected: str, gain: bool = True) -> Iterator[Measure]:
    """The best alpha, and the gain on the test prompts, against a setting of the training."""
    pairs = run.ordered(key, setting)
    if len(pairs) < 2:
        return
    best = [run.best_alphas(pair) for pair in pairs]
    values = [run.config.setting(pair, setting) for pair in pairs]
    yield measured("correlation with best alpha", key, correlation(values, best), expected, n=len(pairs))
    gains = {pair: run.test(pair, "expo") - run.test(pair, "aligned") for pair in pairs} if gain else {}
    if gain:
        yield measured("gain, largest less smallest", key, gains[pairs[-1]] - gains[pairs[0]], expected)
    for pair, alphas in zip(pairs, best, strict=True):
        yield measured(
            "best alpha", _named(run, pair, setting), np.concatenate([[run.best_alpha(pair)], alphas[1:]])
        )
        if gain:
            yield measured("gain", _named(run, pair, setting), gains[pair])
