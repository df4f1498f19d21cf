"""lm-eval and the check of the reward model in the workflow, on the miniature's own tasks and preferences."""

import csv
import json

import pytest
from expoflow.miniature import open_llm

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'expoflow[bench]'")

pytestmark = [pytest.mark.workflow, pytest.mark.long]
SETTINGS = {"data": "miniature", "tasks": ["miniature_choice", "miniature_answer"], "chat_template": True}
# The miniature's tasks are none of the paper's Appendix D, so that there is no such table.
JOBS = {"benchmark_open_llm": 3, "compare": 1, "benchmark_table": 1, "report": 1}


def ask(config: dict, **settings) -> None:
    config["benchmarks"]["open_llm"] = SETTINGS | settings


def test_open_llm_beside_a_finished_run(finished):
    finished.edit(ask)
    assert finished.planned() == JOBS | {"open_llm_data": 1}
    finished.snakemake("--cores", "1")
    table = list(csv.DictReader(finished.read("benchmarks.csv").decode().splitlines()))
    rows = {(row["variant"], row["metric"]): row for row in table if row["benchmark"] == "open_llm"}
    assert {variant for variant, _ in rows} == {"sft", "aligned", "expo", "expo-aligned"}
    for variant, metric in rows:
        row = rows[variant, metric]
        assert metric in SETTINGS["tasks"]
        assert (float(row["standard_error"]) >= 0, int(row["n"])) == (True, 262)
        if variant == "expo-aligned":
            expo, aligned = (float(rows[each, metric]["value"]) for each in ("expo", "aligned"))
            assert float(row["value"]) == pytest.approx(expo - aligned, abs=1e-5)
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    assert finished.planned() == {}

    # how much at a time is no part of a result
    finished.edit(lambda config: ask(config, batch_size=3))
    assert finished.planned() == {}
    # an alpha that loses: every rule behind select runs, and nobody is asked again
    finished.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(200))
    output = finished.snakemake("--cores", "1")
    assert "tiny: expo: open_llm: 524 answers are kept from before" in output


OWN = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: mine.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def test_a_task_of_ones_own_beside_a_finished_run(finished):
    open_llm.write(finished.folder / "world", 7)
    rows = (finished.folder / "world/miniature/choice/test.jsonl").read_text().splitlines(keepends=True)
    (finished.folder / "mine.jsonl").write_text("".join(rows[:40]))
    (finished.folder / "tasks").mkdir()
    (finished.folder / "tasks/mine.yaml").write_text(OWN)
    settings = {"tasks": ["mine"], "include": "tasks", "apply_chat_template": True}
    finished.edit(lambda config: config["benchmarks"].update(lm_eval=settings))
    jobs = {"benchmark_lm_eval": 3, "compare": 1, "benchmark_table": 1, "report": 1, "lm_eval_data": 1}
    assert finished.planned() == jobs
    finished.snakemake("--cores", "1")
    table = list(csv.DictReader(finished.read("benchmarks.csv").decode().splitlines()))
    found = {row["variant"]: row for row in table if row["benchmark"] == "lm_eval"}
    assert {row["metric"] for row in found.values()} == {"mine.acc"}
    assert {(variant, row["n"]) for variant, row in found.items()} == {
        (variant, "40") for variant in ("sft", "aligned", "expo", "expo-aligned")
    }
    assert b"mine.acc" in finished.read("report.html")
    assert finished.planned() == {}
    finished.edit(lambda config: config["benchmarks"]["lm_eval"].update(tasks=["minee"]))
    assert "lm-eval has no task or group 'minee'; the nearest are: mine" in finished.snakemake(
        "-n", check=False
    )


def test_the_reward_model_is_checked(finished):
    finished.edit(lambda config: config.update(reward_check={"miniature": True}))
    assert finished.planned() == {"preferences": 1, "rewardbench": 1}
    output = finished.snakemake("--cores", "1")
    result = json.loads(finished.read("models/rm.rewardbench.json"))
    metrics = {metric["metric"]: metric for metric in result["metrics"]}
    assert f"rm: prefers the better of two responses in {metrics['accuracy']['value']:.3f}" in output
    rows = [json.loads(line) for line in finished.read("models/rm.rewardbench.jsonl").splitlines()]
    assert metrics["accuracy"]["n"] == len(rows) == 500
    right = sum((row["chosen"] > row["rejected"]) + (row["chosen"] == row["rejected"]) / 2 for row in rows)
    assert metrics["accuracy"]["value"] == pytest.approx(right / 500)
    assert {"accuracy_fact", "accuracy_list", "accuracy_opposite"} <= set(metrics)
    assert finished.planned() == {}
