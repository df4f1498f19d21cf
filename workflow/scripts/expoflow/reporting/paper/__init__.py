"""The paper's published numbers, by its names of the models; the tables lie beside this module.

Quantities have the names of a run's results: `alpha` (the chosen one), `reward` (on the prompts
that choose alpha), and BENCHMARK.METRIC in the unit of results/benchmarks.csv. The rewards of
Section 4.2 (3.13 -> 4.79 and so on) are those of Appendix F.
"""

import csv
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
OPEN_LLM = ("arc", "hellaswag", "mmlu", "gsm8k", "winogrande", "truthfulqa")
# The note for a run with another reward model.
OTHER_REWARDS = (
    "The reward model of this run is not the paper's, so its rewards have another zero and unit. Compare signs"
    " and orders: a difference would be meaningless, and is left out."
)
# Columns of Tables 1 and 2.
BENCHMARKS = {
    "wr": "alpaca_eval.win_rate",
    "lc_wr": "alpaca_eval.lc_win_rate",
    "mt_bench": "mt_bench.score",
}


class Published(NamedTuple):
    """One number: its model and variant (`dev`: trained on the dev set), quantity, and source."""

    model: str
    source: str
    variant: str
    quantity: str
    value: Decimal


def read(table: str) -> list[dict[str, str]]:
    """Rows of paper_{table}.csv, with every value as printed."""
    with open(FOLDER / f"paper_{table}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def name(printed: str) -> str:
    """The single name of a model that has several names in the paper's tables."""
    if printed == "zephyr-7b-dpo":
        return "DPO (100% data)"
    return printed.replace("init from M0, ", "")


MODELS = tuple(name(row["aligned"]) for row in read("appendix_e_alphas"))
REWARD_MODEL = next(row["hub_id"] for row in read("appendix_b_models") if row["name"] == "reward model")


@cache
def numbers() -> tuple[Published, ...]:
    """All numbers of Appendices E and F, Tables 1 and 2, and Appendix D."""
    return (*_sweeps(), *_tables(), *_leaderboard())


def published(model: str) -> list[Published]:
    """The numbers of one of MODELS."""
    return [number for number in numbers() if number.model == model]


def _of_row(
    row: Mapping[str, str], model: str, source: str, variant: str, columns: Mapping[str, str]
) -> Iterator[Published]:
    """The numbers in `columns` (quantity by column) of a table's row."""
    for column, quantity in columns.items():
        if row.get(column):
            yield Published(model, source, variant, quantity, Decimal(row[column]))


def _sweeps() -> Iterator[Published]:
    for row in read("appendix_e_alphas"):
        yield from _of_row(row, name(row["aligned"]), "Appendix E", "expo", {"best_alpha": "alpha"})
    variants = {"reward": "aligned", "reward_trained_on_dev": "dev", "reward_expo": "expo"}
    for row in read("appendix_f"):
        for column, variant in variants.items():
            yield from _of_row(row, row["model"], "Appendix F", variant, {column: "reward"})


def _tables() -> Iterator[Published]:
    expo = {f"expo_{column}": metric for column, metric in BENCHMARKS.items()}
    base, *others = read("table2")
    for source, rows in (("Table 1", read("table1")), ("Table 2", others)):
        for row in rows:
            model = name(row["model"])
            yield from _of_row(row, model, source, "aligned", BENCHMARKS)
            yield from _of_row(row, model, source, "expo", expo)
            if source == "Table 2":
                yield from _of_row(base, model, source, "sft", BENCHMARKS)


def _leaderboard() -> Iterator[Published]:
    """Appendix D as shares, with their average, for which Figure 4 prints no number."""
    for row in read("appendix_d"):
        scores = {task: Decimal(row[task]) / 100 for task in OPEN_LLM}
        scores["average"] = sum(scores.values()) / len(scores)
        for task, score in scores.items():
            yield Published(row["model"], "Appendix D", row["variant"], f"open_llm.{task}", score)
