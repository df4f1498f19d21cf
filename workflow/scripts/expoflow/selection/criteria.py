"""What alpha can be chosen by.

A new criterion is one more entry of CRITERIA, and its name in `config.stages`; its columns of alphas.csv, the figures
and the words of tables and pages follow. The rules read this module: it imports no numpy and no pandas by itself.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expoflow.config.stages import SelectConfig

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from expoflow.selection.choice import Candidate
    from expoflow.selection.statistics import Values

# Under which models responses can be scored, and at which alpha each lies; the one that gave them at its own.
MODELS = {"sft": "-1", "aligned": "0", "own": None}


@dataclass(frozen=True)
class Criterion:
    """What alpha is chosen by.

    `value` gives from a pair's table of one alpha, a row per response, the value of every response, missing where it
    is not known. The table has the columns of rewards.csv, and those of likelihoods.csv if responses are scored under
    `models`. The criterion's value is their mean over prompts, each the mean of its samples; with `per`, a column,
    it is the sum of all values over the sum of that column.

    The alpha with the largest value is taken, or with `maximum=False` the largest alpha whose value is not above
    alpha 0's. `words` name it in a sentence, `short` in the head of a table, `label` at an axis, `shown` in the caption
    of a figure, both with its unit; `change` is what a change from alpha 0 is called. `rewarded`: it needs a reward model.
    """

    name: str
    words: str
    short: str
    label: str
    shown: str
    value: "Callable[[pd.DataFrame], pd.Series]"
    per: str = ""
    models: tuple[str, ...] = ()
    maximum: bool = True
    change: str = "gain"
    rewarded: bool = False

    @property
    def interval(self) -> str:
        """What the columns of the interval of its change begin with, which go on `_low` and `_high`."""
        return "gain" if self.name == "reward" else f"{self.name}_change"

    def pick(self, values: "Values") -> "NDArray[np.int64]":
        """Index of the chosen candidate for every row of `values`, shape (rows, candidates), alpha 0 first.

        A value that is NaN is never chosen; if alpha 0's is, nothing can be compared with it, and 0 is chosen.
        """
        import numpy as np

        if self.maximum:
            return np.where(values > values[:, :1], values, -np.inf).argmax(axis=1)
        allowed = values <= values[:, :1]
        allowed[:, 0] = True
        return values.shape[1] - 1 - allowed[:, ::-1].argmax(axis=1)

    def certifies(self, candidate: "Candidate") -> bool:
        """Whether the interval of the change is known and holds no value that would speak against the choice."""
        known = math.isfinite(candidate.low) and math.isfinite(candidate.high)
        return known and (candidate.low > 0 if self.maximum else candidate.high <= 0)


def _implicit(table: "pd.DataFrame") -> "pd.Series":
    """log pi1 - log pi0 less log pi2 - log pi1 of a response, in nats.

    That is DPO's implicit reward without its beta, less the divergence of the alpha's model from the aligned one.
    """
    return 2 * table["logp_aligned"] - table["logp_sft"] - table["logp_own"]


CRITERIA = {
    each.name: each
    for each in (
        Criterion(
            name="reward",
            words="mean reward",
            short="reward",
            label="reward (logit)",
            shown="Reward",
            value=lambda table: table["reward"],
            rewarded=True,
        ),
        Criterion(
            name="nll",
            words="NLL under the aligned model",
            short="NLL",
            label="NLL, aligned\n(nats a token)",
            shown="NLL (nats a token) of every alpha's responses under the aligned model",
            value=lambda table: -table["logp_aligned"],
            per="tokens",
            models=("aligned",),
            maximum=False,
            change="change",
        ),
        Criterion(
            name="implicit",
            words="implicit reward less KL",
            short="implicit reward",
            label="implicit reward\nless KL (nats)",
            shown="DPO's implicit reward less the KL (nats) of every alpha's responses",
            value=_implicit,
            models=("sft", "aligned", "own"),
        ),
    )
}


def scored_under(select: SelectConfig) -> tuple[str, ...]:
    """Names of the models under which responses are scored for what chooses alpha and what is compared with it.

    The aligned one is always among them, so that a table of likelihoods has the NLL.
    """
    needed = {model for name in (select.by, *select.others()) for model in CRITERIA[name].models}
    return tuple(model for model in MODELS if needed and model in needed | {"aligned"})


def shown_first(selects: Iterable[SelectConfig], rewarded: bool) -> Criterion:
    """What a figure of all alphas shows first: the reward; without a reward model what is known of all responses.

    `selects` are the settings of all pairs.
    """
    scored = {model for select in selects for model in scored_under(select)}
    known = (each for each in CRITERIA.values() if scored.issuperset(each.models))
    return next(each for each in known if rewarded or not each.rewarded)


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """`0.45 [0.30, 0.61]`, as far as it is known; an end near 0 says on which side it lies."""
    if not _known(value):
        return "not known"
    return (
        f"{_short(value)} [{_short(low)}, {_short(high)}]" if _known(low) and _known(high) else _short(value)
    )


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:.1g}"
