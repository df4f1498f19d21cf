"""Benchmarks in the workflow: what they add to a finished run, what a failing one leaves, what a rerun costs."""

import csv
import json
import re

import pytest
from expoflow.miniature import judge, world
from judge_server import JudgeServer

pytestmark = [pytest.mark.workflow, pytest.mark.long]
JUDGE = {"model": "judge", "api_key_env": "", "backoff": 0, "retries": 1}
JOBS = {"benchmark_mt_bench": 3, "compare": 1, "benchmark_table": 1, "paper_tables": 1, "report": 1}
ALL = JOBS | {"mt_bench_data": 1}
DEAD = "http://127.0.0.1:9/v1"  # the port of the discard service, which nobody has


def mt_bench(url: str, **judge):
    """A change of the config: MT-Bench of the miniature, graded by the judge at `url`."""
    section = {"data": "miniature", "max_tokens": 8, "judge": JUDGE | {"base_url": url} | judge}
    return lambda config: config["benchmarks"].update(mt_bench=section)


def grade(body: dict) -> str:
    """By the length of the last answer, so that models differ."""
    answer = re.findall(r"<answer>\n(.*?)\n</answer>", body["messages"][-1]["content"], re.DOTALL)[-1]
    return f"[[{1 + len(answer) % 10}]]"


def table(tree, name: str = "benchmarks.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(tree.read(name).decode().splitlines()))


def scores(tree) -> dict[str, str]:
    rows = table(tree)
    return {
        row["variant"]: row["value"]
        for row in rows
        if (row["benchmark"], row["metric"]) == ("mt_bench", "score")
    }


def test_mt_bench_beside_a_finished_run(finished):
    with JudgeServer(grade) as server:
        finished.edit(mt_bench(server.url))
        assert finished.planned() == ALL
        finished.snakemake("--cores", "2")
        calls = len(server.calls)
        assert 160 < calls <= 480  # equal answers of two variants are judged once
        assert set(scores(finished)) == {"sft", "aligned", "expo", "expo-aligned"}
        difference = float(scores(finished)["expo"]) - float(scores(finished)["aligned"])
        assert float(scores(finished)["expo-aligned"]) == pytest.approx(difference, abs=1e-4)
        assert "MT-B" in finished.read("tables/table1.md").decode()
        assert finished.planned() == {}

        # an alpha that loses: every rule behind select runs, and no judge is called
        finished.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(200))
        output = finished.snakemake("--cores", "2")
        assert "judge judge: 0 calls, 160 verdicts are kept" in output
        assert len(server.calls) == calls

        # costs, patience and keys are no part of a result
        finished.edit(
            mt_bench(
                server.url, concurrency=2, timeout=9, max_cost=5, prices={"judge": {"input": 1, "output": 1}}
            )
        )
        assert finished.planned() == {}
        # another judge asks again, and generates nothing
        finished.edit(mt_bench(server.url, model="other"))
        assert finished.planned() == JOBS
        output = finished.snakemake("--cores", "2")
        assert 160 < len(server.calls) - calls <= 480
        assert "answers to turn 1 at temperature 0 are kept from before" in output


def test_a_benchmark_that_fails_leaves_a_gap_and_hides_nothing(finished):
    for name in ("summary.csv", "figures/histograms.png"):
        (finished.folder / "results" / name).unlink()
    finished.edit(mt_bench(DEAD))
    output = finished.snakemake("--cores", "2", "--keep-going", check=False)
    assert "missing in results/partial/benchmarks.csv: tiny: mt_bench of expo" in output
    assert re.search(
        r"error: judge judge at .*requests in a row without a reply",
        finished.read("logs/benchmark/tiny/expo.mt_bench.log").decode(),
    )
    rows = table(finished, "partial/benchmarks.csv")
    assert {row["variant"] for row in rows if row["benchmark"] == "reward"} == {
        "sft",
        "aligned",
        "expo",
        "expo-aligned",
    }
    gaps = [row for row in rows if row["benchmark"] == "mt_bench"]
    assert {row["variant"] for row in gaps} == {"sft", "aligned", "expo", "expo-aligned"}
    assert {(row["metric"], row["value"]) for row in gaps} == {("", "")}
    page = finished.read("partial/report.html").decode()
    assert 'href="../figures/sweep.svg"' in page
    assert "tiny: mt_bench of aligned" in page
    assert "win_rate" in page
    for name in ("summary.csv", "figures/histograms.png"):
        assert finished.read(name)

    # what failed runs again, and with it the tables
    with JudgeServer(grade) as server:
        finished.edit(mt_bench(server.url))
        assert finished.planned() == JOBS
        finished.snakemake("--cores", "2")
    assert set(scores(finished)) == {"sft", "aligned", "expo", "expo-aligned"}
    assert "mt_bench of" not in finished.read("report.html").decode()
    assert not (finished.folder / "results/partial").exists()
    assert finished.planned() == {}


def test_a_gap_does_not_outlive_its_benchmark(finished):
    before = finished.read("benchmarks.csv")
    finished.edit(mt_bench(DEAD))
    finished.snakemake("--cores", "2", "--keep-going", check=False)
    finished.edit(lambda config: config["benchmarks"].pop("mt_bench"))
    finished.snakemake("--cores", "2")
    assert finished.read("benchmarks.csv") == before


def test_the_judges_bill_and_what_is_missing_come_before_any_job(finished, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    finished.edit(mt_bench("https://judge.invalid/v1", model="gpt-4", api_key_env="MY_KEY"))
    output = finished.snakemake("--dry-run")
    (line,) = [line for line in output.splitlines() if line.startswith("bill:")]
    # prompts: 3 variants x 80 x 3 answers of 700 + 8 tokens; replies: 480 of 2,048
    cost = (3 * 80 * 3 * 708 * 30 + 480 * 2048 * 60) / 1e6
    assert (
        line
        == f"bill: mt_bench: 480 calls of gpt-4 (at most {cost:.2f} USD without repeated ones), less the verdicts that are kept"
    )
    output = finished.snakemake("--cores", "2", check=False)
    assert "benchmarks.mt_bench.judge: $MY_KEY is not set; export MY_KEY=KEY" in output
    assert not (finished.folder / "results/benchmarks").exists()
    finished.edit(lambda config: config["benchmarks"]["mt_bench"].update(data="nowhere"))
    output = finished.snakemake("--dry-run", check=False)
    assert "benchmarks.mt_bench.data: 'nowhere' has no question.jsonl; name a folder" in output


def test_the_miniatures_judge_grades_true_quality(finished):
    finished.edit(mt_bench("miniature", model="truth"))
    finished.snakemake("--cores", "2")
    result = json.loads(finished.read("pairs/tiny/benchmarks/aligned/mt_bench.json"))
    assert result["provenance"]["judge"]["judgments"] == 160
    rows = [
        json.loads(line)
        for line in finished.read("pairs/tiny/benchmarks/aligned/mt_bench.generations.jsonl")
        .decode()
        .splitlines()
    ]
    metas = {p.messages[0].content: p.meta for p in world.prompts("test", 7)}
    data = json.loads(next((finished.folder / "results/benchmarks").glob("mt_bench.*.json")).read_text())
    turns = {question["question_id"]: question["turns"] for question in data["questions"]}
    for row in rows:
        meta = metas[turns[row["question_id"]][row["turn"] - 1]]
        assert row["score"] == round(judge.grade(world.truth(meta, row["response"]).quality), 1)
