"""What the report says: findings, changes with intervals, the table of benchmarks, times, and where results come from."""

import dataclasses
import json
import re

import pytest
from expoflow.errors import DataError
from expoflow.files.atomic import write_text
from expoflow.files.records import write_csv
from expoflow.reporting import rehearsal, remarks
from expoflow.reporting.pages import comparison, curves, measures, report, stages
from expoflow.reporting.pages.report import write_report
from expoflow.reporting.tables import read
from expoflow.selection.split import judging
from report_results import CAPTION, GRIDS, write_run

LEVEL = dict.fromkeys(GRIDS, 0.95)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path)


def body(results) -> str:
    """What a reader sees: the page without its scripts."""
    return results.report.read_text().partition('<script type="text/plain"')[0]


def test_a_change_has_the_tables_interval_or_one_of_its_own(run):
    results, _ = run
    rows = [*read([results.table("alphas")])]
    found = {
        (point.pair, point.alpha): point.values
        for point in measures.points(rows, read([results.table("rewards")]))
    }
    reward = found["mild", "0.3"]["reward"]
    assert (reward.change, reward.low, reward.high) == pytest.approx((0.6, 0.4, 0.8), abs=0.2)
    assert (reward.low, reward.high) == pytest.approx((0.4, 0.8))
    assert (found["mild", "-1"]["reward"].low, found["mild", "-1"]["reward"].high) == pytest.approx(
        (-2.1, -1.9)
    )
    quality = found["mild", "0.5"]["quality"]
    assert quality.low < quality.change < quality.high
    assert quality.high < 0
    length = found["mild", "0.5"]["length"]
    assert (length.low, length.change, length.high) == pytest.approx((5, 5, 5))
    assert found["mild", "0"]["reward"].change is None
    low, high = quality.band()
    assert low < quality.value < high


def test_an_interval_is_of_the_prompts_that_chose(run):
    results, told = run
    rewards = [*read([results.table("rewards")])]
    judges = judging({row["prompt_id"] for row in rewards}, 0.5)
    chose = [row for row in rewards if row["prompt_id"] not in judges]
    swept = [*read([results.table("alphas")])]
    for row in swept:
        own = [float(each["quality"]) for each in chose if here(each) == here(row)]
        row["quality"] = f"{sum(own) / len(own):g}"
    write_csv(results.table("alphas"), swept, swept[0])
    for pair in told.pairs:
        write_csv(results.alphas(pair), [row for row in swept if row["pair"] == pair], swept[0])
    (expected,) = (
        point.values["quality"]
        for point in measures.points(swept, chose)
        if here(vars(point)) == ("mild", "0.5")
    )
    halves = {pair: {**entry, "judge": 0.5} for pair, entry in told.pairs.items()}
    write_report(results.report, dataclasses.replace(told, pairs=halves))
    assert expected.low is not None
    assert f"<td>{expected.change_words()}</td>" in body(results)
    # whole sets beside a choice by a half, or a table of an earlier run: of other responses there is no interval
    (other,) = (
        point.values["quality"]
        for point in measures.points(swept, rewards)
        if here(vars(point)) == ("mild", "0.5")
    )
    assert (other.low, other.high) == (None, None)


def here(row) -> tuple[str, str]:
    return row["pair"], row["alpha"]


def test_too_few_prompts_have_no_interval(run):
    results, _ = run
    swept = [row for row in read([results.table("alphas")]) if row["pair"] == "mild"]
    rewards = [row for row in read([results.table("rewards")]) if row["prompt_id"] == f"{0:016x}"]
    for row in swept:
        row["quality"] = next(each["quality"] for each in rewards if here(each) == here(row))
    points = measures.points(swept, rewards)
    assert {point.values["quality"].low for point in points} == {None}


def test_names_that_look_like_numbers_are_texts():
    row = {"pair": "1.5", "best_alpha": "0.25", "gain": "0.0004", "reward_expo": "1.23456", "n": "3"}
    assert report._rounded(row) == row | {"reward_expo": "1.235"}


def test_what_chose_alpha_is_said_beside_whether_it_is_certified(run):
    results, told = run
    told.pairs["mild"]["by"] = "nll"
    write_report(results.report, told)
    assert "<td>yes, by NLL</td>" in body(results)
    assert "<td>no</td>" in body(results)


def test_nothing_of_a_rehearsal_looks_certified(run):
    results, told = run
    rehearsal.mark([results.table("summary"), results.table("benchmarks")], 4)
    write_report(results.report, dataclasses.replace(told, confidence={}))
    page = body(results)
    assert "A REHEARSAL on the first 4 prompts of every set: no result." in page.partition('id="answer"')[0]
    assert page.count('<span class="verdict quiet">a rehearsal</span>') == 2
    assert page.count("<td>a rehearsal</td>") == 2
    assert not re.search("<td>(yes|no)</td>", page)


def test_without_rewards_there_is_no_interval_and_none_is_made_up(run):
    results, _ = run
    points = measures.points([*read([results.table("alphas")])], [])
    (quality,) = {point.values["quality"].low for point in points}
    assert quality is None
    assert points[0].values["quality"].band() == (None, None)


