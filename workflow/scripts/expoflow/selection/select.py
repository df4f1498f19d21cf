"""The choice of a pair's alpha: from every alpha's rewards to alphas.csv and best.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expoflow import columns
from expoflow.columns import ALPHA_COLUMNS, REWARD_COLUMNS
from expoflow.config.base import spell
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.extrapolation.recipe import Achieved
from expoflow.files.records import read_json, read_text, require_own, write_csv, write_json
from expoflow.results import Best
from expoflow.selection import criteria, statistics
from expoflow.selection.criteria import CRITERIA


@dataclass(frozen=True)
class Candidate:
    """One alpha: the mean of what is chosen by, its change from alpha 0 with interval, and its share of choices."""

    alpha: str
    value: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """The chosen alpha, whether its change is certified, whether the grid ended there, and why."""

    alpha: str
    certified: bool
    edge: bool
    reason: str


def choose(
    candidates: list[Candidate], confidence: float, require_certified: bool = False, by: str = "reward"
) -> Choice:
    """The alpha >= 0 that is best by a criterion (reward: paper, Appendix E); the smaller one of equal ones.

    With `require_certified` the choice falls back to alpha 0 unless the interval of the change certifies it.
    `candidates` must hold alpha 0; raises KeyError for a criterion that there is not.
    """
    import numpy as np

    criterion = CRITERIA[by]
    allowed = sorted((c for c in candidates if float(c.alpha) >= 0), key=lambda c: float(c.alpha))
    best = allowed[criterion.pick(np.array([[c.value for c in allowed]]))[0]]
    aligned, certified = allowed[0], criterion.certifies(best) and best.alpha != "0"
    level = f"{100 * confidence:g}%"
    change = f"{criterion.change} {best.change:.2f} [{best.low:.2f}, {best.high:.2f}] over alpha 0"
    edge = best is allowed[-1] and best is not aligned
    which = (
        f"largest {criterion.words} of"
        if criterion.maximum
        else "largest one with no higher " + criterion.words + " among"
    )
    if best is aligned:
        smallest = f", the smallest tried is {allowed[1].alpha}" if len(allowed) > 1 else ""
        no = f"has a larger {criterion.words}" if criterion.maximum else f"has no higher {criterion.words}"
        reason = f"no alpha above 0 {no}{smallest}: do not extrapolate"
    elif certified:
        side = "lies above 0" if criterion.maximum else "does not lie above 0"
        reason = f"{which} {len(allowed)} alphas; {change}: its {level} interval {side}"
    else:
        reason = f"{which} {len(allowed)} alphas, but not certified: {change}, the {level} interval holds 0"
    if edge:
        reason += f"; the grid ends here, try {' and '.join(_beyond(allowed))} next"
    if require_certified and not certified and best is not aligned:
        reason = f"alpha 0 by select.require_certified: alpha {best.alpha} has the {reason}"
        best, edge = aligned, False
    return Choice(best.alpha, certified, edge, reason)


def _beyond(allowed: list[Candidate]) -> list[str]:
    """Two alphas past the grid's end, one and two of its last steps on."""
    last, before = Decimal(allowed[-1].alpha), Decimal(allowed[-2].alpha)
    return [spell(float(last + steps * (last - before))) for steps in (1, 2)]


# The columns of rewards.csv and likelihoods.csv that hold texts; all others hold numbers.
TEXT = ("pair", "alpha", "prompts", "prompt_id", "finish_reason", "engine")
# By criterion and alpha the sums and counts of every prompt, whose ratio is the criterion's value.
Measured = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]


def read_rewards(path: Path, pair: str, alpha: str) -> pd.DataFrame:
    """Read a rewards.csv, with all rewards or none; a broken one, or another's, is a DataError that names it."""
    table = _read(
        path, REWARD_COLUMNS, ("prompt_id", "sample", "finish_reason"), {"pair": pair, "alpha": alpha}
    )
    if table["reward"].isna().nunique() > 1:
        raise _incomplete(path)
    return table


def read_likelihoods(path: Path, pair: str, alpha: str) -> pd.DataFrame:
    """Read a likelihoods.csv; a broken one, or another's, is a DataError that names it."""
    filled = ("prompt_id", "sample", "tokens", "logp_aligned")
    return _read(path, columns.LIKELIHOOD_COLUMNS, filled, {"pair": pair, "alpha": alpha})


def read_effective_alpha(path: Path, alpha: str) -> float | None:
    """The effective alpha that a recipe.json tells; another alpha's is a DataError that names it."""
    recipe = read_json(path, Achieved)
    require_own(path, dict(recipe), {"alpha": float(alpha)})
    return recipe.effective_alpha


