"""The tables of the paper's Appendices E and F, and the paper's numbers beside those of a run.

The tables are made from rows with the columns of the published files (`reporting.paper`). The same
code therefore renders the paper's numbers and those of a run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from expoflow.files.records import read_json
from expoflow.reporting.printed_table import Mark, Table, certified_words, write_table
from expoflow.reporting.tables import read_sweeps
from expoflow.results import BenchmarkResult

Row = Mapping[str, str]
# Rewards by pair, variant and quantity, as text or number.
Found = dict[tuple[str, str, str], Any]

REWARD = "reward"
E_COLUMNS = ("pair", "aligned", "sft", "alphas", "best_alpha")
F_COLUMNS = ("pair", "model", "reward", "reward_trained_on_dev", "reward_expo", "gain_low", "gain_high")
EXPO = 3  # its column in Appendix F
COLUMNS = ("pair", "model", "source", "variant", "quantity", "paper", "here", "difference")


def write_appendices(
    pairs: Mapping[str, Mapping[str, str | None]],
    *,
    alphas: Iterable[Path],
    benchmarks: Iterable[Path],
    paper: Mapping[str, Sequence[Mapping[str, str]]],
    note: str,
    confidence: Mapping[str, float],
    outputs: Iterable[Path],
) -> None:
    """Write the files of appendix_e, appendix_f and reproduction (.csv, .md, .tex) in `outputs`.

    `pairs` has `sft`, `aligned` and `trained_on_dev` of every pair. `alphas` and `benchmarks` are
    the results of the pairs. `paper` has the published numbers of the pairs that repeat a model of
    the paper. `note` says that the reward model is not the paper's, if it is another one.
    `confidence` has the confidence levels of the pairs' intervals. It is empty in a rehearsal,
    which certifies nothing.
    """
    swept = read_sweeps(alphas)
    found = _found(pairs, swept, benchmarks)
    ranges, trained = _ranges(pairs, swept), _trained_on_dev(pairs, found, swept)
    published = beside(paper, found, other_rewards=bool(note))
    tables = {
        "appendix_e": (appendix_e(ranges), E_COLUMNS, ranges),
        "appendix_f": (_marked(appendix_f(trained), trained, confidence), F_COLUMNS, trained),
        "reproduction": (reproduction(published, note), COLUMNS, published),
    }
    for output in outputs:
        write_table(output, *tables[output.stem])


def appendix_e(rows: Iterable[Row]) -> Table:
    """Search ranges and chosen alphas, as in Appendix E.

    All alphas of a range have the same number of decimals.
    """
    return Table(
        ("DPO/RLHF Model", "SFT Checkpoint", "Search Range", "Optimal α"),
        tuple((row["aligned"], row["sft"], _range(row["alphas"]), row["best_alpha"]) for row in rows),
        caption="The alphas that were tried for every pair, and the chosen one, in the form of the paper's Appendix E.",
        columns="lllr",
    )


def appendix_f(rows: Iterable[Row]) -> Table:
    """The reward, and how much further training on the dev set and ExPO add to it."""
    return Table(
        ("", "Original Reward", "+ Training on Dev", "+ ExPO, no training"),
        tuple(tuple(_rewards(row)) for row in rows),
        caption="Mean rewards on the prompts that choose alpha, in the form of the paper's Appendix F: of the aligned model, after"
        " further training on these prompts, and of ExPO.",
    )


def reproduction(rows: Iterable[Mapping[str, Any]], note: str = "") -> Table:
    """The paper's numbers, those of this run, and the difference.

    `note` stands below the table if a difference is left out.
    """
    rows = list(rows)
    return Table(
        COLUMNS,
        tuple(tuple(_short(row[column]) for column in COLUMNS) for row in rows),
        caption="The paper's numbers and those of this run; the difference is this run's minus the paper's.",
        note=note if any(row["difference"] is None for row in rows) else "",
        columns="lllllrrr",
    )


def beside(
    paper: Mapping[str, Sequence[Mapping[str, str]]], found: Found, other_rewards: bool
) -> list[dict[str, Any]]:
    """Rows of reproduction.csv: numbers that both the paper and this run have, and the difference.


    With `other_rewards` the reward model is not the paper's. Rewards then have no difference,
    because it would be meaningless.
    """
    rows = []
    for pair, numbers in paper.items():
        for number in numbers:
            here = found.get((pair, number["variant"], number["quantity"]))
            if here is not None:
                row = dict(number) | {"pair": pair, "paper": float(number["value"]), "here": float(here)}
                alike = not (other_rewards and number["quantity"] == REWARD)
                rows.append(row | {"difference": row["here"] - row["paper"] if alike else None})
    return rows


def _found(
    pairs: Mapping[str, Mapping[str, str | None]], swept: Iterable[Row], benchmarks: Iterable[Path]
) -> Found:
    """The numbers of this run, by variant (aligned, expo, dev, sft) and quantity.

    Quantities are those of `reporting.paper`.
    """
    found: Found = {}
    for row in swept:
        if row["alpha"] == "0" and row["reward"]:
            found[row["pair"], "aligned", REWARD] = row["reward"]
        if row["chosen"] == "1":
            if row["reward"]:
                found[row["pair"], "expo", REWARD] = row["reward"]
            found[row["pair"], "expo", "alpha"] = row["alpha"]
    for pair, entry in pairs.items():
        if entry["trained_on_dev"]:
            found[pair, "dev", REWARD] = found[entry["trained_on_dev"], "aligned", REWARD]
    for path in benchmarks:
        result = read_json(path, BenchmarkResult)
        for metric in result.metrics:
            found[result.pair, result.variant, f"{result.benchmark}.{metric.metric}"] = metric.value
    return found


def _ranges(pairs: Mapping[str, Mapping[str, str | None]], swept: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of appendix_e.csv. A pair that was not extrapolated has none."""
    rows = []
    for pair, entry in pairs.items():
        own = [row for row in swept if row["pair"] == pair]
        tried = " ".join(row["alpha"] for row in own if float(row["alpha"]) > 0)
        (best,) = (row["alpha"] for row in own if row["chosen"] == "1")
        row = {"pair": pair, "aligned": entry["aligned"], "sft": entry["sft"]}
        if tried:
            rows.append(row | {"alphas": tried, "best_alpha": best})
    return rows