def test_every_measure_that_is_known_has_a_chart_with_the_pairs_that_have_it(run):
    results, _ = run
    points = measures.points([*read([results.table("alphas")])], [])
    found = curves.charts(points, {"mild": {"nll": "0.5"}})
    assert [chart["name"] for chart in found["charts"]] == [
        "reward",
        "nll",
        "quality",
        "length",
        "degenerate",
    ]
    assert [(row["pair"], row["alpha"]) for row in found["rows"] if row["chosen"]] == [
        ("mild", 0.3),
        ("strong", 0),
    ]
    assert [(row["pair"], row["alpha"], row["by"]) for row in found["rows"] if row["by"]] == [
        ("mild", 0.5, "NLL")
    ]
    json.dumps(found, allow_nan=False)
    wide = [dataclasses.replace(point, alpha=str(50 * float(point.alpha))) for point in points]
    assert curves.charts(wide, {})["charts"][0]["spec"]["encoding"]["x"]["scale"]["type"] == "symlog"


def test_a_cell_without_number_says_why(run):
    results, _ = run
    rows = [*read([results.table("benchmarks")])]
    found = {line.metric: line for line in comparison.lines(rows, {}, LEVEL)}
    assert {metric: line.verdict for metric, line in found.items()} == {
        "reward": "better",
        "length": "",
        "quality": "not certified",
        "unfinished": "worse",
        "win_rate": "better",
        "score": "",
    }
    assert [cell.text for cell in found["score"].cells] == [
        "7.500",
        "7.500",
        comparison.FAILED,
        comparison.FAILED,
    ]
    assert [cell.text for cell in found["win_rate"].cells][:3] == [comparison.ONLY_COMPARED] * 3
    assert found["unfinished"].cells[3].text == "+0.200 [+0.100, +0.300]"
    assert {line.verdict for line in comparison.lines(rows, {}, {})} == {"", "a rehearsal"}
    alone = [row for row in rows if not row["metric"]]
    (line,) = comparison.lines(alone, {}, LEVEL)
    assert [cell.text for cell in line.cells][2:] == [comparison.FAILED] * 2
    assert comparison.gaps(rows) == ["mild: mt_bench of expo", "mild: mt_bench of expo-aligned"]


def difference(benchmark, metric, value, low, high):
    known = {"pair": "p", "variant": "expo-aligned", "standard_error": "", "n": "50", "p_value": "0.001"}
    return known | {"benchmark": benchmark, "metric": metric, "value": value, "low": low, "high": high}


def test_a_share_of_wins_has_no_sign_and_a_difference_of_win_rates_has_one():
    rows = [
        difference("human", "sweep_win_rate", "0.3", "0.18", "0.44"),
        difference("alpaca_eval", "win_rate", "3.2", "1.1", "5.2"),
        difference("lm_eval", "acc", "0.00031", "0.0001", "0.0006"),
    ]
    cells = [line.cells[-1].text for line in comparison.lines(rows, {"p": {"acc": True}}, {"p": 0.95})]
    assert cells == ["0.300 [0.180, 0.440]", "+3.200 [+1.100, +5.200]", "+0.0003 [+0.0001, +0.001]"]


def test_the_level_of_an_interval_is_not_rounded():
    row = difference("mt_bench", "score", "-1", "-2", "-0.5")
    assert "its own 99.5% interval" in remarks.worse([row], "p", {}, 0.995)


def test_times_are_summed_by_stage_and_what_cannot_be_read_does_not_count(run):
    results, _ = run
    assert [dataclasses.astuple(stage) for stage in stages.stages(results)] == [
        ("generate", 2, 125, 1000.2),
        ("tables", 1, 0.4, None),
    ]
    assert stages.paid(results) == {"mt_bench": "1.23 USD"}


def test_the_page_begins_with_the_answer_and_ends_with_where_it_comes_from(run):
    results, told = run
    write_report(results.report, told)
    page = body(results)
    said = "Over the aligned model: gain 0.40 [0.30, 0.50] on 100 prompts of test that took no part in the choice: certified."
    places = [
        page.index(text)
        for text in (
            said,
            "in 1 of 3 metrics, each by its own 95% interval: reward unfinished +0.2",
            "alpha 0.5 left out: 90% of its responses are degenerate.",
            "The aligned model is kept, so there is no gain to certify.",
            'id="curves"',
            'id="benchmarks"',
            'id="figures"',
            'id="cost"',
            "2 min 5 s",
            "hub: org/&lt;rm&gt;",
            "<code>abc123</code>",
            "expoflow run --config &#39;my config.yaml&#39;",
        )
    ]
    assert places == sorted(places)
    assert page.count("left out: 90%") == 1  # not once more in the reason
    assert CAPTION not in page
    assert page.count("<img ") == 1
    assert "never drawn" not in page
    assert set(re.findall(r'href="([^"#]+)"', page)) == {
        *(f"pairs/{pair}/answers.html" for pair in GRIDS),
        "figures/sweep.svg",
        *("summary.csv", "alphas.csv", "benchmarks.csv", "rewards.csv"),
    }


def test_the_same_results_make_the_same_page(run):
    results, told = run
    write_report(results.report, told)
    before = results.report.read_bytes()
    write_report(results.report, told)
    assert results.report.read_bytes() == before


def test_a_figure_that_is_too_large_lies_beside_the_page(run, monkeypatch):
    results, told = run
    monkeypatch.setattr(report, "PICTURES", 10)
    write_report(results.report, told)
    page = body(results)
    assert "<img " not in page
    assert 'href="figures/sweep.svg"' in page


def test_a_word_for_a_number_is_refused(run):
    results, told = run
    table = results.table("benchmarks")
    write_text(table, table.read_text().replace("0.05", "oops", 1))
    with pytest.raises(DataError, match=r"standard_error is 'oops', not a number; delete it"):
        write_report(results.report, told)
    assert not results.report.exists()
