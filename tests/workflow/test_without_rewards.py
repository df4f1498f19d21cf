"""A run without a reward model: alpha is chosen by the pair itself, and no number is made up."""

import csv
import json

import pytest
from expoflow.project.card import hub_card
from expoflow.project.folder import read_config
from expoflow.project.publication import _evidence
from test_caching import AFTER_SELECT

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.whole]


def rows(tree, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(tree.read(name).decode().splitlines()))


def test_a_run_without_a_reward_model(finished):
    def change(config):
        del config["reward_model"], config["models"]["rm"]
        config["select"]["compare"] = ["implicit"]

    finished.edit(change)
    planned = {"score": 4, "likelihood": 4, "select": 1, "answers": 1} | AFTER_SELECT
    assert finished.planned() == planned | {"benchmark_reward": 3, "figure": 1}  # and no `generate`
    before = finished.read("pairs/tiny/alpha=1/dev.generations.jsonl")
    output = finished.snakemake("--cores", "1")
    assert finished.read("pairs/tiny/alpha=1/dev.generations.jsonl") == before

    assert {row["reward"] for row in rows(finished, "rewards.csv")} == {""}
    alphas = rows(finished, "alphas.csv")
    assert {row[name] for row in alphas for name in ("reward", "gain", "gain_low", "p_value")} == {""}
    assert all(float(row["length"]) > 0 and row["nll"] and row["implicit"] for row in alphas)
    best = json.loads(finished.read("pairs/tiny/best.json"))
    assert not {"reward", "gain"} & set(best)
    assert best["reason"].endswith("there is no reward model")
    nll = {row["alpha"]: float(row["nll"]) for row in alphas if float(row["alpha"]) >= 0}
    assert best["alpha"] == max((alpha for alpha in nll if nll[alpha] <= nll["0"]), key=float)
    assert set(best["others"]) == {"implicit"}

    (summary,) = rows(finished, "summary.csv")
    assert summary["reward_expo"] == summary["gain"] == ""
    assert float(summary["nll_expo"]) <= float(summary["nll_aligned"])
    metrics = {row["metric"] for row in rows(finished, "benchmarks.csv")}
    assert {"quality", "accuracy", "length"} <= metrics
    assert not {"reward", "win_rate"} & metrics

    page = finished.read("report.html").decode()
    assert ">NLL, ExPO</th>" in page
    assert "reward, ExPO" not in page
    assert "None" not in page.partition("<script")[0]
    assert f"by implicit alpha {best['others']['implicit']}." in page
    results = finished.folder / "results"
    assert (results / "figures/sweep.png").stat().st_size > 10_000
    assert f"tiny: best alpha {best['alpha']}: " in output[-3000:]
    assert finished.planned() == {}

    evidence = _evidence(finished.folder, "tiny", read_config(finished.folder), results / "pairs/tiny/expo")
    card = hub_card(evidence, "org/new", {})
    assert f"Alpha {best['alpha']} was taken: {best['reason']}." in card
    assert "and no reward model was used." in card
    assert "![NLL and length of the responses against alpha](sweep.png)" in card
    assert (
        "\n| alpha | length | unfinished | degenerate | effective alpha | NLL under the aligned model | implicit"
        in card
    )
