"""The choice of a pair's alpha: from every alpha's rewards to alphas.csv and best.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expoflow.columns import ALPHA_COLUMNS
from expoflow.config.stages import SelectConfig
from expoflow.files.records import write_csv, write_json
from expoflow.results import Best
from expoflow.selection import degenerate, measures, split, statistics
from expoflow.selection.choice import Candidate, Choice, choose
from expoflow.selection.criteria import CRITERIA, Criterion
from expoflow.selection.measures import Changes, OfPrompts

# The columns of the chosen alpha's row that best.json repeats.
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
    """Choose alpha: return the rows of alphas.csv, in ascending order of alpha, and the choice.

    `rewards` has the table of every alpha, including 0, over the same prompts and samples. The
    column of rewards is empty if there is no reward model. `effective` has the effective alpha of
    every alpha, and `seed` is the seed of the bootstrap. `likelihoods` has the table of likelihoods
    of every alpha; criteria with `models` need them. With `config.judge` the prompts that judge the
    choice are left out. Raises DataError if the tables do not match.
    """
    alphas = tuple(sorted(rewards, key=float))
    measures.require_same_responses({alpha: rewards[alpha] for alpha in alphas})
    rewards, likelihoods = (split.part(each, config.judge, pair) for each in (rewards, likelihoods or {}))
    measured = measures.measure(rewards, likelihoods)
    for by in (config.by, *config.others()):
        if by not in measured:
            raise measures.unknown(pair, by)
    weights = statistics.resampled(len(measured[config.by]["0"][0]), config.resamples, seed)
    rows = [
        {"pair": pair, "alpha": alpha, "effective_alpha": effective[alpha]} | _averages(rewards[alpha])
        for alpha in alphas
    ]
    _add_faults(rows, rewards, weights, config)
    if "reward" in measured:
        _add_rewards(rows, measured["reward"], config, seed)
    above = np.array([float(alpha) >= 0 for alpha in alphas])
    tried, changes = [row for row in rows if float(row["alpha"]) >= 0], {}
    for name, of in measured.items():
        every = Changes.of(of, alphas, weights)
        changes[name] = every.where(above)
        _add_changes(rows, every, changes[name], CRITERIA[name], config)
    choices = {by: _choose(tried, changes[by], by, config) for by in (config.by, *config.others())}
    choice, shares, optimism = choices.pop(config.by)
    for row in rows:
        row["chosen"] = row["alpha"] == choice.alpha
    for row in tried:
        row["chosen_share"] = shares.get(row["alpha"], 0.0)
    chosen = next(row for row in rows if row["chosen"])
    warnings = degenerate.warnings(tried, choice.alpha, config.degenerate_rise)
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


def _add_faults(
    rows: list[dict[str, Any]], tables: Mapping[str, pd.DataFrame], weights: np.ndarray, config: SelectConfig
) -> None:
    """Add the change in the share of degenerate responses, with each alpha's own interval."""
    of = {alpha: measures.of_prompts(table, table["degenerate"].notna()) for alpha, table in tables.items()}
    faults = Changes.of(of, tuple(row["alpha"] for row in rows), weights)
    for row, change in zip(rows, faults.changes.tolist(), strict=True):
        row[degenerate.CHANGE] = change
    _add_ends(rows, degenerate.CHANGE, faults.pointwise(config.confidence))


def _add_rewards(rows: list[dict[str, Any]], of: OfPrompts, config: SelectConfig, seed: int) -> None:
    """Add the interval of the mean reward, the gain, its p-value, and each alpha's own interval."""
    how = (config.confidence, config.resamples, seed)
    gains = {alpha: values - of["0"][0] for alpha, (values, _) in of.items()}
    _add_ends(rows, "reward", {alpha: statistics.mean_interval(of[alpha][0], *how) for alpha in of})
    _add_ends(rows, "gain_pointwise", {alpha: statistics.mean_interval(gains[alpha], *how) for alpha in of})
    for row in rows:
        own = gains[row["alpha"]]
        row |= {"gain": float(own.mean()), "p_value": statistics.paired_p_value(own, config.resamples, seed)}


def _add_changes(
    rows: list[dict[str, Any]], every: Changes, tried: Changes, criterion: Criterion, config: SelectConfig
) -> None:
    """Add the value of a criterion and the intervals of its change.

    They are each alpha's own intervals, and those that hold simultaneously for all `tried`. The
    latter are never narrower.
    """
    for row, value in zip(rows, every.values.tolist(), strict=True):
        row[criterion.name] = value
    alone = f"{criterion.interval}_pointwise"
    if f"{alone}_low" not in rows[0]:  # the gain already has it
        _add_ends(rows, alone, every.pointwise(config.confidence))
    at_once = dict.fromkeys(every.alphas, (np.nan, np.nan)) | tried.intervals(config.confidence)
    for row in rows:
        low, high = at_once[row["alpha"]]
        at_once[row["alpha"]] = (
            float(np.minimum(low, row[f"{alone}_low"])),
            float(np.maximum(high, row[f"{alone}_high"])),
        )
    _add_ends(rows, criterion.interval, at_once)


def _add_ends(rows: list[dict[str, Any]], prefix: str, intervals: Mapping[str, tuple[float, float]]) -> None:
    """Add the columns of intervals, which are given by alpha."""
    for row in rows:
        row[f"{prefix}_low"], row[f"{prefix}_high"] = intervals[row["alpha"]]


def _choose(
    tried: list[dict[str, Any]], changes: Changes, by: str, config: SelectConfig
) -> tuple[Choice, dict[str, float], float]:
    """Choose among the rows `tried`, alpha 0 first.

    Returns the choice, the share of resamples in which each alpha would be chosen, and the
    optimism.
    """
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
    left = changes.where(allowed)
    picked = CRITERIA[by].pick(left.draws)
    shares = np.bincount(picked, minlength=len(left.alphas)) / len(picked)
    optimism = statistics.optimism(left.changes, left.draws, picked)
    return (
        choice,
        dict(zip(left.alphas, shares.tolist(), strict=True)),
        optimism if CRITERIA[by].maximum else -optimism,
    )


def write_choice(rows: list[dict[str, Any]], best: Best, alphas: Path, best_json: Path) -> None:
    """Write alphas.csv and best.json."""
    write_csv(alphas, rows, ALPHA_COLUMNS)
    write_json(best_json, best)


def _averages(table: pd.DataFrame) -> dict[str, float]:
    """Averages over responses that need no reward model."""
    return {
        "length": float(table["response_tokens"].mean()),
        **degenerate.shares(table),
        "quality": float(table["quality"].mean()),
        "accuracy": float(table["correct"].mean()),
    }