def _read(
    path: Path, columns: Sequence[str], filled: Sequence[str], labels: Mapping[str, str]
) -> pd.DataFrame:
    """A table with `columns`, those of `filled` without gaps, to the end of its last line; `labels` say whose it is."""
    path, text = Path(path), read_text(path)
    try:
        table = pd.read_csv(
            StringIO(text),
            dtype=dict.fromkeys(TEXT, str),
            keep_default_na=False,  # a pair or prompt may be called NA
            na_values=[""],
        )
        missing = [column for column in columns if column not in table]
        complete = text.endswith("\n") and not missing and _sound(table, filled)
    except (pd.errors.ParserError, pd.errors.EmptyDataError):
        complete = False
    if not complete:
        raise _incomplete(path)
    for what, value in labels.items():
        for found in table[what].unique():
            require_own(path, {what: found}, {what: value})
    return table


def _sound(table: pd.DataFrame, filled: Sequence[str]) -> bool:
    """Whether there are rows, without gaps in `filled`, and every number is finite."""
    if not len(table) or table[[*filled]].isna().any(axis=None):
        return False
    numbers = table.drop(columns=[*TEXT], errors="ignore")
    finite = np.isfinite(numbers.apply(pd.to_numeric, errors="coerce"))
    return bool((finite | numbers.isna()).all(axis=None))


def _incomplete(path: Path) -> DataError:
    kind = Path(path).name.split(".")[-2]
    return DataError(f"{path}: not a complete {kind} table; delete it and run snakemake again")


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
    weights = statistics.resampled(len(measured[config.by]["0"][0]), config.resamples, seed)
    rows = [{"pair": pair, "alpha": alpha} | _averages(rewards[alpha]) for alpha in alphas]
    for row in rows:
        row |= {name: float(_mean(*of[row["alpha"]])) for name, of in measured.items()}
        row["effective_alpha"] = effective[row["alpha"]]
        if "reward" in measured:
            row |= _intervals(measured["reward"][row["alpha"]][0], measured["reward"]["0"][0], config, seed)
        for name in measured.keys() - {"reward"}:
            interval = criteria.CRITERIA[name].interval
            row |= _changes(interval, measured[name], row["alpha"], weights, config)
    allowed = [row for row in rows if float(row["alpha"]) >= 0]
    choices = {
        by: _choose(allowed, measured[by], weights, by, config) for by in (config.by, *config.others())
    }
    choice, shares = choices.pop(config.by)
    for row, share in zip(allowed, shares, strict=True):
        row["chosen_share"] = float(share)
    for row in rows:
        row["chosen"] = row["alpha"] == choice.alpha
    chosen = next(row for row in rows if row["chosen"])
    fields = ("reward", "gain", "gain_low", "gain_high", "chosen_share")
    best = Best(
        pair=pair,
        alpha=choice.alpha,
        certified=choice.certified,
        edge=choice.edge,
        reason=choice.reason + ("" if "reward" in measured else "; there is no reward model"),
        others={by: other.alpha for by, (other, _) in choices.items()},
        **{field: chosen.get(field) for field in fields},
    )
    return rows, best


def _choose(
    allowed: list[dict[str, Any]],
    of: Mapping[str, tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray,
    by: str,
    config: SelectConfig,
) -> tuple[Choice, np.ndarray]:
    """What is chosen among the rows `allowed`, alpha 0 first, and in which share of the resamples each would be."""
    candidates = [Candidate(row["alpha"], row[by], *_change(row, allowed[0], by)) for row in allowed]
    drawn = np.stack([_mean(*of[row["alpha"]], weights) for row in allowed], axis=1)
    picked = criteria.CRITERIA[by].pick(drawn)
    shares = np.bincount(picked, minlength=len(allowed)) / len(picked)
    return choose(candidates, config.confidence, config.require_certified, by), shares


def _change(row: dict[str, Any], aligned: dict[str, Any], by: str) -> tuple[float, float, float]:
    """Change from alpha 0 of what is chosen by, with its interval; that of the reward is the gain."""
    interval = criteria.CRITERIA[by].interval
    change = row[interval] if interval in row else row[by] - aligned[by]
    return change, row[f"{interval}_low"], row[f"{interval}_high"]


def _changes(
    interval: str,
    of: Mapping[str, tuple[np.ndarray, np.ndarray]],
    alpha: str,
    weights: np.ndarray,
    config: SelectConfig,
) -> dict[str, float]:
    """The percentile interval of the change of a ratio from alpha 0, over resampled prompts, by column."""
    drawn = _mean(*of[alpha], weights) - _mean(*of["0"], weights)
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return {f"{interval}_low": float(low), f"{interval}_high": float(high)}


def _mean(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum over count of the prompts, each as often as `weights` [..., prompts] says: shape [...]."""
    weights = np.ones(len(sums)) if weights is None else weights
    return (weights @ sums) / (weights @ counts)


def _measured(rewards: Mapping[str, pd.DataFrame], likelihoods: Mapping[str, pd.DataFrame]) -> Measured:
    """The values of every criterion that is known of all responses."""
    tables = {alpha: _joined(alpha, table, likelihoods.get(alpha)) for alpha, table in rewards.items()}
    found: Measured = {}
    for name, criterion in criteria.CRITERIA.items():
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


def _of_prompts(table: pd.DataFrame, values: pd.Series, per: str) -> tuple[np.ndarray, np.ndarray]:
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
        "unfinished": float((table["finish_reason"] == "length").mean()),
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