def _trained_on_dev(
    pairs: Mapping[str, Mapping[str, str | None]], found: Found, swept: Iterable[Row]
) -> list[dict[str, Any]]:
    """Rows of appendix_f.csv, with the interval of ExPO's gain."""
    chosen = {row["pair"]: row for row in swept if row["chosen"] == "1"}
    variants = {"reward": "aligned", "reward_trained_on_dev": "dev", "reward_expo": "expo"}
    return [
        {"pair": pair, "model": entry["aligned"]}
        | {column: found[pair, variant, REWARD] for column, variant in variants.items()}
        | {end: chosen[pair].get(end) for end in ("gain_low", "gain_high")}
        for pair, entry in pairs.items()
        if entry["trained_on_dev"]
    ]


def _range(alphas: str) -> str:
    values = [Decimal(alpha).normalize() for alpha in alphas.split()]
    decimals = max(0, *(-int(value.as_tuple().exponent) for value in values))
    return f"[{', '.join(f'{value:.{decimals}f}' for value in values)}]"


def _marked(table: Table, rows: Sequence[Row], confidence: Mapping[str, float]) -> Table:
    """Appendix F of a run, with ExPO's reward marked if its gain is certified.

    The paper printed the best reward in bold.
    """
    marks = {}
    for at, row in enumerate(rows):
        if row["pair"] in confidence and row["gain_low"] and row["gain_high"]:
            if float(row["gain_low"]) > 0:
                marks[at, EXPO] = Mark.BOLD
            elif float(row["gain_high"]) < 0:
                marks[at, EXPO] = Mark.DAGGER
    note = certified_words("the gain on these prompts, for all alphas at once,", confidence.values())
    if confidence:
        note += " Further training has no interval, so it is never marked."
    return replace(table, marks=marks, note=note)


def _rewards(row: Row) -> Iterator[str]:
    """Cells of Appendix F. The brackets hold differences of the unrounded rewards."""
    rewards = [Decimal(row[column]) for column in ("reward", "reward_trained_on_dev", "reward_expo")]
    yield row["model"]
    for reward in rewards:
        gain = f" ({_cents(reward - rewards[0]):+})" if reward is not rewards[0] else ""
        yield f"{_cents(reward)}{gain}"


def _cents(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.01"), ROUND_HALF_UP)


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
