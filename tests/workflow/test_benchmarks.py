"""Benchmarks in the workflow: what they add to a finished run, what a failing one leaves, what a rerun costs."""

import csv
import hashlib
import json
import re

import pytest
from expoflow.miniature import judge, world
from expoflow.project.card import hub_card
from expoflow.project.folder import read_config
from expoflow.project.publication import _evidence
from judge_server import JudgeServer
from scipy import stats

pytestmark = [pytest.mark.workflow, pytest.mark.long]
JUDGE = {"model": "judge", "api_key_env": "", "backoff": 0, "retries": 1}
JOBS = {"benchmark_mt_bench": 3, "compare": 1, "benchmark_table": 1, "paper_tables": 1, "report": 1}
JOBS |= {"answers_page": 1}
ALL = JOBS | {"mt_bench_data": 1}
VOTED = {"compare": 1, "benchmark_table": 1, "report": 1}
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


def human(tree) -> dict[str, dict[str, str]]:
    """The rows of the votes by metric."""
    rows = [row for row in table(tree) if row["benchmark"] == "human"]
    assert {row["variant"] for row in rows} == {"expo-aligned"}
    return {row["metric"]: row for row in rows}


def test_mt_bench_beside_a_finished_run(finished):
    with JudgeServer(grade) as server:
        finished.edit(mt_bench(server.url))
        assert finished.planned() == ALL
        finished.snakemake("--cores", "1")
        calls = len(server.calls)
        assert 160 < calls <= 480  # equal answers of two variants are judged once
        assert set(scores(finished)) == {"sft", "aligned", "expo", "expo-aligned"}
        difference = float(scores(finished)["expo"]) - float(scores(finished)["aligned"])
        assert float(scores(finished)["expo-aligned"]) == pytest.approx(difference, abs=1e-4)
        assert "MT-B" in finished.read("tables/table1.md").decode()
        assert finished.planned() == {}

        # an alpha that loses: every rule behind select runs, and no judge is called
        finished.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(200))
        output = finished.snakemake("--cores", "1")
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
        output = finished.snakemake("--cores", "1")
        assert 160 < len(server.calls) - calls <= 480
        assert "answers to turn 1 at temperature 0 are kept from before" in output


def test_a_benchmark_that_fails_leaves_a_gap_and_hides_nothing(finished):
    for name in ("summary.csv", "figures/histograms.png"):
        (finished.folder / "results" / name).unlink()
    finished.edit(mt_bench(DEAD))
    output = finished.snakemake("--cores", "1", "--keep-going", check=False)
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
        finished.snakemake("--cores", "1")
    assert set(scores(finished)) == {"sft", "aligned", "expo", "expo-aligned"}
    assert "mt_bench of" not in finished.read("report.html").decode()
    assert not (finished.folder / "results/partial").exists()
    assert finished.planned() == {}


def test_a_gap_does_not_outlive_its_benchmark(finished):
    before = finished.read("benchmarks.csv")
    finished.edit(mt_bench(DEAD))
    finished.snakemake("--cores", "1", "--keep-going", check=False)
    finished.edit(lambda config: config["benchmarks"].pop("mt_bench"))
    finished.snakemake("--cores", "1")
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
        == f"bill: mt_bench: 480 calls of gpt-4 (at most {cost:.2f} USD without repeated ones), minus the verdicts that are kept"
    )
    output = finished.snakemake("--cores", "1", check=False)
    assert "benchmarks.mt_bench.judge: $MY_KEY is not set; export MY_KEY=KEY" in output
    assert not (finished.folder / "results/benchmarks").exists()
    finished.edit(lambda config: config["benchmarks"]["mt_bench"].update(data="nowhere"))
    output = finished.snakemake("--dry-run", check=False)
    assert "benchmarks.mt_bench.data: 'nowhere' has no question.jsonl; name a folder" in output


