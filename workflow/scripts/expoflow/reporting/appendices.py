"""The tables of the paper's Appendices E and F, and the paper's numbers beside a run's own.

The tables are made from rows with the columns of the published files (`reporting.paper`), so that the same code
renders the paper's figures and a run's own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from expoflow.files.atomic import write_text
from expoflow.files.markdown import markdown_table
from expoflow.files.records import read_json, write_csv
from expoflow.reporting.tables import read_sweeps
from expoflow.results import BenchmarkResult

Row = Mapping[str, str]
# Reward by pair, variant and quantity, as text or number.
Found = dict[tuple[str, str, str], Any]

E_COLUMNS = ("pair", "aligned", "sft", "alphas", "best_alpha")
F_COLUMNS = ("pair", "model", "reward", "reward_trained_on_dev", "reward_expo")
COLUMNS = ("pair", "model", "source", "variant", "quantity", "paper", "here", "difference")


def write_appendices(
    pairs: Mapping[str, Mapping[str, str | None]],
    *,
    alphas: Iterable[Path],
    benchmarks: Iterable[Path],
    paper: Mapping[str, Sequence[Mapping[str, str]]],
    note: str,
    outputs: Iterable[Path],
) -> None:
    """Write those of appendix_e, appendix_f and reproduction, as .csv and .md, that `outputs` names.

    `pairs` says of every pair `sft`, `aligned` and `trained_on_dev`; `alphas` and `benchmarks` are the pairs'
    results; `paper` has the published numbers of the pairs that repeat a model of the paper's, and
    `note` is what is to be said of them.
    """
    swept = read_sweeps(alphas)
    found = _found(pairs, swept, benchmarks)
    tables = {
        "appendix_e": (E_COLUMNS, _ranges(pairs, swept), appendix_e),
        "appendix_f": (F_COLUMNS, _trained_on_dev(pairs, found), appendix_f),
        "reproduction": (
            COLUMNS,
            beside(paper, found),
            lambda rows: reproduction(rows, note),
        ),
    }
    for output in outputs:
        columns, rows, render = tables[output.stem]
        if output.suffix == ".csv":
            write_csv(output, rows, columns)
        else:
            write_text(output, render(rows))


def appendix_e(rows: Iterable[Row]) -> str:
    """Search ranges and chosen alphas, as in Appendix E: a range's alphas have equally many decimals."""
    header = ("DPO/RLHF Model", "SFT Checkpoint", "Search Range", "Optimal α")
    cells = ((row["aligned"], row["sft"], _range(row["alphas"]), row["best_alpha"]) for row in rows)
    return markdown_table(header, cells)


def appendix_f(rows: Iterable[Row]) -> str:
    """The reward, and what further training on the dev set and ExPO add to it; the best one is bold."""
    header = ("", "Original Reward", "+ Training on Dev", "+ ExPO, no training")
    return markdown_table(header, map(_rewards, rows))


def reproduction(rows: Iterable[Mapping[str, Any]], note: str = "") -> str:
    """The paper's numbers, this run's, and the difference; `note` stands below."""
    table = markdown_table(COLUMNS, (tuple(_short(row[column]) for column in COLUMNS) for row in rows))
    return f"{table}\n{note}\n" if note else table


def beside(paper: Mapping[str, Sequence[Mapping[str, str]]], found: Found) -> list[dict[str, Any]]:
    """Rows of reproduction.csv: of what the paper printed and this run has, both and the difference."""
    rows = []
    for pair, numbers in paper.items():
        for number in numbers:
            here = found.get((pair, number["variant"], number["quantity"]))
            if here is not None:
                row = dict(number) | {"pair": pair, "paper": float(number["value"]), "here": float(here)}
                rows.append(row | {"difference": row["here"] - row["paper"]})
    return rows


def _found(
    pairs: Mapping[str, Mapping[str, str | None]], swept: Iterable[Row], benchmarks: Iterable[Path]
) -> Found:
    """What this run has: quantities as the paper's (`reporting.paper`), of aligned, expo, dev, and sft."""
    found: Found = {}
    for row in swept:
        if row["alpha"] == "0" and row["reward"]:
            found[row["pair"], "aligned", "reward"] = row["reward"]
        if row["chosen"] == "1":
            if row["reward"]:
                found[row["pair"], "expo", "reward"] = row["reward"]
            found[row["pair"], "expo", "alpha"] = row["alpha"]
    for pair, entry in pairs.items():
        if entry["trained_on_dev"]:
            found[pair, "dev", "reward"] = found[entry["trained_on_dev"], "aligned", "reward"]
    for path in benchmarks:
        result = read_json(path, BenchmarkResult)
        for metric in result.metrics:
            found[result.pair, result.variant, f"{result.benchmark}.{metric.metric}"] = metric.value
    return found


def _ranges(pairs: Mapping[str, Mapping[str, str | None]], swept: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of appendix_e.csv; a pair that was not extrapolated has none."""
    rows = []
    for pair, entry in pairs.items():
        own = [row for row in swept if row["pair"] == pair]
        tried = " ".join(row["alpha"] for row in own if float(row["alpha"]) > 0)
        (best,) = (row["alpha"] for row in own if row["chosen"] == "1")
        row = {"pair": pair, "aligned": entry["aligned"], "sft": entry["sft"]}
        if tried:
            rows.append(row | {"alphas": tried, "best_alpha": best})
    return rows


def _trained_on_dev(pairs: Mapping[str, Mapping[str, str | None]], found: Found) -> list[dict[str, Any]]:
    """Rows of appendix_f.csv."""
    variants = {"reward": "aligned", "reward_trained_on_dev": "dev", "reward_expo": "expo"}
    return [
        {"pair": pair, "model": entry["aligned"]}
        | {column: found[pair, variant, "reward"] for column, variant in variants.items()}
        for pair, entry in pairs.items()
        if entry["trained_on_dev"]
    ]


def _range(alphas: str) -> str:
    values = [Decimal(alpha).normalize() for alpha in alphas.split()]
    decimals = max(0, *(-int(value.as_tuple().exponent) for value in values))
    return f"[{', '.join(f'{value:.{decimals}f}' for value in values)}]"


def _rewards(row: Row) -> Iterator[str]:
    """Cells of Appendix F; the brackets are differences of the unrounded rewards."""
    rewards = [Decimal(row[column]) for column in ("reward", "reward_trained_on_dev", "reward_expo")]
    yield row["model"]
    for reward in rewards:
        gain = f" ({_cents(reward - rewards[0]):+})" if reward is not rewards[0] else ""
        cell = f"{_cents(reward)}{gain}"
        yield f"**{cell}**" if reward == max(rewards) else cell


def _cents(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.01"), ROUND_HALF_UP)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
