"""Appendices E and F, rendered from the published figures, digit for digit as the paper prints them."""

from dataclasses import replace
from decimal import Decimal

import pytest
from expoflow.config import base
from expoflow.reporting import appendices, paper
from expoflow.reporting.printed_table import Mark

APPENDIX_E = """\
| DPO/RLHF Model | SFT Checkpoint | Search Range | Optimal α |
| --- | ---: | ---: | ---: |
| zephyr-7b-alpha | mistral-7b-sft-alpha | [0.1, 0.2, 0.3, 0.4, 0.5] | 0.3 |
| zephyr-7b-beta | mistral-7b-sft-beta | [0.1, 0.2, 0.3, 0.5] | 0.1 |
| starling-7b-alpha | openchat-3.5 | [0.1, 0.2, 0.3, 0.5] | 0.2 |
| starling-7b-beta | openchat-3.5-0106 | [0.1, 0.3, 0.4, 0.5] | 0.5 |
| snorkel-7b | mistral-7b-instruct-v0.2 | [0.1, 0.2, 0.3, 0.4, 0.5] | 0.3 |
| llama3-8b-iter | llama3-8b-sft | [0.1, 0.2, 0.3, 0.4, 0.5] | 0.3 |
| internlm2-1.8b | internlm2-1.8b-sft | [0.1, 0.3, 0.4, 0.5] | 0.5 |
| internlm2-7b | internlm2-7b-sft | [0.1, 0.3, 0.4, 0.5] | 0.5 |
| internlm2-20b | internlm2-20b-sft | [0.1, 0.3, 0.4, 0.5] | 0.5 |
| tulu-2-dpo-7b | tulu-2-7b | [0.1, 0.3, 0.4, 0.5] | 0.5 |
| tulu-2-dpo-13b | tulu-2-13b | [0.1, 0.3, 0.4, 0.5] | 0.5 |
| tulu-2-dpo-70b | tulu-2-70b | [0.1, 0.3, 0.4, 0.5] | 0.5 |
| DPO (5% data) | zephyr-7b-sft | [5, 10, 20, 25, 30] | 25 |
| DPO (10% data) | zephyr-7b-sft | [2, 5, 7, 8, 9, 10] | 8 |
| DPO (20% data) | zephyr-7b-sft | [1.0, 2.0, 2.5, 3.0] | 2.5 |
| DPO (40% data) | zephyr-7b-sft | [0.2, 0.4, 0.5, 0.6] | 0.5 |
| zephyr-7b-dpo | zephyr-7b-sft | [0.1, 0.2, 0.3, 0.4, 0.5] | 0.3 |
"""
APPENDIX_F = """\
|  | Original Reward | + Training on Dev | + ExPO, no training |
| --- | ---: | ---: | ---: |
| DPO (5% data) | 3.13 | 3.33 (+0.20) | **4.79 (+1.66)** |
| DPO (10% data) | 3.59 | 3.73 (+0.14) | **5.82 (+2.23)** |
| DPO (20% data) | 4.37 | 4.46 (+0.09) | **6.08 (+1.71)** |
| DPO (40% data) | 5.30 | 5.33 (+0.03) | **5.80 (+0.50)** |
| DPO (100% data) | 5.66 | 5.64 (-0.02) | **5.81 (+0.15)** |
"""


def as_a_run_writes(number: str) -> str:
    """An alpha or reward in the spelling of a run's own tables, where 1.0 is 1 and 5.30 is 5.3."""
    return base.spell(float(number))


def as_printed(rows: list[dict[str, str]]) -> str:
    """Appendix F as the paper printed it: the best reward of a row is bold."""
    columns = ("reward", "reward_trained_on_dev", "reward_expo")
    rewards = [[float(row[column]) for column in columns] for row in rows]
    best = {(at, 1 + row.index(max(row))): Mark.BOLD for at, row in enumerate(rewards)}
    return replace(appendices.appendix_f(rows), marks=best).grid()


def test_appendix_e():
    rows = paper.read("appendix_e_alphas")
    assert appendices.appendix_e(rows).grid() == APPENDIX_E
    for row in rows:
        row["alphas"] = " ".join(map(as_a_run_writes, row["alphas"].split()))
        row["best_alpha"] = as_a_run_writes(row["best_alpha"])
    assert {row["alphas"] for row in rows} >= {"1 2 2.5 3", "5 10 20 25 30"}
    assert appendices.appendix_e(rows).grid() == APPENDIX_E


def test_appendix_f():
    rows = paper.read("appendix_f")
    assert as_printed(rows) == APPENDIX_F
    for row in rows:
        row |= {column: as_a_run_writes(value) for column, value in row.items() if column != "model"}
    assert as_printed(rows) == APPENDIX_F


def test_appendix_f_rounds_half_up_and_its_brackets_are_those_of_the_unrounded_rewards():
    row = {"model": "m", "reward": "1.004", "reward_trained_on_dev": "1.125", "reward_expo": "0.9"}
    text = as_printed([row]).splitlines()[-1]
    assert text == "| m | 1.00 | **1.13 (+0.12)** | 0.90 (-0.10) |"


def test_every_cell_of_the_published_files_is_a_number_of_the_paper():
    """The renders above come from the files; that the numbers beside a run's do too is seen here."""
    marks = {"DPO (5% data)": ("3.13", "4.79"), "DPO (10% data)": ("3.59", "5.82")}
    for model, rewards in (marks | {"DPO (20% data)": ("4.37", "6.08")}).items():
        found = {n.variant: n.value for n in paper.published(model) if n.quantity == "reward"}
        assert (found["aligned"], found["expo"]) == tuple(map(Decimal, rewards))
    assert len(paper.MODELS) == 17
    assert all(paper.published(model) for model in paper.MODELS)


@pytest.mark.parametrize(
    ("model", "variant", "quantity", "value"),
    [
        ("DPO (100% data)", "expo", "alpha", "0.3"),  # zephyr-7b-dpo in Appendix E
        ("DPO (100% data)", "dev", "reward", "5.64"),
        ("DPO (100% data)", "expo", "alpaca_eval.lc_win_rate", "20.2"),
        ("DPO (20% data)", "sft", "alpaca_eval.win_rate", "4.7"),
        ("internlm2-7b", "aligned", "mt_bench.score", "7.14"),
        ("internlm2-7b", "expo", "open_llm.gsm8k", "0.305"),
    ],
)
def test_one_model_has_its_numbers_of_all_tables(model, variant, quantity, value):
    found = {(n.variant, n.quantity): n.value for n in paper.published(model)}
    assert found[variant, quantity] == Decimal(value)


def test_figure_4_is_the_mean_of_appendix_d():
    found = {(n.variant, n.quantity): n.value for n in paper.published("zephyr-7b-alpha")}
    mean = (Decimal("61.0") + 84 + Decimal("61.4") + 14 + Decimal("78.6") + Decimal("57.9")) / 600
    assert abs(found["aligned", "open_llm.average"] - mean) < Decimal("1e-20")
