"""The criteria that can choose alpha.

To add a criterion, add an entry to CRITERIA and its name to `config.stages`. The columns of
alphas.csv, the figures, and the words of tables and pages follow from that. The rules read this
module, so it does not import numpy or pandas at its top level.
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

# The models that can score responses, and the alpha of each. `own`, the model that gave the
# responses, has their alpha.
MODELS = {"sft": "-1", "aligned": "0", "own": None}


@dataclass(frozen=True)
class Criterion:
    """A criterion that can choose alpha.

    `value` takes a pair's table of one alpha, with a row per response, and returns the value of
    every response. Unknown values are missing. The table has the columns of rewards.csv. It also
    has those of likelihoods.csv if responses are scored under `models`. A prompt's value is the
    mean over its samples, and the value of the criterion is the mean over prompts. If `per` names a
    column, it is instead the sum of all values divided by the sum of that column.

    The alpha with the largest value is chosen. With `maximum=False` it is the largest alpha whose
    value is not above the value of alpha 0. `words` name the criterion in a sentence and `short` in
    the head of a table. `label` names it at an axis and `shown` in the caption of a figure, both
    with its unit. `change` is the name of a change from alpha 0. `rewarded` says that the criterion
    needs a reward model.
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
        """The prefix of the columns `_low` and `_high`, which hold the interval of its change."""
        return "gain" if self.name == "reward" else f"{self.name}_change"

    def pick(self, values: "Values") -> "NDArray[np.int64]":
        """Index of the chosen candidate for every row of `values`.

        `values` has shape (rows, candidates), with alpha 0 first.

        A NaN value is never chosen. If the value of alpha 0 is NaN, alpha 0 is chosen, since
        nothing can be compared with it.
        """
        import numpy as np

        if self.maximum:
            return np.where(values > values[:, :1], values, -np.inf).argmax(axis=1)
        allowed = values <= values[:, :1]
        allowed[:, 0] = True
        return values.shape[1] - 1 - allowed[:, ::-1].argmax(axis=1)

    def certifies(self, candidate: "Candidate") -> bool:
        """Whether the interval of the change is known and no value in it contradicts the choice."""
        known = math.isfinite(candidate.low) and math.isfinite(candidate.high)
        return known and (candidate.low > 0 if self.maximum else candidate.high <= 0)


def _implicit(table: "pd.DataFrame") -> "pd.Series":
    """(log pi1 - log pi0) - (log pi2 - log pi1) of a response, in nats.

    That is DPO's implicit reward without its beta, minus the divergence of this alpha's model from
    the aligned one.
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
            label="NLL, aligned\n(nats per token)",
            shown="NLL (nats per token) of every alpha's responses under the aligned model",
            value=lambda table: -table["logp_aligned"],
            per="tokens",
            models=("aligned",),
            maximum=False,
            change="change",
        ),
        Criterion(
            name="implicit",
            words="implicit reward minus KL",
            short="implicit reward",
            label="implicit reward\nminus KL (nats)",
            shown="DPO's implicit reward minus the KL (nats) of every alpha's responses",
            value=_implicit,
            models=("sft", "aligned", "own"),
        ),
    )
}


def scored_under(select: SelectConfig) -> tuple[str, ...]:
    """Names of the models that must score the responses.

    The criterion that chooses alpha needs them, or one that is compared with it. The aligned model
    is always among the names, because every table of likelihoods has the NLL.
    """
    needed = {model for name in (select.by, *select.others()) for model in CRITERIA[name].models}
    return tuple(model for model in MODELS if needed and model in needed | {"aligned"})


def shown_first(selects: Iterable[SelectConfig], rewarded: bool) -> Criterion:
    """The measure that a figure of all alphas shows first.

    It is the reward or, without a reward model, a criterion that is known of all responses.

    `selects` are the settings of all pairs.
    """
    scored = {model for select in selects for model in scored_under(select)}
    known = (each for each in CRITERIA.values() if scored.issuperset(each.models))
    return next(each for each in known if rewarded or not each.rewarded)


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """`0.45 [0.30, 0.61]`, as far as it is known; an end near 0 shows its sign."""
    if not _known(value):
        return "not known"
    return (
        f"{_short(value)} [{_short(low)}, {_short(high)}]" if _known(low) and _known(high) else _short(value)
    )


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:.1g}"
