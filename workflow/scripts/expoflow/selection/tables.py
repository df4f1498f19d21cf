"""Read the files of one alpha: rewards.csv, likelihoods.csv and the effective alpha of its recipe.

A table is read whole or not at all.
"""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from expoflow.columns import LIKELIHOOD_COLUMNS, REWARD_COLUMNS
from expoflow.errors import DataError
from expoflow.extrapolation.recipe import Achieved
from expoflow.files.records import read_json, read_text, require_own
from expoflow.paths import of_alpha

# The columns of rewards.csv and likelihoods.csv that hold text. All others hold numbers.
TEXT = ("pair", "alpha", "prompts", "prompt_id", "finish_reason", "engine", "degenerate")


def read_rewards(path: Path, pair: str, alpha: str) -> pd.DataFrame:
    """Read a rewards.csv, which has all rewards or none.

    Raises DataError, with the path, if the file is broken or belongs to another pair or alpha.
    """
    table = _read(
        path, REWARD_COLUMNS, ("prompt_id", "sample", "finish_reason"), {"pair": pair, "alpha": alpha}
    )
    if table["reward"].isna().nunique() > 1:
        raise _incomplete(path)
    return table


def read_likelihoods(path: Path, pair: str, alpha: str) -> pd.DataFrame:
    """Read a likelihoods.csv.

    Raises DataError, with the path, if the file is broken or belongs to another pair or alpha.
    """
    filled = ("prompt_id", "sample", "tokens", "logp_aligned")
    return _read(path, LIKELIHOOD_COLUMNS, filled, {"pair": pair, "alpha": alpha})


def read_swept(
    pair: str, rewards: Sequence[Path], likelihoods: Sequence[Path], alphas: Sequence[str] | None = None
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Read the tables of rewards and of likelihoods, by alpha; only those of `alphas` if given.

    Each file lies in the folder of its alpha.
    """
    read = ((rewards, read_rewards), (likelihoods, read_likelihoods))
    return tuple(
        {
            alpha: table(path, pair, alpha)
            for alpha, path in ((of_alpha(path), path) for path in map(Path, paths))
            if alphas is None or alpha in alphas
        }
        for paths, table in read
    )


def read_effective_alpha(path: Path, alpha: str) -> float | None:
    """Read the effective alpha from a recipe.json.

    Raises DataError, with the path, if the recipe is of another alpha.
    """
    recipe = read_json(path, Achieved)
    require_own(path, dict(recipe), {"alpha": float(alpha)})
    return recipe.effective_alpha


def _read(
    path: Path, columns: Sequence[str], filled: Sequence[str], labels: Mapping[str, str]
) -> pd.DataFrame:
    """Read a complete table with `columns`, without gaps in those of `filled`.

    `labels` say which pair and alpha the table must belong to.
    """
    path, text = Path(path), read_text(path)
    try:
        table = pd.read_csv(
            StringIO(text),
            dtype=dict.fromkeys(TEXT, str),
            keep_default_na=False,  # the name of a pair or prompt may be NA
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
    """Whether there are rows, `filled` has no gaps, and every number is finite."""
    if not len(table) or table[[*filled]].isna().any(axis=None):
        return False
    numbers = table.drop(columns=[*TEXT], errors="ignore")
    finite = np.isfinite(numbers.apply(pd.to_numeric, errors="coerce"))
    return bool((finite | numbers.isna()).all(axis=None))


def _incomplete(path: Path) -> DataError:
    kind = Path(path).name.split(".")[-2]
    return DataError(f"{path}: not a complete {kind} table; delete it and run snakemake again")
