"""More and less preference data, and its noise (sections 4.2 and 2.2)."""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run, correlation
from expoflow.claims.statement import Measure, measured, statement


def _fractions(run: Run) -> list[str]:
    return run.ordered("fractions", "fraction")


def _named(run: Run, pair: str, setting: str = "fraction") -> str:
    return f"{pair} ({run.config.setting(pair, setting):g})"


@statement(
    4,
    "4.2, Table 2",
    "With the least data, ExPO cannot reach what it reaches with more",
    "reward with ExPO, best larger share minus smallest share",
)
def least_data_is_capped(run: Run) -> Iterator[Measure]:
    """The reward with ExPO on the test prompts: the best of the larger shares of the data minus the
    smallest share.
    """
    if pairs := _fractions(run):
        best = max(pairs[1:], key=lambda pair: run.test(pair, "expo")[0])
        difference = run.test(best, "expo") - run.test(pairs[0], "expo")
        yield measured("reward", f"{_named(run, best)} less {_named(run, pairs[0])}", difference, "above")


@statement(
    4,
    "4.2, Table 2",
    "A medium share of the data with ExPO beats all data with ExPO",
    "reward with ExPO, best share below 100 % minus all data",
)
def medium_share_is_best(run: Run) -> Iterator[Measure]:
    """The reward with ExPO on the test prompts: the best share below 100 % minus all data. The same
    difference in true quality is also shown.
    """
    if len(pairs := _fractions(run)) > 1:
        best = max(pairs[:-1], key=lambda pair: run.test(pair, "expo")[0])
        for quantity in ["reward", *(["quality"] if run.knows_quality else [])]:
            difference = run.test(best, "expo", quantity) - run.test(pairs[-1], "expo", quantity)
            expected = "above" if quantity == "reward" else ""
            yield measured(
                quantity, f"{_named(run, best)} less {_named(run, pairs[-1])}", difference, expected
            )


@statement(
    4,
    "4.2, Table 2",
    "A share of the data with ExPO beats all data without ExPO",
    "reward, best share with ExPO minus all data without ExPO",
)
def share_beats_all_data(run: Run) -> Iterator[Measure]:
    """The reward on the test prompts: a share of the data with ExPO minus all data without ExPO.
    The verdict rests on the best share. Every share is shown, and also the smallest share with an
    interval above 0.
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


@statement(
    4,
    "4.2, Figure 6",
    "The gain is largest for a medium share, and shrinks with more data",
    "gain in reward, best share below 100 % minus all data",
)
def gain_shrinks_with_data(run: Run) -> Iterator[Measure]:
    """The gain in reward on the test prompts: the share below 100 % with the largest gain minus all
    data.
    """
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


@statement(
    4,
    "4.2, Figure 6",
    "The best alpha falls with more data",
    "rank correlation of the share with the best alpha",
)
def alpha_falls_with_data(run: Run) -> Iterator[Measure]:
    """Spearman's rank correlation of the share of the data with the best alpha. Alpha is chosen
    again in every bootstrap draw of the dev prompts.
    """
    yield from _trend(run, "fractions", "fraction", "below", gain=False)


@statement(
    9,
    "2.2",
    "Best alpha and gain grow with DPO's beta, because more regularization leaves more to gain",
    "rank correlation of beta with the best alpha",
)
def beta_leaves_room(run: Run) -> Iterator[Measure]:
    """Spearman's rank correlation of beta with the best alpha, which is chosen again in every
    bootstrap draw. The second number is the gain in reward on the test prompts: largest beta minus
    smallest.
    """
    yield from _trend(run, "betas", "beta", "above")


@statement(
    9,
    "2.2",
    "Best alpha and gain grow with label noise, because a sparser signal leaves more to gain",
    "rank correlation of the label noise with the best alpha",
)
def noise_leaves_room(run: Run) -> Iterator[Measure]:
    """Spearman's rank correlation of the share of flipped labels with the best alpha, which is
    chosen again in every bootstrap draw. The second number is the gain in reward on the test
    prompts: largest share minus smallest.
    """
    yield from _trend(run, "label_noise", "label_noise", "above")


def _trend(run: Run, key: str, setting: str, expected: str, gain: bool = True) -> Iterator[Measure]:
    """Measure the best alpha and the gain on the test prompts against a training setting."""
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
