"""Tables 1, 2 and Appendix D of the paper, rendered from published figures, cell by cell."""

import csv
from decimal import Decimal
from pathlib import Path

import pytest
from expoflow.reporting.paper import FOLDER as PAPER
from expoflow.reporting.paper_tables import (
    APPENDIX_D,
    TABLE_1,
    TABLE_2,
    Score,
    read_results,
    side_by_side,
    stacked,
    write_paper_tables,
)

# Printed differences that are not the difference of the scores: what is printed, and what follows.
ODD = {
    # 32.7405 - 29.1745 = 3.566; the paper subtracted the rounded ones
    ("llama3-8b-iter", "win_rate"): ("+3.5%", "+3.6%"),
    # of MT-Bench only the rounded scores are published
    ("snorkel-7b", "score"): ("+0.07", "+0.06"),
    ("internlm2-1.8b", "score"): ("+0.08", "+0.09"),
}
TASKS = ("arc", "hellaswag", "mmlu", "gsm8k", "winogrande", "truthfulqa")


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def shared() -> Path:
    """Published raw figures that are not part of this repository."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "data" / "alpaca_eval_leaderboard.csv").is_file():
            return parent / "shared" / "data"
    pytest.skip("the published raw figures (shared/data beside the repository) are not here")


def leaderboard_name(model: str) -> str:
    return model.replace("SFT (M0)", "SFT").replace("DPO (init from M0, ", "DPO (")


def alpaca_eval(shared: Path, paper: list[dict[str, str]]) -> dict[Score, Decimal]:
    """Unrounded win rates of the authors' leaderboard under the names of a table of the paper's."""
    leaderboard = {line[""]: line for line in read(shared / "alpaca_eval_leaderboard.csv")}
    named = read(shared / "leaderboard_names.csv")
    keys = {(line["paper_name"], line["variant"]): line["leaderboard_name"] for line in named}
    scores = {}
    for line in paper:
        for variant in ("aligned", "expo"):
            key = keys.get((leaderboard_name(line["model"]), variant))
            for metric, column in (("win_rate", "win_rate"), ("lc_win_rate", "length_controlled_winrate")):
                if key:
                    value = Decimal(leaderboard[key][column])
                elif variant == "aligned":  # AlpacaEval's own entries, which the paper copied
                    value = Decimal(line["wr" if metric == "win_rate" else "lc_wr"])
                else:
                    continue
                scores[Score(line["model"], variant, "alpaca_eval", metric)] = value
    return scores


def cells(line: dict[str, str], metrics: dict[str, str]) -> list[str]:
    """A row of Table 1 or 2 as the paper prints it; `metrics` are its columns and their units."""
    aligned = [line[metric] + unit for metric, unit in metrics.items()]
    expo = [
        f"{line['expo_' + metric]}{unit} ({line['printed_diff_' + metric]}{unit})"
        if line["expo_" + metric]
        else "-"
        for metric, unit in metrics.items()
    ]
    return [line["model"], *aligned, *expo]


def compare(table, paper, metrics: dict[str, str], columns) -> set[tuple[str, str]]:
    """Assert that all cells are equal; gives the (row, metric) whose printed difference does not follow."""
    odd = set()
    assert len(table.rows) == len(paper)
    for row, line in zip(table.rows, paper, strict=True):
        for index, (ours, printed) in enumerate(zip(row, cells(line, metrics), strict=True)):
            key = (line["model"], columns[(index - 1) % len(columns)].metric) if index else None
            if ours != printed and key in ODD:
                there, follows = ODD[key]
                assert (printed.endswith(f"({there})"), ours.endswith(f"({follows})")) == (True, True)
                assert ours.split(" (")[0] == printed.split(" (")[0]
                odd.add(key)
            else:
                assert ours == printed
    return odd


def test_table_1(shared):
    paper = read(PAPER / "paper_table1.csv")
    scores = alpaca_eval(shared, paper)
    for line in paper:
        for variant, column in (("aligned", "mt_bench"), ("expo", "expo_mt_bench")):
            if line[column]:
                scores[Score(line["model"], variant, "mt_bench", "score")] = Decimal(line[column])
    table = side_by_side(scores, [line["model"] for line in paper], TABLE_1)
    assert compare(table, paper, {"wr": "%", "lc_wr": "%", "mt_bench": ""}, TABLE_1) == set(ODD)
    text = table.markdown(bold=range(4, 7)).splitlines()
    assert text[0] == "|  | WR | LC WR | MT-B | + ExPO Win Rate | + ExPO LC Win Rate | + ExPO MT-Bench |"
    assert text[2] == "| llama2-7b | 5.0% | 5.4% | 6.27 | - | - | - |"
    assert text[7].endswith(
        "| 6.7% | 10.0% | 6.85 | **10.6%** (+3.8%) | **13.6%** (+3.6%) | **6.87** (+0.02) |"
    )


def test_table_2(shared):
    paper = read(PAPER / "paper_table2.csv")
    table = side_by_side(alpaca_eval(shared, paper), [line["model"] for line in paper], TABLE_2)
    assert compare(table, paper, {"wr": "%", "lc_wr": "%"}, TABLE_2) == set()
    assert table.rows[0] == ("SFT (M0)", "4.7%", "8.7%", "-", "-")
    assert table.rows[3][1:] == ("5.9%", "10.4%", "17.9% (+12.0%)", "16.3% (+5.8%)")


def appendix_d(shared: Path | None) -> tuple[list[dict[str, str]], dict[Score, Decimal]]:
    """The paper's Appendix D and its scores: unrounded where the authors published them."""
    paper = read(PAPER / "paper_appendix_d.csv")
    scores = {
        Score(line["model"], line["variant"], "open_llm", task): Decimal(line[task]) / 100
        for line in paper
        for task in TASKS
    }
    if shared:
        raw = read(shared / "lm_eval_raw.csv")
        unrounded = {Score(r["model"], r["variant"], "open_llm", r["task"]): Decimal(r["value"]) for r in raw}
        assert len(unrounded) == 60
        assert set(unrounded) <= set(scores)
        scores |= unrounded
    return paper, scores


