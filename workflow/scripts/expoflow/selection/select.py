"""The choice of a pair's alpha: from every alpha's rewards to alphas.csv and best.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expoflow.columns import ALPHA_COLUMNS
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.files.records import write_csv, write_json
from expoflow.results import Best
from expoflow.selection import degenerate, statistics
from expoflow.selection.choice import Candidate, Choice, choose
from expoflow.selection.criteria import CRITERIA

# By criterion and alpha the sums and counts of every prompt, whose ratio is the criterion's value.
Measured = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]


def select(
    pair: str,
    rewards: Mapping[str, pd.DataFrame],
    effective: Mapping[str, float | None],
    config: SelectConfig,
    seed: int,
    likelihoods: Mapping[str, pd.DataFrame] | None = None,
) -> tuple[list[dict[str, Any]], Best]:
    """Rows of alphas.csv in ascending order of alpha, and the choice.

    `rewards` is the table of every alpha, 0 among them, over the same prompts and samples; its column of rewards
    is empty where there is no reward model. `effective` is the effective alpha of every alpha; `seed` that of
    the bootstrap; `likelihoods`, which criteria with `models` need, has every alpha's table of them. Raises DataError
    where the tables do not match.
    """
    alphas = sorted(rewards, key=float)
    _require_same_responses({alpha: rewards[alpha] for alpha in alphas})
    measured = _measured(rewards, likelihoods or {})
    for by in (config.by, *config.others()):
        if by not in measured:
            raise DataError(
                f"{pair}: {CRITERIA[by].words} is not known of all responses; run snakemake again"
            )
    faults = {alpha: _of_prompts(table, table["degenerate"].notna()) for alpha, table in rewards.items()}
    weights = statistics.resampled(len(measured[config.by]["0"][0]), config.resamples, seed)
    rows = [{"pair": pair, "alpha": alpha} | _averages(rewards[alpha]) for alpha in alphas]
    for row in rows:
        row |= {name: float(_mean(*of[row["alpha"]])) for name, of in measured.items()}
        row["effective_alpha"] = effective[row["alpha"]]
        if "reward" in measured:
            row |= _intervals(measured["reward"][row["alpha"]][0], measured["reward"]["0"][0], config, seed)
        for name in measured.keys() - {"reward"}:
            interval = CRITERIA[name].interval
            row |= _changes(interval, measured[name], row["alpha"], weights, config)
        row[degenerate.CHANGE] = float(_mean(*faults[row["alpha"]]) - _mean(*faults["0"]))
        row |= _changes(degenerate.CHANGE, faults, row["alpha"], weights, config)
    tried = [row for row in rows if float(row["alpha"]) >= 0]
    choices = {by: _choose(tried, measured[by], weights, by, config) for by in (config.by, *config.others())}
    choice, shares = choices.pop(config.by)
    for row in tried:
        row["chosen_share"] = shares.get(row["alpha"], 0.0)
    for row in rows:
        row["chosen"] = row["alpha"] == choice.alpha
    chosen = next(row for row in rows if row["chosen"])
    fields = ("reward", "gain", "gain_low", "gain_high", "chosen_share")
    warnings = degenerate.warnings(tried, choice.alpha, config.degenerate_rise)
    unrewarded = [] if "reward" in measured else ["there is no reward model"]
    best = Best(
        pair=pair,
        alpha=choice.alpha,
        certified=choice.certified,
        edge=choice.edge,
        reason="; ".join([choice.reason, *warnings, *unrewarded]),
        warnings=warnings,
        others={by: other.alpha for by, (other, _) in choices.items()},
        **{field: chosen.get(field) for field in fields},
    )
    return rows, best


def _choose(
    tried: list[dict[str, Any]],
    of: Mapping[str, tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray,
    by: str,
    config: SelectConfig,
) -> tuple[Choice, dict[str, float]]:
    """What is chosen among the rows `tried`, alpha 0 first, and in which share of the resamples each alpha would be."""
    lows = [row[f"{degenerate.CHANGE}_low"] for row in tried]
    candidates = [
        Candidate(row["alpha"], row[by], *_change(row, tried[0], by), allowed=bool(allowed))
        for row, allowed in zip(tried, degenerate.may_be_chosen(lows, config.degenerate_rise), strict=True)
    ]
    allowed = [each.alpha for each in candidates if each.allowed]
    picked = CRITERIA[by].pick(np.stack([_mean(*of[alpha], weights) for alpha in allowed], axis=1))
    shares = np.bincount(picked, minlength=len(allowed)) / len(picked)
    doubtful = degenerate.doubtful(tried[0])
    choice = choose(candidates, config.confidence, config.require_certified, by, doubtful)
    return choice, dict(zip(allowed, shares.tolist(), strict=True))


def _change(row: dict[str, Any], aligned: dict[str, Any], by: str) -> tuple[float, float, float]:
    """Change from alpha 0 of what is chosen by, with its interval; that of the reward is the gain."""
    interval = CRITERIA[by].interval
    change = row[interval] if interval in row else row[by] - aligned[by]
    return change, row[f"{interval}_low"], row[f"{interval}_high"]


def _changes(
    interval: str,
    of: Mapping[str, tuple[np.ndarray, np.ndarray]],
    alpha: str,
    weights: np.ndarray,
    config: SelectConfig,
) -> dict[str, float]:
    """The percentile interval of the change of a ratio from alpha 0, over resampled prompts, by column.

    Resamples in which the change is not known, since what the ratio is of does not occur in them, do not count; with more
    of them than the interval leaves out it is NaN.
    """
    drawn = _mean(*of[alpha], weights) - _mean(*of["0"], weights)
    known = drawn[np.isfinite(drawn)]
    tail = (1 - config.confidence) / 2
    low, high = (
        np.quantile(known, [tail, 1 - tail]) if len(known) >= config.confidence * len(drawn) else [np.nan] * 2
    )
    return {f"{interval}_low": float(low), f"{interval}_high": float(high)}


def _mean(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum over count of the prompts, each as often as `weights` [..., prompts] says: shape [...]; NaN if the count is 0."""
    weights = np.ones(len(sums)) if weights is None else weights
    with np.errstate(invalid="ignore"):
        return np.true_divide(weights @ sums, weights @ counts)


