"""Win rates from a judge's verdicts, by alpaca_eval's own metric code.

Verdicts are a table with one row per instruction, in the official order. `preference` is 1 if the
reference's output is better and 2 if the model's output is better. Values in between say how sure
the judge is, and NaN means that there is no verdict. `len_baseline` and `len_model` are the
characters of the two outputs.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from expoflow.errors import ConfigError, DataError
from expoflow.files.records import provenance
from expoflow.system import progress

if TYPE_CHECKING:
    from types import ModuleType


COLUMNS = ("index", "preference", "len_baseline", "len_model")
REFERENCE = "gpt4_1106_preview"
INSTRUCTIONS = 805
# sha256 over the lengths of the reference's official outputs. It identifies the set without its
# texts.
OFFICIAL = "eb58f1e0c66beb54e25cf34a49a36ed0997f19ed35d5a1468e991d636b2328ff"
# The file of the dataset tatsu-lab/alpaca_eval that length control needs.
GAMED = "df_gamed.csv"


def package() -> "ModuleType":
    """Import alpaca_eval; raise ConfigError, with the remedy, if it cannot be imported.

    The import reads no .env file, needs no user name, and does not change the logging level and the
    warnings of this process.
    """
    import logging

    os.environ.setdefault("PYTHON_DOTENV_DISABLED", "1")
    os.environ.setdefault("LOGNAME", "nobody")  # the import asks for it, and a container's user may have none
    level = logging.getLogger().level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import alpaca_eval
            import alpaca_eval.metrics.glm_winrate
    except ImportError as error:
        raise ConfigError(
            [f"benchmark alpaca_eval: {error.name} is not installed; pip install 'expoflow[bench]'"]
        ) from None
    finally:
        logging.getLogger().setLevel(level)
    return alpaca_eval


def win_rates(verdicts: pd.DataFrame, gamed: Path | None) -> dict[str, Any]:
    """The package's figures (in percent) under its own names, `avg_length`, and their basis.

    `gamed` is the file df_gamed.csv of the dataset. If there is no length-controlled win rate, it
    is None and `length_controlled` says why.
    """
    if gamed:
        _read_gamed(gamed)
    reason = refusal(verdicts, gamed)
    figures = _figures(verdicts, None if reason else gamed)
    figures |= {"avg_length": int(verdicts["len_model"].mean())}
    if reason:
        figures |= {"length_controlled_winrate": None, "lc_standard_error": None}
        figures["length_controlled"] = f"refused: {reason}"
    else:
        figures["length_controlled"] = basis(gamed)
    return figures | {"versions": provenance("alpaca_eval", "scikit-learn")}


def refusal(verdicts: pd.DataFrame, gamed: Path | None) -> str | None:
    """Why there is no length-controlled win rate, which is defined only on the official set."""
    if len(verdicts) != INSTRUCTIONS:
        return f"{len(verdicts)} instructions; it is defined on the {INSTRUCTIONS} official ones"
    if list(verdicts.index) != list(range(INSTRUCTIONS)):
        return "the instructions are not in the official order, which their difficulties refer to"
    lengths = ",".join(str(int(length)) for length in verdicts["len_baseline"])
    if hashlib.sha256(lengths.encode()).hexdigest() != OFFICIAL:
        return f"the reference outputs are not the official ones of {REFERENCE} in the official order"
    if gamed is None:
        return f"it needs {GAMED} of the dataset tatsu-lab/alpaca_eval; give its path"
    return None


def length_controlled(verdicts: pd.DataFrame, gamed: Path) -> float:
    """The length-controlled win rate in percent.

    The index of a row is its position among the official instructions.
    """
    return _figures(verdicts, gamed)["length_controlled_winrate"]


def length_controlled_differences(
    after: pd.DataFrame, before: pd.DataFrame, gamed: Path, resamples: int, seed: int = 0
) -> np.ndarray:
    """Bootstrap over instructions of the difference after - before, shape (resamples,).

    The package's model is fitted again to every resample, because its own standard error treats the
    fit as fixed.
    """
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(resamples):
        rows = rng.integers(len(after), size=len(after))
        pair = (length_controlled(table.iloc[rows], gamed) for table in (after, before))
        differences.append(next(pair) - next(pair))
        progress.report(len(differences), resamples, "resamples")
    return np.array(differences)


def read_annotations(path: Path) -> pd.DataFrame:
    """Read verdicts from a CSV, or from a result's rows, which are JSON lines (.jsonl).

    The CSV has the columns index, preference, len_baseline and len_model. Raises DataError.
    """
    try:
        lines = path.suffix == ".jsonl"
        table = pd.read_json(path, lines=True, precise_float=True) if lines else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); correct the path") from None
    if "preference" not in table and lines:
        table["preference"] = np.nan
    if missing := [column for column in COLUMNS if column not in table]:
        raise DataError(f"{path}: no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    table = table.set_index("index").sort_index()
    if not table.index.is_unique:
        raise DataError(f"{path}: index {table.index[table.index.duplicated()][0]} stands twice; remove one")
    bad = table.index[~(table["preference"].between(1, 2) | table["preference"].isna())]
    if len(bad):
        raise DataError(
            f"{path}: index {bad[0]}: preference {table['preference'][bad[0]]} is not between 1 and 2"
        )
    if table.empty or table[["len_baseline", "len_model"]].isna().any(axis=None):
        raise DataError(f"{path}: a length is missing; every row needs len_baseline and len_model")
    return table[list(COLUMNS[1:])]


def check_difficulty(gamed: Path, difficulty: Path) -> None:
    """Raise DataError if a file of instruction difficulties contradicts those in `gamed`."""
    try:
        named = pd.read_csv(difficulty, index_col=0).iloc[:, 0].to_numpy()
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{difficulty}: cannot be read as CSV ({error}); correct the path") from None
    used = _read_gamed(gamed).drop_duplicates("index")["instruction_difficulty"].to_numpy()
    if named.shape != used.shape or not np.allclose(named, used, rtol=0, atol=1e-6):
        raise DataError(
            f"{difficulty}: other difficulties than in {gamed}; the two files do not belong together"
        )


def _read_gamed(path: Path) -> pd.DataFrame:
    columns = (
        "model",
        "index",
        "preference",
        "std_delta_len",
        "instruction_difficulty",
        "not_gamed_baseline",
    )
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); give {GAMED} of the dataset") from None
    if missing := [column for column in columns if column not in table]:
        raise DataError(f"{path}: no column {', '.join(missing)}; give {GAMED} of the dataset")
    return table


def basis(gamed: Path) -> dict[str, Any]:
    """The basis of a length-controlled win rate, and whether it is the dataset's own file."""
    basis = {"gamed": gamed.name, "sha256": hashlib.sha256(gamed.read_bytes()).hexdigest()}
    if gamed.name != GAMED:
        basis["note"] = (
            f"a surrogate, not the dataset's {GAMED}: the length-controlled figures are approximate"
        )
    return basis


