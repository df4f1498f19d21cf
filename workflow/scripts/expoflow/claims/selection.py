"""Choosing alpha with and without a reward model: the true quality that it costs (claim 13)."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement
from expoflow.selection.criteria import CRITERIA
from expoflow.selection.statistics import Values

WAYS = {"none": "alpha 0", **{name: f"by {name}" for name in CRITERIA}}  # the columns' headings


class Regret(NamedTuple):
    """What one way to choose alpha costs on one pair, on the prompts that choose alpha.

    `draws` are draws of the quality lost against the best alpha >= 0 of the same grid. That alpha
    stays the same in every draw.
    """

    pair: str
    kind: str
    by: str
    alpha: float
    best_alpha: float
    quality: float
    draws: Values

    @property
    def regret(self) -> float:
        """True quality lost, in points."""
        return float(self.draws[0])


def kind(run: Run, pair: str) -> str:
    """The first key of the section `claims` that names the pair, or `other` if none does."""
    named = (key for key, pairs in run.claims.named().items() if pair in pairs and key != "capability")
    dev = {each.trained_on_dev for each in run.config.pairs.values()}
    return next(named, "trained_on_dev" if pair in dev else "other").partition(".")[0]


@cache
def regrets(run: Run) -> list[Regret]:
    """The regrets of every pair that has an alpha above 0, by every way to choose.

    A way whose column is empty (select.compare) has no regret. Without true quality there is none.
    """
    found = []
    for pair in run.config.pairs if run.knows_quality else ():
        table = run.swept(pair)
        tried = table[table["alpha"] >= 0]
        if len(tried) < 2:
            continue
        quality = run.draws(pair, "quality")[:, tried.index]
        best = int(quality[0].argmax())
        left_out = ~run.allowed(pair)[tried.index]
        for by in WAYS:
            if by != "none" and tried[by].isna().any():
                continue
            values = None if by == "none" else tried[by].mask(left_out).to_numpy()
            place = 0 if values is None else int(CRITERIA[by].pick(values[None])[0])
            alphas = tried["alpha"].to_numpy()
            lost = quality[:, best] - quality[:, place]
            found.append(
                Regret(pair, kind(run, pair), by, alphas[place], alphas[best], quality[0, place], lost)
            )
    return found


def _by_way(run: Run, found: list[Regret]) -> dict[str, Values]:
    """Draws of the mean regret over pairs, by way to choose."""
    ways = {by: [each.draws for each in found if each.by == by] for by in WAYS}
    return {by: np.mean(draws, axis=0) for by, draws in ways.items() if draws}


@statement(
    13,
    "5, left open",
    "Choosing alpha without a reward model, by NLL, beats not extrapolating",
    "mean regret, alpha 0 minus by nll (points)",
)
def nll_beats_none(run: Run) -> Iterator[Measure]:
    """The mean regret over all pairs: at alpha 0 minus at the alpha that `nll` chooses. `nll` takes
    the largest alpha whose responses are at least as likely per token under the aligned model as
    that model's own.
    """
    yield from _better(run, "nll", "none", "above")


@statement(
    13,
    "5, left open",
    "Choosing alpha by NLL is no worse than choosing it by reward",
    "mean regret, by reward minus by nll (points)",
)
def nll_is_no_worse_than_reward(run: Run) -> Iterator[Measure]:
    """The mean regret over all pairs: by `reward` minus by `nll`. Mean and largest regret of every
    criterion are shown for all pairs and for every kind of pair.
    """
    yield from _better(run, "nll", "reward", "not below")
    found = regrets(run)
    for by in _by_way(run, found):
        own = [each for each in found if each.by == by]
        kinds = {"all pairs": own} | {
            name: [each for each in own if each.kind == name]
            for name in dict.fromkeys(each.kind for each in own)
        }
        for name, some in kinds.items():
            yield measured(
                f"mean regret by {by}", name, np.mean([each.draws for each in some], axis=0), n=len(some)
            )
            worst = max(some, key=lambda each: each.regret)
            yield measured(f"largest regret by {by}", name, worst.draws, n=len(some), note=worst.pair)


@statement(
    13,
    "5, left open",
    "Choosing alpha by DPO's implicit reward is no worse than choosing it by reward",
    "mean regret, by reward minus by implicit (points)",
)
def implicit_is_no_worse_than_reward(run: Run) -> Iterator[Measure]:
    """The mean regret over all pairs: by `reward` minus by `implicit`, which is DPO's implicit
    reward minus the divergence from the aligned model.
    """
    yield from _better(run, "implicit", "reward", "not below")


@statement(
    13,
    "3.1",
    "Choosing alpha by reward beats not extrapolating",
    "mean regret, alpha 0 minus by reward (points)",
)
def reward_beats_none(run: Run) -> Iterator[Measure]:
    """The mean regret over all pairs: at alpha 0 minus at the alpha that `reward` chooses."""
    yield from _better(run, "reward", "none", "above")


def _better(run: Run, by: str, than: str, expected: str) -> Iterator[Measure]:
    found = regrets(run)
    ways = _by_way(run, found)
    if by in ways and than in ways:
        number = sum(each.by == by for each in found)
        subject = f"{than} less {by}"
        yield measured("mean regret", subject, ways[than] - ways[by], expected, n=number)