def _measured(rewards: Mapping[str, pd.DataFrame], likelihoods: Mapping[str, pd.DataFrame]) -> Measured:
    """The values of every criterion that is known of all responses."""
    tables = {alpha: _joined(alpha, table, likelihoods.get(alpha)) for alpha, table in rewards.items()}
    found: Measured = {}
    for name, criterion in CRITERIA.items():
        if criterion.models and not likelihoods:
            continue
        values = {alpha: criterion.value(table) for alpha, table in tables.items()}
        if all(each.notna().all() for each in values.values()):
            found[name] = {
                alpha: _of_prompts(tables[alpha], values[alpha], criterion.per) for alpha in tables
            }
    return found


def _joined(alpha: str, rewards: pd.DataFrame, likelihoods: pd.DataFrame | None) -> pd.DataFrame:
    """What is known of an alpha's responses: rewards, and beside them the likelihoods where there are any."""
    if likelihoods is None:
        return rewards
    keys = ["prompt_id", "sample"]
    if not likelihoods[keys].equals(rewards[keys]):
        raise DataError(f"alpha {alpha}: likelihoods are of other responses than rewards; delete them")
    return rewards.assign(**{name: likelihoods[name] for name in likelihoods if name not in rewards})


def _of_prompts(table: pd.DataFrame, values: pd.Series, per: str = "") -> tuple[np.ndarray, np.ndarray]:
    """The sum of values and the count of every prompt: of the column `per`; without it, mean and 1."""

    def by_prompt(column: pd.Series) -> Any:
        return column.groupby(table["prompt_id"], sort=False)

    if per:
        return by_prompt(values).sum().to_numpy(), by_prompt(table[per]).sum().to_numpy()
    means = by_prompt(values).mean().to_numpy()
    return means, np.ones(len(means))


def write_choice(rows: list[dict[str, Any]], best: Best, alphas: Path, best_json: Path) -> None:
    """Write alphas.csv and best.json."""
    write_csv(alphas, rows, ALPHA_COLUMNS)
    write_json(best_json, best)


def _require_same_responses(rewards: Mapping[str, pd.DataFrame]) -> None:
    """A DataError where alphas answered other prompts, or by two engines, which sample differently."""
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


def _averages(table: pd.DataFrame) -> dict[str, float]:
    """What is known of responses without a reward model."""
    return {
        "length": float(table["response_tokens"].mean()),
        **degenerate.shares(table),
        "quality": float(table["quality"].mean()),
        "accuracy": float(table["correct"].mean()),
    }


def _intervals(values: np.ndarray, aligned: np.ndarray, config: SelectConfig, seed: int) -> dict[str, float]:
    """The gain over the aligned model's rewards, and the intervals of reward and gain."""
    differences = values - aligned
    low, high = statistics.mean_interval(values, config.confidence, config.resamples, seed)
    gain_low, gain_high = statistics.mean_interval(differences, config.confidence, config.resamples, seed)
    return {
        "reward_low": low,
        "reward_high": high,
        "gain": float(differences.mean()),
        "gain_low": gain_low,
        "gain_high": gain_high,
        "p_value": statistics.paired_p_value(differences, config.resamples, seed),
    }