def _figures(verdicts: pd.DataFrame, gamed: Path | None) -> dict[str, Any]:
    """The figures that alpaca_eval.metrics computes from the verdicts, as plain numbers."""
    metrics = package().metrics
    table = pd.DataFrame(
        {
            "preference": verdicts["preference"],
            # the metrics use only the lengths of the outputs
            "output_1": ["x" * int(length) for length in verdicts["len_baseline"]],
            "output_2": ["x" * int(length) for length in verdicts["len_model"]],
            "generator_1": REFERENCE,
            "generator_2": "model",
        },
        index=verdicts.index.rename(None),
    )
    if gamed is None:
        figures = metrics.get_winrate(table)
    else:
        with _local(gamed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of arguments that the package sets
            figures = metrics.get_length_controlled_winrate(table, save_weights_dir=None)
    return {name: getattr(value, "item", lambda value=value: value)() for name, value in figures.items()}


@contextmanager
def _local(gamed: Path) -> Iterator[None]:
    """Let the package read `gamed` instead of downloading the dataset's file.

    The package has no argument for that.
    """
    module = package().metrics.glm_winrate
    download = module.hf_hub_download

    def local(filename: str, **_: Any) -> str:
        if filename != GAMED:
            raise DataError(f"alpaca_eval asks for {filename}, which no setting names")
        return str(gamed)

    module.hf_hub_download = local
    try:
        yield
    finally:
        module.hf_hub_download = download
