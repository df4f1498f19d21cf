"""The sweep over alpha of one pair: from every alpha's rewards to alphas.csv and best.json."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expoflow import likelihood, search, statistics
from expoflow.config import SelectConfig
from expoflow.errors import DataError
from expoflow.evaluate import REWARD_COLUMNS
from expoflow.records import Best, read_text, write_csv, write_json
from expoflow.tables import ALPHA_COLUMNS


def read_rewards(path: Path) -> pd.DataFrame:
    """Read a rewards.csv; a broken one is a DataError that names it."""
    return _read(path, REWARD_COLUMNS, ("prompt_id", "sample", "reward", "finish_reason"))


def read_likelihoods(path: Path) -> pd.DataFrame:
    """Read a likelihoods.csv; a broken one is a DataError that names it."""
    return _read(path, likelihood.COLUMNS, ("prompt_id", "sample", "tokens", "logp_aligned"))


def _read(path: Path, columns: Sequence[str], filled: Sequence[str]) -> pd.DataFrame:
    """A table with `columns`, those of `filled` without gaps, to the end of its last line."""
    path, text = Path(path), read_text(path)
    try:
        table = pd.read_csv(
            StringIO(text), dtype={"alpha": str, "prompt_id": str, "pair": str, "prompts": str}
        )
        missing = [column for column in columns if column not in table]
        complete = text.endswith("\n") and not missing and not table[[*filled]].isna().any(axis=None)
    except (pd.errors.ParserError, pd.errors.EmptyDataError):
        complete = False
    if not complete:
        raise DataError(
            f"{path}: not a complete {path.name.split('.')[-2]} table; delete it and run snakemake again"
        )
    return table


def select(
    pair: str,
    rewards: Mapping[str, pd.DataFrame],
    effective: Mapping[str, float | None],
    config: SelectConfig,
    seed: int,
    likelihoods: Mapping[str, pd.DataFrame] | None = None,
) -> tuple[list[dict[str, Any]], Best]:
    """Rows of alphas.csv in ascending order of alpha, and the choice.

    `rewards` is the table of every alpha, 0 among them, over the same prompts and samples; `effective`
    the effective alpha of every alpha; `seed` that of the bootstrap; `likelihoods`, which `by: nll` and
    `by: implicit` need, has every alpha's table of them. Raises DataError where the tables do not match.
    """
    alphas = sorted(rewards, key=float)
    _require_one_engine({alpha: rewards[alpha] for alpha in alphas})
    means = {alpha: _prompt_means(rewards[alpha], rewards["0"], alpha) for alpha in alphas}
    rows = [_row(pair, alpha, rewards[alpha], means[alpha], means["0"], config, seed) for alpha in alphas]
    once = np.ones(len(means["0"]))
    values = {"reward": {alpha: (means[alpha], once) for alpha in alphas}}
    values |= _likelihoods(rewards, likelihoods or {})
    for name, each in values.items():
        for row in rows:
            row[name] = float(_mean(*each[row["alpha"]], once))
    allowed = [row for row in rows if float(row["alpha"]) >= 0]
    weights = statistics.resampled(len(once), config.resamples, seed)
    drawn = np.stack([_mean(*values[config.by][row["alpha"]], weights) for row in allowed], axis=1)
    picked = search.CRITERIA[config.by].pick(drawn)
    for at, row in enumerate(allowed):
        row["chosen_share"] = float((picked == at).mean())
    candidates = [
        search.Candidate(
            row["alpha"], row[config.by], *_change(row, rows, drawn[:, at] - drawn[:, 0], config)
        )
        for at, row in enumerate(allowed)
    ]
    choice = search.choose(candidates, config.confidence, config.require_certified, config.by)
    for row in rows:
        row["effective_alpha"] = effective[row["alpha"]]
        row["chosen"] = row["alpha"] == choice.alpha
    chosen = next(row for row in rows if row["chosen"])
    fields = ("reward", "gain", "gain_low", "gain_high", "chosen_share")
    best = Best(
        pair=pair,
        alpha=choice.alpha,
        certified=choice.certified,
        edge=choice.edge,
        reason=choice.reason,
        **{field: chosen[field] for field in fields},
    )
    return rows, best


def _change(row, rows, drawn: np.ndarray, config: SelectConfig) -> tuple[float, float, float]:
    """Change from alpha 0 of what is chosen by, with its interval; that of the reward is the gain."""
    if config.by == "reward":
        return row["gain"], row["gain_low"], row["gain_high"]
    aligned = next(each[config.by] for each in rows if each["alpha"] == "0")
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return row[config.by] - aligned, float(low), float(high)


def _mean(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over count of the prompts, each as often as `weights` [..., prompts] says: shape [...]."""
    return (weights @ sums) / (weights @ counts)


def _likelihoods(
    rewards: Mapping[str, pd.DataFrame], likelihoods: Mapping[str, pd.DataFrame]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """By criterion and alpha the sums and counts of every prompt, whose ratio is the criterion's value.

    nll: nats a token under the aligned model. implicit: log pi1 - log pi0 less log pi2 - log pi1 of a response,
    in nats: DPO's implicit reward without its beta, less the divergence of the alpha's model from the aligned one.
    """
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for alpha, table in likelihoods.items():
        if not table[["prompt_id", "sample"]].equals(rewards[alpha][["prompt_id", "sample"]]):
            raise DataError(f"alpha {alpha}: likelihoods are of other responses than rewards; delete them")
        grouped = table.assign(nll=-table["logp_aligned"]).groupby("prompt_id", sort=False)
        found.setdefault("nll", {})[alpha] = (
            grouped["nll"].sum().to_numpy(),
            grouped["tokens"].sum().to_numpy(),
        )
        if table["logp_own"].notna().all():
            score = 2 * table["logp_aligned"] - table["logp_sft"] - table["logp_own"]
            means = table.assign(score=score).groupby("prompt_id", sort=False)["score"].mean().to_numpy()
            found.setdefault("implicit", {})[alpha] = (means, np.ones(len(means)))
    return found


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
