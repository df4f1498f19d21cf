"""Tables 1, 2 and Appendix D of the paper, rendered from published figures, cell by cell."""

import csv
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from expoflow.config.benchmarks import BenchmarksConfig
from expoflow.reporting.paper import FOLDER as PAPER
from expoflow.reporting.paper_tables import (
    APPENDIX_D,
    TABLE_1,
    TABLE_2,
    Score,
    have_rows,
    read_results,
    side_by_side,
    stacked,
    write_paper_tables,
)
from expoflow.reporting.printed_table import Mark

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
    bold = {(row, column): Mark.BOLD_VALUE for row in range(len(paper)) for column in range(4, 7)}
    text = replace(table, marks=bold).markdown().splitlines()
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
    """The paper's Appendix D and its scores: unrounded if the authors published them."""
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
pair,variant,benchmark,metric,value,standard_error,n,low,high,p_value
mine,sft,alpaca_eval,win_rate,4.68627,0.65,805,,,
mine,aligned,alpaca_eval,win_rate,14.749,1.07,805,,,
mine,expo,alpaca_eval,win_rate,18.0391,1.15,805,,,
mine,expo-aligned,alpaca_eval,win_rate,3.2901,0.9,805,1.5,5.1,0.0005
mine,aligned,mt_bench,score,6.846,0.1,80,,,
mine,expo,mt_bench,score,6.886,0.1,80,,,
mine,expo-aligned,mt_bench,score,0.04,0.1,80,-0.24,0.28,0.8
mine,aligned,open_llm,arc,0.610,0.01,1172,,,
mine,expo,open_llm,arc,0.60845,0.01,1172,,,
mine,expo-aligned,open_llm,arc,-0.00155,0.0004,1172,-0.0024,-0.0007,0.001
mine,aligned,open_llm,mmlu,0.610,0.01,14042,,,
mine,expo,open_llm,mmlu,0.65,0.01,14042,,,
mine,expo-aligned,open_llm,mmlu,0.04,0.01,14042,0.02,0.06,0.001
mine,expo,open_llm,average,0.60845,0.01,6,,,
other,aligned,open_llm,gsm8k,0.0,0.01,1319,,,
other,aligned,reward,reward,1.0,0.01,300,,,
other,aligned,alpaca_eval,win_rate,30,1,805,,,
other,expo,alpaca_eval,win_rate,20,1,805,,,
other,expo-aligned,alpaca_eval,win_rate,-10,1,805,-12,-8,0.0005
"""
CONFIDENCE = {"mine": 0.95, "other": 0.95}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The table benchmarks.csv of a run, in a folder of its own."""
    (tmp_path / "benchmarks.csv").write_text(OWN)
    return tmp_path / "benchmarks.csv"


def test_a_runs_own_results_in_the_same_form(own):
    assert Score("mine", "aligned", "open_llm", "arc") in read_results(own)
    tables = own.parent / "tables"
    write_paper_tables(own, tables, CONFIDENCE)
    assert (tables / "table2.csv").read_text().splitlines() == [
        "model,WR,LC WR,+ ExPO Win Rate,+ ExPO LC Win Rate",
        "mine (SFT),4.7%,-,-,-",
        "mine,14.7%,-,18.0% (+3.3%),-",
        "other,30.0%,-,20.0% (-10.0%),-",
    ]
    assert (tables / "appendix_d.csv").read_text().splitlines() == [
        "model,ARC,HellaSwag,MMLU,GSM8K,Winogrande,TruthfulQA",
        "mine,61.0,-,61.0,-,-,-",
        "mine + ExPO,60.9,-,65.0,-,-,-",
        "other,-,-,-,0.0,-,-",
    ]


def test_a_certified_gain_is_bold_a_certified_loss_has_a_dagger_and_what_may_be_chance_has_neither(own):
    tables = own.parent / "tables"
    write_paper_tables(own, tables, CONFIDENCE)
    *lines, empty, words = (tables / "table1.md").read_text().splitlines()
    assert lines[2:] == [
        "| mine (SFT) | 4.7% | - | - | - | - | - |",
        "| mine | 14.7% | - | 6.85 | **18.0%** (+3.3%) | - | 6.89 (+0.04) |",
        "| other | 30.0% | - | - | 20.0% (-10.0%)† | - | - |",
    ]
    assert empty == ""
    assert words.startswith("AlpacaEval 2.0 win rates (WR), length-controlled")
    assert "Bold: ExPO is better than the aligned model, and that is certified: the 95% interval" in words
    assert "†: it is worse, certified in the same way." in words
    lines = (tables / "appendix_d.md").read_text().splitlines()
    assert lines[3] == "| + ExPO | 60.9† | - | **65.0** | - | - | - |"
    latex = (tables / "table1.tex").read_text().splitlines()
    assert r"mine & 14.7\% & -- & 6.85 & \textbf{18.0\%} (+3.3\%) & -- & 6.89 (+0.04) \\" in latex
    assert r"other & 30.0\% & -- & -- & 20.0\% ($-$10.0\%)$^{\dagger}$ & -- & -- \\" in latex


def test_an_interval_without_its_p_value_marks_nothing(own):
    own.write_text(OWN.replace("1.5,5.1,0.0005", "1.5,5.1,0.2"))
    write_paper_tables(own, own.parent, CONFIDENCE)
    assert "| 18.0% (+3.3%) |" in (own.parent / "table1.md").read_text()


def test_a_rehearsal_certifies_nothing(own):
    write_paper_tables(own, own.parent, {})
    text = (own.parent / "table1.md").read_text()
    assert ("**" in text, "†" in text) == (False, False)
    assert "Nothing is marked: a rehearsal certifies nothing." in text


def test_a_table_without_rows_is_not_written_unless_it_is_asked_for(own):
    own.write_text("".join(line for line in OWN.splitlines(keepends=True) if "open_llm" not in line))
    write_paper_tables(own, own.parent / "some", CONFIDENCE)
    kinds = ("csv", "md", "tex")
    expected = {f"{name}.{kind}" for name in ("table1", "table2") for kind in kinds}
    assert {path.name for path in (own.parent / "some").iterdir()} == expected
    write_paper_tables(own, own.parent / "one", CONFIDENCE, {"appendix_d"})
    assert {path.name for path in (own.parent / "one").iterdir()} == {f"appendix_d.{kind}" for kind in kinds}


@pytest.mark.parametrize(
    ("benchmarks", "tables"),
    [
        ({"reward": {"prompts": "test"}}, set()),
        ({"mt_bench": {"data": "miniature"}}, {"table1"}),
        ({"alpaca_eval": {"reference": "miniature"}}, {"table1", "table2"}),
        ({"open_llm": {"data": "miniature", "tasks": ["miniature_choice"]}}, set()),
        ({"open_llm": {"tasks": ["gsm8k"]}}, {"appendix_d"}),
        ({"lm_eval": {"tasks": ["gsm8k"]}}, set()),
    ],
)
def test_which_tables_a_run_has_is_known_from_its_config(benchmarks, tables):
    found = have_rows([BenchmarksConfig(**benchmarks)])
    assert {name for name, has_rows in found.items() if has_rows} == tables


def test_a_loss_has_a_minus(tmp_path):
    scores = {
        Score("p", "aligned", "alpaca_eval", "win_rate"): Decimal("10.06"),
        Score("p", "expo", "alpaca_eval", "win_rate"): Decimal("10.04"),
    }
    assert side_by_side(scores, ["p"], TABLE_2).rows == (("p", "10.1%", "-", "10.0% (-0.0%)", "-"),)