def test_appendix_d(shared):
    paper, scores = appendix_d(shared)
    table = stacked(scores, list(dict.fromkeys(line["model"] for line in paper)), APPENDIX_D)
    assert table.header == ("", "ARC", "HellaSwag", "MMLU", "GSM8K", "Winogrande", "TruthfulQA")
    for row, line in zip(table.rows, paper, strict=True):
        label = "+ ExPO" if line["variant"] == "expo" else line["model"]
        assert row == (label, *(line[task] for task in TASKS))


def test_appendix_d_was_rounded_twice(shared):
    paper, scores = appendix_d(shared)
    once = {
        (line["model"], line["variant"], column.metric)
        for line in paper
        for column in APPENDIX_D
        if str(
            round(100 * float(scores[Score(line["model"], line["variant"], "open_llm", column.metric)]), 1)
        )
        != line[column.metric]
    }
    assert once == {
        ("llama3-8b-iter", "aligned", "gsm8k"),
        ("llama3-8b-iter", "aligned", "truthfulqa"),
        ("llama3-8b-iter", "expo", "hellaswag"),
        ("internlm2-1.8b", "aligned", "winogrande"),
        ("tulu-2-dpo-13b", "aligned", "truthfulqa"),
    }


OWN = """\
pair,variant,benchmark,metric,value,standard_error,n
mine,sft,alpaca_eval,win_rate,4.68627,0.65,805
mine,aligned,alpaca_eval,win_rate,14.749,1.07,805
mine,expo,alpaca_eval,win_rate,18.0391,1.15,805
mine,expo-aligned,alpaca_eval,win_rate,3.2901,0.9,805
mine,aligned,mt_bench,score,6.846,0.1,80
mine,aligned,open_llm,arc,0.610,0.01,1172
mine,expo,open_llm,arc,0.60845,0.01,1172
mine,expo,open_llm,average,0.60845,0.01,6
other,aligned,open_llm,gsm8k,0.0,0.01,1319
other,aligned,reward,reward,1.0,0.01,300
"""


def test_a_runs_own_results_in_the_same_form(tmp_path):
    (tmp_path / "benchmarks.csv").write_text(OWN)
    assert Score("mine", "aligned", "open_llm", "arc") in read_results(tmp_path / "benchmarks.csv")
    write_paper_tables(tmp_path / "benchmarks.csv", tmp_path / "tables")
    assert (tmp_path / "tables/table1.md").read_text().splitlines()[2:] == [
        "| mine (SFT) | 4.7% | - | - | - | - | - |",
        "| mine | 14.7% | - | 6.85 | **18.0%** (+3.3%) | - | - |",
    ]
    assert (tmp_path / "tables/table2.csv").read_text().splitlines() == [
        "model,WR,LC WR,+ ExPO Win Rate,+ ExPO LC Win Rate",
        "mine (SFT),4.7%,-,-,-",
        "mine,14.7%,-,18.0% (+3.3%),-",
    ]
    assert (tmp_path / "tables/appendix_d.csv").read_text().splitlines() == [
        "model,ARC,HellaSwag,MMLU,GSM8K,Winogrande,TruthfulQA",
        "mine,61.0,-,-,-,-,-",
        "mine + ExPO,60.9,-,-,-,-,-",
        "other,-,-,-,0.0,-,-",
    ]
    assert "| + ExPO | 60.9 | - | - | - | - | - |" in (tmp_path / "tables/appendix_d.md").read_text()


def test_a_loss_has_a_minus(tmp_path):
    scores = {
        Score("p", "aligned", "alpaca_eval", "win_rate"): Decimal("10.06"),
        Score("p", "expo", "alpaca_eval", "win_rate"): Decimal("10.04"),
    }
    assert side_by_side(scores, ["p"], TABLE_2).rows == (("p", "10.1%", "-", "10.0% (-0.0%)", "-"),)
