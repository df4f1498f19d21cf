"""Measures per prompt: the values of every criterion and their changes from alpha 0."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from expoflow.errors import DataError
from expoflow.selection import statistics
from expoflow.selection.criteria import CRITERIA
from expoflow.selection.statistics import Values

# The sums and counts of every prompt, by alpha. Their ratio is the value of a measure.
OfPrompts = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Changes:
    """The values of a measure at several alphas, 0 among them, and their changes from alpha 0.

    `values` and `changes` have shape (alphas,). `draws`, shape (resamples, alphas), are the changes
    on bootstrap resamples of the prompts. Unknown numbers are NaN.
    """

    alphas: tuple[str, ...]
    prompts: int
    values: Values
    changes: Values
    draws: Values

    @classmethod
    def of(cls, of: OfPrompts, alphas: tuple[str, ...], weights: np.ndarray) -> "Changes":
        """`weights`, shape (resamples, prompts), say how often each resample has each prompt."""
        zero = alphas.index("0")
        values = np.array([ratio(*of[alpha]) for alpha in alphas])
        draws = np.stack([ratio(*of[alpha], weights) for alpha in alphas], axis=1)
        return cls(alphas, weights.shape[1], values, values - values[zero], draws - draws[:, [zero]])

    def where(self, kept: np.ndarray) -> "Changes":
        """The same at the alphas for which `kept`, shape (alphas,), is true."""
        alphas = tuple(np.array(self.alphas)[kept].tolist())
        return Changes(alphas, self.prompts, self.values[kept], self.changes[kept], self.draws[:, kept])

    def intervals(self, confidence: float) -> dict[str, tuple[float, float]]:
        """Simultaneous intervals of the changes, by alpha (`statistics.simultaneous`)."""
        low, high = statistics.simultaneous(self.changes, self.draws, self.prompts, confidence)
        return dict(zip(self.alphas, zip(low.tolist(), high.tolist(), strict=True), strict=True))

    def pointwise(self, confidence: float) -> dict[str, tuple[float, float]]:
        """Percentile intervals of the changes, by alpha, each as if no other alpha had been tried.

        The change is unknown in a resample if the count that the measure is divided by is 0 there.
        Such resamples do not count. If there are more of them than the interval leaves out, the
        interval is NaN.
        """
        tail = (1 - confidence) / 2
        found = {}
        for alpha, drawn in zip(self.alphas, self.draws.T, strict=True):
            known = drawn[np.isfinite(drawn)]
            enough = len(known) >= confidence * len(drawn)
            found[alpha] = (
                tuple(np.quantile(known, [tail, 1 - tail]).tolist()) if enough else (np.nan, np.nan)
            )
        return found


def ratio(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Ratio of sum and count over the prompts.

    Each prompt counts `weights` [..., prompts] times; the result has shape [...]. It is NaN if the
    count is 0.
    """
    weights = np.ones(len(sums)) if weights is None else weights
    with np.errstate(invalid="ignore"):
        return np.true_divide(weights @ sums, weights @ counts)


def measure(
    rewards: Mapping[str, pd.DataFrame], likelihoods: Mapping[str, pd.DataFrame]
) -> dict[str, OfPrompts]:
    """The values of every criterion that is known for all responses."""
    tables = {alpha: _joined(alpha, table, likelihoods.get(alpha)) for alpha, table in rewards.items()}
    found: dict[str, OfPrompts] = {}
    for name, criterion in CRITERIA.items():
        if criterion.models and not likelihoods:
            continue
        values = {alpha: criterion.value(table) for alpha, table in tables.items()}
        if all(each.notna().all() for each in values.values()):
            found[name] = {alpha: of_prompts(tables[alpha], values[alpha], criterion.per) for alpha in tables}
    return found


def unknown(pair: str, criterion: str) -> DataError:
    """The error that a criterion is not known for all responses."""
    return DataError(
        f"{pair}: {CRITERIA[criterion].words} is not known for all responses; run snakemake again"
    )


def _joined(alpha: str, rewards: pd.DataFrame, likelihoods: pd.DataFrame | None) -> pd.DataFrame:
    """An alpha's table of rewards, joined with its likelihoods if there are any."""
    if likelihoods is None:
        return rewards
    keys = ["prompt_id", "sample"]
    if not likelihoods[keys].equals(rewards[keys]):
        raise DataError(f"alpha {alpha}: likelihoods are of other responses than rewards; delete them")
    return rewards.assign(**{name: likelihoods[name] for name in likelihoods if name not in rewards})


def of_prompts(table: pd.DataFrame, values: pd.Series, per: str = "") -> tuple[np.ndarray, np.ndarray]:
    """The sum of the values and the sum of the column `per`, for every prompt.

    Without `per` they are the mean of the values and 1.
    """

    def by_prompt(column: pd.Series) -> Any:
        return column.groupby(table["prompt_id"], sort=False)

    if per:
        return by_prompt(values).sum().to_numpy(), by_prompt(table[per]).sum().to_numpy()
    means = by_prompt(values).mean().to_numpy()
    return means, np.ones(len(means))


def require_same_responses(rewards: Mapping[str, pd.DataFrame]) -> None:
    """Raise DataError if alphas answered different prompts, or used different engines.

    Different engines sample differently.
    """
    found = {engine: alpha for alpha, table in rewards.items() for engine in table["engine"].unique()}
    if len(found) > 1:
        said = ", ".join(f"alpha {alpha} by {engine}" for engine, alpha in found.items())
        raise DataError(
            f"responses of different engines ({said}); set generate.engine to one of them and delete the others' "
            "generations"
        )
    keys = ["prompt_id", "sample"]
    for alpha, table in rewards.items():
        if not table[keys].equals(rewards["0"][keys]):
            raise DataError(
                f"alpha {alpha}: prompts or samples differ from alpha 0's; delete its rewards and generations"
            )
