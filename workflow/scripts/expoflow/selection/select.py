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
from expoflow.selection import degenerate, measures, split, statistics
from expoflow.selection.choice import Candidate, Choice, choose
from expoflow.selection.criteria import CRITERIA
from expoflow.selection.measures import Changes, OfPrompts, ratio

# What best.json has of the chosen alpha's row.
OF_CHOSEN = (
    "reward",
    "gain",
    "gain_low",
    "gain_high",
    "gain_pointwise_low",
    "gain_pointwise_high",
    "chosen_share",
)


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
    the bootstrap; `likelihoods`, which criteria with `models` need, has every alpha's table of them. With
    `config.judge` the prompts that judge the choice are left out of all numbers. Raises DataError
    where the tables do not match.
    """
    alphas = sorted(rewards, key=float)
    measures.require_same_responses({alpha: rewards[alpha] for alpha in alphas})
    rewards, likelihoods = (split.part(each, config.judge, pair) for each in (rewards, likelihoods or {}))
    measured = measures.measure(rewards, likelihoods)
    for by in (config.by, *config.others()):
        if by not in measured:
            raise DataError(
                f"{pair}: {CRITERIA[by].words} is not known of all responses; run snakemake again"
            )
    weights = statistics.resampled(len(measured[config.by]["0"][0]), config.resamples, seed)
    tried = tuple(alpha for alpha in alphas if float(alpha) >= 0)
    changes = {name: Changes.of(of, tried, weights) for name, of in measured.items()}
    rows = _rows(pair, rewards, effective, measured, changes, weights, config, seed)
    above = [row for row in rows if row["alpha"] in tried]
    choices = {by: _choose(above, changes[by], by, config) for by in (config.by, *config.others())}
    choice, shares, optimism = choices.pop(config.by)
    for row in above:
        row["chosen_share"] = shares.get(row["alpha"], 0.0)
    for row in rows:
        row["chosen"] = row["alpha"] == choice.alpha
    chosen = next(row for row in rows if row["chosen"])
    warnings = degenerate.warnings(above, choice.alpha, config.degenerate_rise)
    unrewarded = [] if "reward" in measured else ["there is no reward model"]
    best = Best(
        pair=pair,
        alpha=choice.alpha,
        certified=choice.certified,
        edge=choice.edge,
        reason="; ".join([choice.reason, *warnings, *unrewarded]),
        warnings=warnings,
        others={by: other.alpha for by, (other, *_) in choices.items()},
        optimism=optimism if np.isfinite(optimism) and choice.alpha != "0" else None,
        prompts=weights.shape[1],
        **{field: chosen[field] for field in OF_CHOSEN if np.isfinite(chosen.get(field, np.nan))},
    )
    return rows, best


def _rows(
    pair: str,
    rewards: Mapping[str, pd.DataFrame],
    effective: Mapping[str, float | None],
    measured: Mapping[str, OfPrompts],
    changes: Mapping[str, Changes],
    weights: np.ndarray,
    config: SelectConfig,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for every alpha: what is known of its responses, and what has changed from alpha 0."""
    alphas = sorted(rewards, key=float)
    faults = {
        alpha: measures.of_prompts(table, table["degenerate"].notna()) for alpha, table in rewards.items()
    }
    at_once = {name: each.intervals(config.confidence) for name, each in changes.items()}
    rows = [{"pair": pair, "alpha": alpha} | _averages(rewards[alpha]) for alpha in alphas]
    for row in rows:
        alpha = row["alpha"]
        row |= {name: float(ratio(*of[alpha])) for name, of in measured.items()}
        row["effective_alpha"] = effective[alpha]
        if "reward" in measured:
            row |= _rewards(measured["reward"][alpha][0], measured["reward"]["0"][0], config, seed)
        for name in measured.keys() - {"reward"}:
            prefix = f"{CRITERIA[name].interval}_pointwise"
            row |= _interval(prefix, measured[name], alpha, weights, config)
        for name, of in at_once.items():
            prefix = CRITERIA[name].interval
            alone = (row[f"{prefix}_pointwise_low"], row[f"{prefix}_pointwise_high"])
            low, high = of.get(alpha, (float("nan"), float("nan")))
            row[f"{prefix}_low"], row[f"{prefix}_high"] = (
                np.minimum(low, alone[0]),
                np.maximum(high, alone[1]),
            )
        row[degenerate.CHANGE] = float(ratio(*faults[alpha]) - ratio(*faults["0"]))
        row |= _interval(degenerate.CHANGE, faults, alpha, weights, config)
    return rows


