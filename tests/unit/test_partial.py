"""What a failed run shows of the benchmarks: everything that is there, and the gaps."""

import csv
from pathlib import Path

import pytest
from expoflow.files.atomic import write_text
from expoflow.files.records import write_json
from expoflow.paths import Results
from expoflow.reporting import run_end
from expoflow.reporting.pages.provenance import Told
from expoflow.results import BenchmarkResult, Best, Metric
from pair_results import write_alphas

SUMMARY = "pair,best_alpha,certified,reward_aligned,reward_expo,gain,gain_low,gain_high\n"
CONFIDENCE = {"p": 0.95}
VARIANTS = ("sft", "aligned", "expo", "expo-aligned")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """MT-Bench of all variants, AlpacaEval of sft and aligned alone."""
    for benchmark, metric, variants in (
        ("mt_bench", "score", VARIANTS),
        ("alpaca_eval", "win_rate", VARIANTS[:2]),
    ):
        for place, variant in enumerate(variants):
            row = Metric(metric=metric, value=7 + place, standard_error=1, n=80)
            result = BenchmarkResult(
                pair="p", variant=variant, benchmark=benchmark, prompts="", metrics=[row], provenance={}
            )
            write_json(tmp_path / f"pairs/p/benchmarks/{variant}/{benchmark}.json", result)
    write_text(tmp_path / "summary.csv", SUMMARY)
    write_text(tmp_path / "figures/sweep.svg", "<svg/>")
    write_alphas(tmp_path, "p", {"0": 1.0, "2": 1.5})
    best = Best(pair="p", alpha="2", certified=True, chosen_share=1, edge=False, reason="it is", prompts=40)
    write_json(tmp_path / "pairs/p/best.json", best)
    return tmp_path


def expected(results: Path, *benchmarks: str) -> list[Path]:
    return [results / f"pairs/p/benchmarks/{v}/{b}.json" for b in benchmarks for v in VARIANTS]


def test_the_gap_is_shown_and_hides_nothing(results):
    words = run_end.salvage(
        expected(results, "mt_bench", "alpaca_eval"),
        Told(figures={"sweep": "Rewards."}, confidence=CONFIDENCE),
        Results(results),
    )
    table = list(csv.DictReader((results / "partial/benchmarks.csv").open()))
    found = {(row["benchmark"], row["variant"]): row["value"] for row in table}
    assert found == {
        ("mt_bench", "sft"): "7", ("mt_bench", "aligned"): "8", ("mt_bench", "expo"): "9",
        ("mt_bench", "expo-aligned"): "10", ("alpaca_eval", "sft"): "7", ("alpaca_eval", "aligned"): "8",
        ("alpaca_eval", "expo"): "", ("alpaca_eval", "expo-aligned"): "",
    }  # fmt: skip
    lines = (results / "partial/tables/table1.md").read_text().splitlines()
    assert (
        "| p | 8.0% | - | 8.00 | - | - | 9.00 (+1.00) |" in lines
    )  # without an interval nothing is certified
    assert sorted(path.name for path in (results / "partial/tables").iterdir()) == [
        f"{table}.{kind}" for table in ("table1", "table2") for kind in ("csv", "md", "tex")
    ]
    page = (results / "partial/report.html").read_text()
    said = "This run is not finished: a job failed.</strong> Missing: p: alpaca_eval of expo, p: alpaca_eval of expo-aligned."
    assert said in page.partition('id="answer"')[0]
    assert 'href="../figures/sweep.svg"' in page
    assert "answers.html" not in page  # it is not there
    assert page.count("its job failed") == 2
    assert f"missing in {results}/partial/benchmarks.csv: p: alpaca_eval of expo\n" in words


def test_a_rehearsal_is_one_without_certificates_too(results):
    run_end.salvage(
        expected(results, "mt_bench", "alpaca_eval"), Told(confidence={}), Results(results), limit=4
    )
    page = (results / "partial/report.html").read_text()
    assert "A REHEARSAL on the first 4 prompts of every set: no result" in page.partition('id="answer"')[0]
    table = list(csv.DictReader((results / "partial/benchmarks.csv").open()))
    assert {row["rehearsal"] for row in table} == {"4"}


def test_without_a_gap_nothing_is_written_and_an_older_one_goes(results):
    run_end.salvage(
        expected(results, "mt_bench", "alpaca_eval"), Told(confidence=CONFIDENCE), Results(results)
    )
    assert run_end.salvage(expected(results, "mt_bench"), Told(confidence=CONFIDENCE), Results(results)) == ""
    assert not (results / "partial").exists()


def test_without_any_result_there_is_nothing_to_show(results):
    assert run_end.salvage(expected(results, "open_llm"), Told(confidence=CONFIDENCE), Results(results)) == ""
    assert not (results / "partial").exists()


def test_what_cannot_be_read_does_not_hide_why_the_run_failed(results):
    broken = results / "pairs/p/benchmarks/sft/mt_bench.json"
    broken.write_text("{")
    words = run_end.salvage(
        expected(results, "mt_bench", "alpaca_eval"), Told(confidence=CONFIDENCE), Results(results)
    )
    assert f"the finished results cannot be shown in {results}/partial: {broken}: Invalid JSON" in words


def test_a_summary_that_waits_for_a_certificate_is_shown_without_it(results):
    (results / "summary.csv").unlink()
    (results / "figures/sweep.svg").unlink()
    run_end.salvage(
        expected(results, "mt_bench", "alpaca_eval"),
        Told(figures={"sweep": "Rewards."}, confidence=CONFIDENCE),
        Results(results),
    )
    page = (results / "partial/report.html").read_text()
    assert '<th scope="row">p</th><td>2</td>' in page
    assert "<img" not in page.partition("<script")[0]
    assert not (results / "summary.csv").exists()