def test_the_miniatures_judge_grades_true_quality(finished):
    finished.edit(mt_bench("miniature", model="truth"))
    finished.snakemake("--cores", "1")
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


def voted(tree, prompts: str, winners: list[str]) -> str:
    """Lines of votes on the first responses to a set, with these winners; the digests are made from the files of responses."""
    best = json.loads(tree.read("pairs/tiny/best.json"))["alpha"]
    files = {"aligned": "alpha=0/dev", "expo": f"alpha={best}/dev"}
    if prompts == "reward":
        files = {variant: f"benchmarks/{variant}/reward" for variant in files}
    texts = {
        variant: [json.loads(row) for row in tree.read(f"pairs/tiny/{file}.generations.jsonl").splitlines()]
        for variant, file in files.items()
    }
    lines = []
    for at, winner in enumerate(winners):
        rows = {variant: texts[variant][at] for variant in texts}
        line = {"pair": "tiny", "prompts": prompts, "prompt_id": rows["expo"]["prompt_id"], "sample": 0}
        line |= {
            variant: hashlib.sha256(row["response"].encode()).hexdigest()[:16]
            for variant, row in rows.items()
        }
        assert line["aligned"] != line["expo"]
        line |= {"winner": winner, "left": ("aligned", "expo")[at % 2], "voter": "ann", "time": "now"}
        lines.append(json.dumps(line) + "\n")
    return "".join(lines)


def test_votes_of_people_beside_a_finished_run(finished):
    file = finished.folder / "votes.jsonl"
    finished.edit(lambda config: config["benchmarks"].update(human={"votes": "votes.jsonl"}))
    output = finished.snakemake("--cores", "1", check=False)
    assert "benchmarks.human.votes: no file 'votes.jsonl'; vote on results/pairs/tiny/answers.html" in output

    # on the sweep's own prompts: 6 wins, 2 ties, 4 losses
    file.write_text(voted(finished, "dev", ["expo"] * 6 + ["tie"] * 2 + ["aligned"] * 4))
    assert finished.planned() == VOTED
    finished.snakemake("--cores", "1")
    row = human(finished)["sweep_win_rate"]
    assert (float(row["value"]), row["n"]) == (pytest.approx(7 / 12), "12")
    assert finished.planned() == {}

    # on held-out ones, which count alone: 3 of 20 are won
    file.write_text(file.read_text() + voted(finished, "reward", ["expo"] * 3 + ["aligned"] * 17))
    assert finished.planned() == VOTED
    output = finished.snakemake("--cores", "1")
    row = human(finished)["win_rate"]
    exact = stats.binomtest(3, 20)
    ends = exact.proportion_ci(0.95, method="exact")
    found = [float(row[name]) for name in ("value", "low", "high", "p_value")]
    assert found == pytest.approx([0.15, ends.low, ends.high, exact.pvalue], rel=1e-5)
    assert re.search(r"worse than the aligned model in .*human win_rate -0.35 \[-0.468, -0.121\]", output)
    log = finished.read("logs/compare/tiny/human.log").decode()
    assert "tiny: 12 votes do not count: they are on prompts that chose alpha" in log
    result = json.loads(finished.read("pairs/tiny/benchmarks/expo-aligned/human.json"))
    assert (result["prompts"], result["provenance"]["expo_left"]) == ("test", 10)
    assert "human" in finished.read("report.html").decode()
    assert finished.planned() == {}
    evidence = _evidence(
        finished.folder,
        "tiny",
        read_config(finished.folder),
        finished.folder / "results/pairs/tiny/expo",
    )
    card = hub_card(evidence, "org/new", {})
    assert "| human | win_rate |  |  |  | 0.150 [0.032, 0.379] | 20 |" in card
    assert "20 votes on prompts of `test`, which took no part in choosing alpha." in card

    # an alpha that loses leaves the votes what they are
    finished.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(200))
    finished.snakemake("--cores", "1")
    assert human(finished)["win_rate"] == row