def _choose(
    tried: list[dict[str, Any]], changes: Changes, by: str, config: SelectConfig
) -> tuple[Choice, dict[str, float], float]:
    """What is chosen among the rows `tried`, alpha 0 first; in which share of the resamples each alpha would be; the optimism."""
    lows = [row[f"{degenerate.CHANGE}_low"] for row in tried]
    allowed = degenerate.may_be_chosen(lows, config.degenerate_rise)
    interval = CRITERIA[by].interval
    candidates = [
        Candidate(
            row["alpha"], row[by], change, row[f"{interval}_low"], row[f"{interval}_high"], allowed=bool(may)
        )
        for row, change, may in zip(tried, changes.changes.tolist(), allowed, strict=True)
    ]
    choice = choose(
        candidates, config.confidence, config.require_certified, by, degenerate.doubtful(tried[0])
    )
    alphas = [each.alpha for each in candidates if each.allowed]
    draws = changes.draws[:, allowed]
    picked = CRITERIA[by].pick(draws)
    shares = np.bincount(picked, minlength=len(alphas)) / len(picked)
    optimism = statistics.optimism(changes.changes[allowed], draws, picked)
    return (
        choice,
        dict(zip(alphas, shares.tolist(), strict=True)),
        optimism if CRITERIA[by].maximum else -optimism,
    )


def _interval(
    prefix: str, of: OfPrompts, alpha: str, weights: np.ndarray, config: SelectConfig
) -> dict[str, float]:
    """The percentile interval of the change of a ratio from alpha 0, over resampled prompts, by column.

    Resamples in which the change is not known, since what the ratio is of does not occur in them, do not count; with more
    of them than the interval leaves out it is NaN.
    """
    drawn = ratio(*of[alpha], weights) - ratio(*of["0"], weights)
    known = drawn[np.isfinite(drawn)]
    tail = (1 - config.confidence) / 2
    low, high = (
        np.quantile(known, [tail, 1 - tail]) if len(known) >= config.confidence * len(drawn) else [np.nan] * 2
    )
    return {f"{prefix}_low": float(low), f"{prefix}_high": float(high)}


def write_choice(rows: list[dict[str, Any]], best: Best, alphas: Path, best_json: Path) -> None:
    """Write alphas.csv and best.json."""
    write_csv(alphas, rows, ALPHA_COLUMNS)
    write_json(best_json, best)


def _averages(table: pd.DataFrame) -> dict[str, float]:
    """What is known of responses without a reward model."""
    return {
        "length": float(table["response_tokens"].mean()),
        **degenerate.shares(table),
        "quality": float(table["quality"].mean()),
        "accuracy": float(table["correct"].mean()),
    }


def _rewards(values: np.ndarray, aligned: np.ndarray, config: SelectConfig, seed: int) -> dict[str, float]:
    """The interval of the mean reward, the gain over the aligned model's rewards, and its interval if no other alpha had been tried."""
    differences = values - aligned
    low, high = statistics.mean_interval(values, config.confidence, config.resamples, seed)
    gain_low, gain_high = statistics.mean_interval(differences, config.confidence, config.resamples, seed)
    return {
        "reward_low": low,
        "reward_high": high,
        "gain": float(differences.mean()),
        "gain_pointwise_low": gain_low,
        "gain_pointwise_high": gain_high,
        "p_value": statistics.paired_p_value(differences, config.resamples, seed),
    }
