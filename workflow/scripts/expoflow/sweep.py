"""The sweep over alpha of one pair: from every alpha's rewards to alphas.csv and best.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expoflow import search, statistics
from expoflow.config import SelectConfig
from expoflow.errors import DataError
from expoflow.evaluate import REWARD_COLUMNS
from expoflow.records import Best, write_csv, write_json
from expoflow.tables import ALPHA_COLUMNS


def read_rewards(path: Path) -> pd.DataFrame:
    """Read a rewards.csv; a broken one is a DataError that names it."""
    try:
        table = pd.read_csv(path, dtype={"alpha": str, "prompt_id": str, "pair": str, "prompts": str})
        missing = [column for column in REWARD_COLUMNS if column not in table]
        complete = not table[["prompt_id", "sample", "reward", "finish_reason"]].isna().any(axis=None)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, KeyError, UnicodeDecodeError):
        missing, complete = list(REWARD_COLUMNS), False
    if missing or not complete:
        raise DataError(f"{path}: not a complete rewards table; delete it and run snakemake again")
    return table


def select(
    pair: str,
    rewards: Mapping[str, pd.DataFrame],
    effective: Mapping[str, float | None],
    config: SelectConfig,
    seed: int,
) -> tuple[list[dict[str, Any]], Best]:
    """Rows of alphas.csv in ascending order of alpha, and the choice.

    `rewards` is the table of every alpha, 0 among them, over the same prompts and samples; `effective`
    the effective alpha of every alpha; `seed` that of the bootstrap. Raises DataError where the
    tables do not match.
    """
    alphas = sorted(rewards, key=float)
    _require_one_engine({alpha: rewards[alpha] for alpha in alphas})
    means = {alpha: _prompt_means(rewards[alpha], rewards["0"], alpha) for alpha in alphas}
    rows = [_row(pair, alpha, rewards[alpha], means[alpha], means["0"], config, seed) for alpha in alphas]
    allowed = [row for row in rows if float(row["alpha"]) >= 0]
    shares = statistics.chosen_shares(
        np.stack([means[row["alpha"]] for row in allowed]), config.resamples, seed
    )
    for row, share in zip(allowed, shares, strict=True):
        row["chosen_share"] = float(share)
    fields = ("alpha", "reward", "gain", "gain_low", "gain_high", "chosen_share")
    candidates = [search.Candidate(**{field: row[field] for field in fields}) for row in allowed]
    choice = search.choose(candidates, config.confidence, config.require_certified)
    for row in rows:
        row["effective_alpha"] = effective[row["alpha"]]
        row["chosen"] = row["alpha"] == choice.candidate.alpha
    best = Best(
        pair=pair,
        certified=choice.certified,
        edge=choice.edge,
        reason=choice.reason,
        **{field: getattr(choice.candidate, field) for field in fields},
    )
    return rows, best


def write(rows: list[dict[str, Any]], best: Best, alphas: Path, best_json: Path) -> None:
    """Write alphas.csv and best.json."""
    write_csv(alphas, rows, ALPHA_COLUMNS)
    write_json(best_json, best)


def _require_one_engine(rewards: Mapping[str, pd.DataFrame]) -> None:
    """A DataError where responses of two engines would be compared: they sample differently."""
    found = {engine: alpha for alpha, table in rewards.items() for engine in table["engine"].unique()}
    if len(found) > 1:
        said = ", ".join(f"alpha {alpha} by {engine}" for engine, alpha in found.items())
        raise DataError(
            f"responses of different engines ({said}); set generate.engine to one of them and delete the others' "
            "generations"
        )


def _prompt_means(table: pd.DataFrame, reference: pd.DataFrame, alpha: str) -> np.ndarray:
    """Mean reward of every prompt, in the order of alpha 0's table."""
    keys = ["prompt_id", "sample"]
    if not table[keys].equals(reference[keys]):
        raise DataError(
            f"alpha {alpha}: prompts or samples differ from alpha 0's; delete its rewards and generations"
        )
    return table.groupby("prompt_id", sort=False)["reward"].mean().to_numpy()


def _row(pair, alpha, table, values, aligned, config, seed) -> dict[str, Any]:
    differences = values - aligned
    low, high = statistics.mean_interval(values, config.confidence, config.resamples, seed)
    gain_low, gain_high = statistics.mean_interval(differences, config.confidence, config.resamples, seed)
    return {
        "pair": pair,
        "alpha": alpha,
        "reward": float(values.mean()),
        "reward_low": low,
        "reward_high": high,
        "gain": float(differences.mean()),
        "gain_low": gain_low,
        "gain_high": gain_high,
        "p_value": statistics.paired_p_value(differences, config.resamples, seed),
        "length": float(table["response_tokens"].mean()),
        "unfinished": float((table["finish_reason"] == "length").mean()),
        "quality": float(table["quality"].mean()),
        "accuracy": float(table["correct"].mean()),
    }
